package redrive_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/faultnet"
	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
)

// A beat that hangs when the lease lapses must not keep a handler at work on a job
// that another worker may take from that moment on.
func TestI3_AHandlersContextEndsBeforeAnotherWorkerCanHaveTheJob(t *testing.T) {
	t.Parallel()
	for range 5 { // how long the beat hangs beyond the lapse is up to chance
		synctest.Test(t, aWorkerIsCutOff)
	}
}

func aWorkerIsCutOff(t *testing.T) {
	t.Cleanup(func() { time.Sleep(2 * time.Second) }) // go-redis gives its dials up
	b := redistest.Embedded(t)
	r := newRig(t, b)
	task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{Timeout: redrive.NoTimeout})
	const lease = 30 * time.Second

	proxy := faultnet.NewDialer(nil, b.Options().Dialer, 1)
	defer proxy.Close()
	opts := b.Options()
	opts.Dialer = proxy.Dialer()
	cutOff := &rig{t: t, b: b, rdb: redis.NewClient(opts), client: r.client}
	defer cutOff.rdb.Close()

	began, ended := make(chan struct{}, 1), make(chan time.Time, 1)
	first := redrive.NewMux()
	task.Handle(first, redrive.NoResult(func(ctx context.Context, _ *redrive.Job[number]) error {
		began <- struct{}{}
		<-ctx.Done()
		ended <- time.Now()
		return context.Cause(ctx)
	}))
	w := cutOff.start(first, redrive.WorkerOptions{Lease: lease})
	_, err := task.Enqueue(r.ctx(), r.client, number{1}, nil)
	require.NoError(t, err)
	<-began
	again := make(chan time.Time, 1)
	second := redrive.NewMux()
	task.Handle(second, redrive.NoResult(func(context.Context, *redrive.Job[number]) error {
		again <- time.Now()
		return nil
	}))
	r.start(second, redrive.WorkerOptions{Lease: lease})
	time.Sleep(lease)

	proxy.Blackhole()
	out, in := <-ended, <-again
	require.False(t, in.Before(out), "the job ran again %v before its first handler was told", out.Sub(in))
	proxy.Down()
	proxy.Heal()
	require.Error(t, w.stop())
}

// A claim whose answer takes longer than a short lease's keeper waits for it is given
// up. The answer that comes after all must not start the job a second time.
func TestI3_AClaimThatWasGivenUpStartsNothingWhenItIsHeardOf(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(2 * time.Second) }) // go-redis gives its dials up
		r := newRig(t, redistest.Embedded(t))
		proxy := faultnet.NewDialer(nil, r.b.Options().Dialer, 1)
		defer proxy.Close()
		opts := r.b.Options()
		opts.Dialer = proxy.Dialer()
		slow := &rig{t: t, b: r.b, rdb: redis.NewClient(opts), client: r.client}
		defer slow.rdb.Close()
		task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})
		starts := make(chan string, 10)
		mux := func(worker string) *redrive.Mux {
			m := redrive.NewMux()
			task.Handle(m, redrive.NoResult(func(context.Context, *redrive.Job[number]) error {
				starts <- worker
				time.Sleep(10 * time.Second)
				return nil
			}))
			return m
		}
		w := slow.start(mux("slow"), redrive.WorkerOptions{Lease: redrive.MinLease})
		time.Sleep(2 * time.Second)
		// One claim, and only its answer, is late: heartbeats arrive.
		claims := faultnet.Scripts(store.Scripts()["claim"].Hash())
		late := proxy.Delay(claims, 1, 2900*time.Millisecond)
		_, err := task.Enqueue(r.ctx(), r.client, number{1}, nil)
		require.NoError(t, err)
		<-late.Fired()
		other := r.start(mux("other"), redrive.WorkerOptions{})
		time.Sleep(20 * time.Second)
		require.NoError(t, w.stop())
		require.NoError(t, other.stop())
		close(starts)
		var got []string
		for worker := range starts {
			got = append(got, worker)
		}
		require.Equal(t, []string{"other"}, got)
	})
}

// Calls that hang know nothing of a shutdown: neither a heartbeat nor a settlement
// may hold it up.
func TestI15_ABlackHoleDoesNotHoldUpTheShutdown(t *testing.T) {
	t.Parallel()
	for after := range 6 { // seconds: another call hangs
		synctest.Test(t, func(t *testing.T) {
			t.Cleanup(func() { time.Sleep(2 * time.Second) }) // go-redis gives its dials up
			r := newRig(t, redistest.Embedded(t))
			proxy := faultnet.NewDialer(nil, r.b.Options().Dialer, 1)
			defer proxy.Close()
			opts := r.b.Options()
			opts.Dialer = proxy.Dialer()
			cutOff := &rig{t: t, b: r.b, rdb: redis.NewClient(opts), client: r.client}
			defer cutOff.rdb.Close()
			task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})
			mux := redrive.NewMux()
			task.Handle(mux, redrive.NoResult(func(context.Context, *redrive.Job[number]) error {
				time.Sleep(time.Minute) // its end meets the hole
				return nil
			}))
			const timeout = 1500 * time.Millisecond
			w := cutOff.start(mux, redrive.WorkerOptions{ShutdownTimeout: timeout})
			_, err := task.Enqueue(r.ctx(), r.client, number{1}, nil)
			require.NoError(t, err)
			time.Sleep(59 * time.Second)
			proxy.Blackhole()
			time.Sleep(time.Duration(after) * time.Second)
			stopped := time.Now()
			require.Error(t, w.stop())
			require.LessOrEqual(t, time.Since(stopped), timeout+250*time.Millisecond, "stopped %d s after the hole opened", after)
			proxy.Down()
			proxy.Heal()
		})
	}
}

// A worker that is stopped while its first call hangs has nothing to wait for.
func TestI15_ACallThatHangsAtTheStartDoesNotHoldUpTheShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, redistest.Embedded(t))
		proxy := faultnet.NewDialer(nil, r.b.Options().Dialer, 1)
		defer proxy.Close()
		opts := r.b.Options()
		opts.Dialer = proxy.Dialer()
		cutOff := &rig{t: t, b: r.b, rdb: redis.NewClient(opts), client: r.client}
		defer cutOff.rdb.Close()
		const timeout = 500 * time.Millisecond
		hung := proxy.DelayRequest(faultnet.Scripts(), 1, time.Minute)
		w := cutOff.start(redrive.NewMux(), redrive.WorkerOptions{ShutdownTimeout: timeout})
		<-hung.Fired()
		stopped := time.Now()
		_ = w.stop()
		require.LessOrEqual(t, time.Since(stopped), timeout+250*time.Millisecond)
	})
}

// The clock of a delay is Redis's, which counts in microseconds. Here a job that is
// due at a whole millisecond has the worker look just then.
func TestI12_ADelayIsNotShortByTheFractionOfAMillisecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, redistest.Embedded(t))
		task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})
		begun := time.Now()
		const fraction = 600 * time.Microsecond
		starts := make(chan time.Duration, 10)
		mux := redrive.NewMux()
		task.Handle(mux, redrive.NoResult(func(_ context.Context, job *redrive.Job[number]) error {
			if job.Args.N == 0 && job.Snoozes == 0 {
				time.Sleep(fraction)
				return redrive.Snooze(time.Second)
			}
			if job.Args.N < 2 {
				starts <- time.Since(begun)
			}
			return nil
		}))
		r.start(mux, redrive.WorkerOptions{})
		enqueue := func(n int, o *redrive.EnqueueOptions) {
			_, err := task.Enqueue(r.ctx(), r.client, number{n}, o)
			require.NoError(t, err)
		}
		enqueue(2, &redrive.EnqueueOptions{RunAt: begun.Add(time.Second)})
		enqueue(0, nil)
		time.Sleep(fraction)
		enqueue(1, &redrive.EnqueueOptions{Delay: time.Second})
		for range 2 {
			require.GreaterOrEqual(t, <-starts, time.Second+fraction)
		}
		r.drained()
	})
}
