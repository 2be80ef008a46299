package redrive_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
)

// gated registers a task whose jobs of N > 0 return at once, and those of N == 0 when the
// channel closes.
func gated(mux *redrive.Mux, until <-chan struct{}) (task *redrive.Task[number, int], running *atomic.Int32) {
	running = new(atomic.Int32)
	task = redrive.NewTask[number, int]("slow", redrive.TaskOptions{ResultTTL: time.Minute})
	task.Handle(mux, func(_ context.Context, j *redrive.Job[number]) (int, error) {
		if j.Args.N == 0 {
			running.Add(1)
			defer running.Add(-1)
			<-until
		}
		return j.Args.N, nil
	})
	return task, running
}

func TestASlowHandlerDelaysNeitherTheSettlesNorTheClaimsOfTheOthers(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		const slots, jobs = 5, 300
		for _, blocked := range []int{1, 2, slots - 1} {
			mux, release := redrive.NewMux(), make(chan struct{})
			task, running := gated(mux, release)
			args := make([]number, jobs)
			for i := range args {
				args[i].N = i + 1
			}
			for i := range blocked { // all over the first batches
				args[i*(slots+1)].N = 0
			}
			_, err := task.EnqueueMany(r.ctx(), r.client, args, nil)
			require.NoError(t, err)
			before := r.stats("default").Succeeded
			w := r.start(mux, redrive.WorkerOptions{Concurrency: slots})
			r.eventually(func(s redrive.QueueStats) bool {
				return s.Succeeded-before == int64(jobs-blocked)
			}, "slow handlers held the others up")
			require.EqualValues(t, blocked, running.Load())
			close(release)
			r.drained()
			require.NoError(t, w.stop())
		}
	})
}

// TestAJobIsSettledWhileAnotherOfItsBatchRuns claims two jobs at once: one that
// returns, and one that waits until Redis knows that the first has ended.
func TestAJobIsSettledWhileAnotherOfItsBatchRuns(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		for _, args := range [][]number{{{0}, {1}}, {{1}, {0}}} {
			mux, release := redrive.NewMux(), make(chan struct{})
			task, _ := gated(mux, release)
			receipts, err := task.EnqueueMany(r.ctx(), r.client, args, nil)
			require.NoError(t, err)
			w := r.start(mux, redrive.WorkerOptions{Concurrency: 2})
			quick := receipts[0]
			if args[1].N == 1 {
				quick = receipts[1]
			}
			_, err = quick.Wait(r.ctx())
			require.NoError(t, err)
			close(release)
			r.drained()
			require.NoError(t, w.stop())
		}
	})
}

// TestI1_NothingIsAcknowledgedBeforeRedisHasConfirmed cuts Redis off while settles and
// enqueues are gathered: no job counts as settled, no slot is given away and no
// Enqueue returns until the answers have come.
func TestI1_NothingIsAcknowledgedBeforeRedisHasConfirmed(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		const slots = 8
		direct := newRig(t, b)
		r, proxy := faulty(t, b, 1)
		mux, gate := redrive.NewMux(), make(chan struct{})
		task, running := gated(mux, gate)
		var started, settled atomic.Int64
		w := r.start(mux, redrive.WorkerOptions{Concurrency: slots, Trace: &redrive.WorkerTrace{
			JobStarted: func(*redrive.Message) { started.Add(1) },
			JobSettled: func(*redrive.Message, redrive.JobEnd) {
				n := settled.Add(1)
				// Read past the fault: what is said to be settled is so in Redis.
				if s := direct.stats("default"); s.Succeeded < n {
					t.Errorf("%d jobs are said to be settled, Redis knows of %d", n, s.Succeeded)
				}
			},
		}})
		_, err := task.EnqueueMany(r.ctx(), r.client, make([]number, 3*slots), nil)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return running.Load() == slots }, patience, time.Millisecond)

		proxy.Blackhole()
		close(gate)
		require.Eventually(t, func() bool { return running.Load() == 0 }, patience, time.Millisecond)
		var returned atomic.Int64
		var producers sync.WaitGroup
		for range 50 {
			producers.Go(func() {
				_, err := task.Enqueue(r.ctx(), r.client, number{1}, nil)
				n := returned.Add(1)
				if s := direct.stats("default"); err == nil && s.Enqueued < 3*slots+n {
					t.Errorf("%d enqueues have returned, Redis knows of %d", n, s.Enqueued-3*slots)
				}
			})
		}
		time.Sleep(200 * time.Millisecond) // time enough to get ahead of Redis
		require.EqualValues(t, slots, started.Load(), "a slot was given away before its job was settled")
		require.Zero(t, settled.Load())
		require.Zero(t, returned.Load())

		proxy.Heal()
		producers.Wait()
		require.EqualValues(t, 50, returned.Load())
		r.drained()
		require.NoError(t, w.stop())
		require.EqualValues(t, 3*slots+50, settled.Load())
	})
}
