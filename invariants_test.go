package redrive_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
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

// bequeath makes a worker that died while it owned jobs: id → envelope.
func (r *rig) bequeath(jobs map[string]string) {
	r.t.Helper()
	base := r.b.Prefix + ":{default}:"
	_, err := r.rdb.TxPipelined(r.ctx(), func(p redis.Pipeliner) error {
		p.ZAdd(r.ctx(), base+"workers", redis.Z{Score: 1, Member: "dead"})
		for id, envelope := range jobs {
			p.HSet(r.ctx(), base+"jobs", id, envelope)
			p.HSet(r.ctx(), base+"w:dead", id, "7")
		}
		return nil
	})
	require.NoError(r.t, err)
}

// TestI8_ADeadWorkersJobsCountACrashAndNoRetry has a job in the hands of a dead worker
// that allows no retry at all: it runs, and has used none. Jobs beside it that do not
// decode are dead letters, and hold up nothing (I13).
func TestI8_ADeadWorkersJobsCountACrashAndNoRetry(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{
			Retry: redrive.RetryPolicy{MaxRetries: redrive.NoRetries},
		})
		mux := redrive.NewMux()
		ran := make(chan redrive.Message, 1)
		task.Handle(mux, redrive.NoResult(func(_ context.Context, j *redrive.Job[number]) error {
			ran <- *j.Message
			return nil
		}))
		r.bequeath(map[string]string{
			"bad1": "{{{", "good": `{"v":1,"task":"t","args":{"N":1}}`, "bad2": `{"v":9,"task":"t"}`,
		})
		r.start(mux, redrive.WorkerOptions{Lease: time.Second})
		select {
		case m := <-ran:
			require.Equal(t, "good", m.ID)
			require.Equal(t, []int{2, 0, 1}, []int{m.Starts, m.Retries, m.Crashes}, "starts, retries, crashes")
		case <-time.After(5 * time.Second): // a lease, and what a slow machine needs
			t.Fatalf("the job of a dead worker does not run: %+v", r.stats("default"))
		}
		r.drained()
		s := r.stats("default")
		require.Equal(t, []int64{1, 2, 1, 0}, []int64{s.Succeeded, s.Died, s.Crashed, s.Retried})
		require.Equal(t, "malformed", r.letter("default", "bad1")["reason"])
	})
}

// TestI8_TheLastCrashIsACrashLoop gives a worker a job that has crashed as often as
// may be but once.
func TestI8_TheLastCrashIsACrashLoop(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		mux := redrive.NewMux()
		ran := make(chan string, 2)
		redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{}).Handle(mux,
			redrive.NoResult(func(_ context.Context, j *redrive.Job[number]) error { ran <- j.ID; return nil }))
		r.bequeath(map[string]string{"poison": `{"v":1,"task":"t","args":{}}`, "once": `{"v":1,"task":"t","args":{}}`})
		require.NoError(t, r.rdb.HSet(r.ctx(), r.b.Prefix+":{default}:ledger", "poison", `{"v":1,"c":2}`).Err())
		r.start(mux, redrive.WorkerOptions{Lease: time.Second, MaxCrashes: 3})
		r.drained()
		require.Equal(t, "once", receive(t, ran, "run"))
		require.Empty(t, ran, "the poison ran again")
		l := r.letter("default", "poison")
		require.Equal(t, "crash-loop", l["reason"])
		require.EqualValues(t, 3, l["crashes"])
	})
}

// TestI15_WhatReturnsDuringTheShutdownIsSettled stops a worker whose handlers then
// return, one with success and one with an error: both ends reach Redis.
func TestI15_WhatReturnsDuringTheShutdownIsSettled(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{Retry: redrive.RetryPolicy{Backoff: redrive.Constant(time.Hour)}})
		mux := redrive.NewMux()
		began, finish := make(chan struct{}, 2), make(chan struct{})
		task.Handle(mux, redrive.NoResult(func(_ context.Context, j *redrive.Job[number]) error {
			began <- struct{}{}
			<-finish
			if j.Args.N == 1 {
				return errors.New("its own failure")
			}
			return nil
		}))
		w := r.start(mux, redrive.WorkerOptions{ShutdownTimeout: 3 * time.Second})
		_, err := task.EnqueueMany(r.ctx(), r.client, []number{{0}, {1}}, nil)
		require.NoError(t, err)
		receive(t, began, "start")
		receive(t, began, "start")
		begin := time.Now()
		w.cancel()
		close(finish)
		require.NoError(t, w.stop())
		require.Less(t, time.Since(begin), 3*time.Second, "the end of a job waited for the end of the shutdown")
		s := r.stats("default")
		require.Equal(t, []int64{1, 1, 0, 0}, []int64{s.Succeeded, s.Retried, s.Released, s.Interrupted})
		require.Equal(t, []int64{0, 1}, []int64{s.Ready, s.Delayed})
	})
}

// TestI15_AShutdownClaimsNothingMore stops a worker of one slot in the middle of a queue:
// the job that runs is its last.
func TestI15_AShutdownClaimsNothingMore(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})
		mux := redrive.NewMux()
		var w *running
		ready := make(chan struct{})
		var runs atomic.Int32
		task.Handle(mux, redrive.NoResult(func(context.Context, *redrive.Job[number]) error {
			<-ready
			if runs.Add(1) == 5 {
				w.cancel()
				time.Sleep(50 * time.Millisecond) // time enough for dispatch to hear of it
			}
			return nil
		}))
		_, err := task.EnqueueMany(r.ctx(), r.client, make([]number, 100), nil)
		require.NoError(t, err)
		w = r.start(mux, redrive.WorkerOptions{Concurrency: 1, ShutdownTimeout: 3 * time.Second})
		close(ready)
		require.NoError(t, <-w.done)
		w.done <- nil
		require.EqualValues(t, 5, runs.Load())
		s := r.stats("default")
		require.Equal(t, []int64{5, 95, 0}, []int64{s.Succeeded, s.Ready, s.Released})
	})
}

// TestI15_AnAttemptCutShortByAShutdownIsFirstAgain cancels two handlers of a worker
// that goes: their jobs are before one that waits, and only interrupts have counted.
func TestI15_AnAttemptCutShortByAShutdownIsFirstAgain(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})
		mux := redrive.NewMux()
		began := make(chan redrive.Message, 10)
		var again atomic.Bool
		task.Handle(mux, redrive.NoResult(func(ctx context.Context, j *redrive.Job[number]) error {
			began <- *j.Message
			if again.Load() {
				return nil
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}))
		w := r.start(mux, redrive.WorkerOptions{Concurrency: 2, ShutdownTimeout: 500 * time.Millisecond})
		receipts, err := task.EnqueueMany(r.ctx(), r.client, make([]number, 3), nil)
		require.NoError(t, err)
		first := []string{receive(t, began, "start").ID, receive(t, began, "start").ID}
		require.NoError(t, w.stop())
		require.Equal(t, []int64{3, 0, 2}, []int64{r.stats("default").Ready, r.stats("default").Active, r.stats("default").Interrupted})
		again.Store(true)
		r.start(mux, redrive.WorkerOptions{Concurrency: 1})
		var order []string
		for i := range 3 {
			m := receive(t, began, "start")
			order = append(order, m.ID)
			require.Zero(t, m.Retries+m.Crashes+m.Snoozes)
			require.Equal(t, map[bool]int{true: 1}[i < 2], m.Interrupts)
		}
		require.ElementsMatch(t, first, order[:2])
		require.Equal(t, receipts[2].ID, order[2])
		r.drained()
	})
}

// TestI15_AWorkerWhoseLeaveIsNotAnsweredLeavesAgain loses the answer to the last call
// of a worker. Its jobs are back in the queue, and Run does not say that they are not.
func TestI15_AWorkerWhoseLeaveIsNotAnsweredLeavesAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := redistest.Embedded(t)
		r, proxy := faulty(t, b, 1)
		task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})
		mux := redrive.NewMux()
		began, release := make(chan struct{}, 1), make(chan struct{})
		task.Handle(mux, redrive.NoResult(func(context.Context, *redrive.Job[number]) error {
			began <- struct{}{}
			<-release
			return nil
		}))
		w := r.start(mux, redrive.WorkerOptions{})
		defer close(release)
		_, err := task.Enqueue(r.ctx(), r.client, number{}, nil)
		require.NoError(t, err)
		<-began
		lost := proxy.DropReply(faultnet.Scripts(store.Scripts()["leave"].Hash()), 1)
		err = w.stop()
		require.ErrorIs(t, err, redrive.ErrHandlersStuck)
		require.NotContains(t, err.Error(), "when the lease has lapsed")
		require.Equal(t, 1, lost.Hits())
		s := r.stats("default")
		require.Equal(t, []int64{0, 1, 1}, []int64{int64(s.Workers), s.Ready, s.Released})
	})
}

// TestI13_AHandlerThatEndsItsGoroutineKeepsNoSlot: the worker's only slot is free for
// the next job.
func TestI13_AHandlerThatEndsItsGoroutineKeepsNoSlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, redistest.Embedded(t))
		task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})
		mux := redrive.NewMux()
		done := make(chan int, 5)
		task.Handle(mux, redrive.NoResult(func(_ context.Context, j *redrive.Job[number]) error {
			if j.Starts == 1 {
				runtime.Goexit()
			}
			done <- j.Args.N
			return nil
		}))
		r.start(mux, redrive.WorkerOptions{Concurrency: 1})
		_, err := task.EnqueueMany(r.ctx(), r.client, []number{{1}, {2}, {3}}, nil)
		require.NoError(t, err)
		require.ElementsMatch(t, []int{1, 2, 3}, []int{receive(t, done, "end"), receive(t, done, "end"), receive(t, done, "end")})
		r.drained()
	})
}

// TestI16_AWorkerThatStoppedHoldsNoConnection runs workers one after the other, with
// a lock held for long enough that it is renewed: what is left is the user's own pool.
func TestI16_AWorkerThatStoppedHoldsNoConnection(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r, proxy := faulty(t, b, 1)
		rdb := r.rdb.(*redis.Client)
		task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})
		mux := redrive.NewMux()
		task.Handle(mux, redrive.NoResult(func(ctx context.Context, _ *redrive.Job[number]) error {
			time.Sleep(400 * time.Millisecond) // past a third of the TTL
			return nil
		}), redrive.Singleton(rdb, redrive.SingletonOptions{Prefix: b.Prefix, TTL: time.Second}))
		for range 2 {
			w := r.start(mux, redrive.WorkerOptions{})
			_, err := task.Enqueue(r.ctx(), r.client, number{}, nil)
			require.NoError(t, err)
			r.drained()
			require.Greater(t, proxy.Connections(), int(rdb.PoolStats().TotalConns), "those of the worker")
			require.NoError(t, w.stop())
			require.Eventually(t, func() bool { return proxy.Connections() == int(rdb.PoolStats().TotalConns) },
				5*time.Second, time.Millisecond, "%d connections are open, %d of them the user's", proxy.Connections(), rdb.PoolStats().TotalConns)
		}
	})
}

// TestASlotIsKeptUntilItsHandlerReturns has a handler that ignores its timeout: the
// only slot is not given to the next job while it runs.
func TestASlotIsKeptUntilItsHandlerReturns(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{
			Timeout: 10 * time.Millisecond, Retry: redrive.RetryPolicy{MaxRetries: redrive.NoRetries},
		})
		mux := redrive.NewMux()
		began, release := make(chan struct{}, 2), make(chan struct{})
		task.Handle(mux, redrive.NoResult(func(ctx context.Context, _ *redrive.Job[number]) error {
			began <- struct{}{}
			<-release
			return ctx.Err()
		}))
		r.start(mux, redrive.WorkerOptions{Concurrency: 1})
		letGo := sync.OnceFunc(func() { close(release) })
		t.Cleanup(letGo)
		_, err := task.EnqueueMany(r.ctx(), r.client, make([]number, 2), nil)
		require.NoError(t, err)
		receive(t, began, "start")
		select {
		case <-began:
			t.Fatal("two handlers run in one slot")
		case <-time.After(150 * time.Millisecond): // time enough to give the slot away
		}
		letGo()
		receive(t, began, "second start")
		r.drained()
	})
}

// TestAnEffectThatEndsWithItsJobsContextIsRecorded has the context of a job end while
// its effect happens: the next attempt must find it done.
func TestAnEffectThatEndsWithItsJobsContextIsRecorded(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		effects := 0
		pay := redrive.Idempotent(b.Client(), redrive.IdempotencyOptions{Prefix: b.Prefix, Logger: quiet})(
			redrive.HandlerFunc(func(context.Context, *redrive.Message) ([]byte, error) {
				effects++
				cancel(redrive.ErrShutdown)
				return []byte("paid"), nil
			}))
		for _, ctx := range []context.Context{ctx, t.Context()} {
			result, err := pay.Process(ctx, &redrive.Message{ID: "job-1", Task: "pay"})
			require.NoError(t, err)
			require.Equal(t, "paid", string(result))
		}
		require.Equal(t, 1, effects)
	})
}
