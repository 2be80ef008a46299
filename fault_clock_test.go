package redrive_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
)

// TestI3_AJumpOfTheServersClockIsNoCrash: the clock of Redis jumps ahead, or a replica
// with another clock takes over, and every lease lapses at once. Workers that are alive
// keep their jobs; one that is dead loses them, though later; and when the clock jumps
// back, all goes on.
func TestI3_AJumpOfTheServersClockIsNoCrash(t *testing.T) {
	t.Parallel()
	b := redistest.Embedded(t)
	r := newRig(t, b)
	mux := redrive.NewMux()
	began, finish := make(chan string, 100), make(chan struct{})
	act.Handle(mux, func(_ context.Context, j *redrive.Job[string]) (string, error) {
		began <- j.Args
		if j.Args == "held" {
			<-finish
		}
		return fmt.Sprint(j.Crashes), nil
	})
	var reaped, lost atomic.Int32
	trace := &redrive.WorkerTrace{
		JobReaped: func(string, string, string, int) { reaped.Add(1) },
		JobLost:   func(*redrive.Message) { lost.Add(1) },
	}
	var workers []*running
	for range 3 {
		workers = append(workers, r.start(mux, redrive.WorkerOptions{Lease: time.Second, Concurrency: 2, Trace: trace}))
	}
	free := sync.OnceFunc(func() { close(finish) })
	t.Cleanup(free) // before the workers stop, which wait for it
	held, err := act.EnqueueMany(r.ctx(), r.client, []string{"held", "held", "held", "held", "held"}, nil)
	require.NoError(t, err)
	for range held {
		receive(t, began, "start")
	}
	time.Sleep(1200 * time.Millisecond) // all have been in touch for a lease: they may judge others
	for _, ahead := range []time.Duration{time.Hour, 30 * time.Hour} {
		b.Skew(ahead)
		time.Sleep(1500 * time.Millisecond) // whoever would reap has
		require.Zero(t, reaped.Load(), "a worker that is alive was taken for dead")
		r.through("now")
	}
	// One that is dead: its lease lapses by the new clock.
	q := store.Open(r.rdb, b.Prefix, redrive.DefaultQueue)
	orphan, err := act.Enqueue(r.ctx(), r.client, "orphan", &redrive.EnqueueOptions{Delay: time.Hour})
	require.NoError(t, err)
	_, err = q.Beat(r.ctx(), "ghost", time.Minute)
	require.NoError(t, err)
	require.NoError(t, r.rdb.ZRem(r.ctx(), b.Prefix+":{default}:delayed", orphan.ID).Err())
	require.NoError(t, r.rdb.HSet(r.ctx(), b.Prefix+":{default}:w:ghost", orphan.ID, "7").Err())
	b.Skew(31 * time.Hour)
	crashes, err := orphan.Wait(r.ctx())
	require.NoError(t, err)
	require.Equal(t, "1", crashes)

	b.Skew(0)
	r.through("now")
	free()
	r.drained()
	for _, w := range workers {
		require.NoError(t, w.stop())
	}
	s := r.stats(redrive.DefaultQueue)
	require.EqualValues(t, 1, s.Crashed)
	require.EqualValues(t, 1, reaped.Load())
	require.Zero(t, lost.Load()+int32(s.Released+s.Interrupted+s.Retried))
	require.EqualValues(t, len(held)+1+3*2, s.Succeeded)
}

// through enqueues a job now and one after a delay, and waits for both.
func (r *rig) through(how string) {
	r.t.Helper()
	for _, delay := range []time.Duration{0, 20 * time.Millisecond} {
		receipt, err := act.Enqueue(r.ctx(), r.client, how, &redrive.EnqueueOptions{Delay: delay})
		require.NoError(r.t, err)
		_, err = receipt.Wait(r.ctx())
		require.NoError(r.t, err)
	}
}

// TestFault_AProducersClockThatIsWrongChangesNoDuration: jobs that say that they were
// enqueued in ten hours, or before there were computers, run, are retried after their
// backoff, and tell sensible times. Only MaxAge compares the producer's clock with the
// worker's: what seems too old is dead, what seems to come from the future is not.
func TestFault_AProducersClockThatIsWrongChangesNoDuration(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		const wait = 50 * time.Millisecond
		opts := redrive.TaskOptions{Retry: redrive.RetryPolicy{MaxRetries: 1, Backoff: redrive.Constant(wait), Jitter: redrive.NoJitter}}
		ageless := redrive.NewTask[string, redrive.None]("ageless", opts)
		limited := redrive.NewTask[string, redrive.None]("limited", opts.With(func(o *redrive.TaskOptions) { o.MaxAge = time.Hour }))
		var mu sync.Mutex
		runs := make(map[string][]time.Time)
		mux := redrive.NewMux()
		for _, task := range []*redrive.Task[string, redrive.None]{ageless, limited} {
			task.Handle(mux, redrive.NoResult(func(_ context.Context, j *redrive.Job[string]) error {
				mu.Lock()
				defer mu.Unlock()
				runs[j.ID] = append(runs[j.ID], time.Now())
				if d := time.Since(j.FirstStartedAt); d < -time.Second || d > patience {
					t.Errorf("%s started first %v ago", j.ID, d)
				}
				if j.Starts == 1 {
					return errors.New("once")
				}
				return nil
			}))
		}
		base := b.Prefix + ":{default}:"
		for clock, at := range map[string]time.Time{"past": time.UnixMilli(1000), "future": time.Now().Add(10 * time.Hour)} {
			for _, task := range []string{"ageless", "limited"} {
				id := task + "-" + clock
				envelope := fmt.Sprintf(`{"v":1,"task":%q,"at":%d,"args":""}`, task, at.UnixMilli())
				require.NoError(t, r.rdb.HSet(r.ctx(), base+"jobs", id, envelope).Err())
				require.NoError(t, r.rdb.RPush(r.ctx(), base+"ready", id).Err())
			}
		}
		negative := make(chan time.Duration, 100)
		w := r.start(mux, redrive.WorkerOptions{Trace: &redrive.WorkerTrace{JobSettled: func(_ *redrive.Message, e redrive.JobEnd) {
			if e.Duration < 0 || e.Delay < 0 {
				negative <- min(e.Duration, e.Delay)
			}
		}}})
		r.drained()
		require.NoError(t, w.stop()) // the trace hears of an end after Redis
		require.Empty(t, negative)
		require.Len(t, runs, 3)
		for id, at := range runs {
			require.Len(t, at, 2, id)
			require.GreaterOrEqual(t, at[1].Sub(at[0]), wait-time.Millisecond, id)
			require.Less(t, at[1].Sub(at[0]), patience/2, id)
		}
		require.EqualValues(t, redrive.ReasonMaxAge, r.letter(redrive.DefaultQueue, "limited-past")["reason"])
		s := r.stats(redrive.DefaultQueue)
		require.EqualValues(t, 3, s.Succeeded)
		require.EqualValues(t, 1, s.Dead)
	})
}
