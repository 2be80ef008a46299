package redrive_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
)

// syncArgs is a job that must be alone with its resource.
type syncArgs struct {
	Resource string
	Behave   string
}

func TestSingletonConflicts(t *testing.T) {
	t.Parallel()
	for name, conflict := range map[string]redrive.Conflict{"skip": redrive.Skip, "later": redrive.Later(10 * time.Millisecond), "fail": redrive.Fail} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
				r := newRig(t, b)
				task := redrive.NewTask[syncArgs, redrive.None]("sync", redrive.TaskOptions{
					ResultTTL: time.Minute,
					Retry:     redrive.RetryPolicy{MaxRetries: 1000, Backoff: redrive.Constant(10 * time.Millisecond)},
				})
				mux := redrive.NewMux()
				began, finish := make(chan redrive.Message, 10), make(chan struct{})
				task.Handle(mux, redrive.NoResult(func(ctx context.Context, j *redrive.Job[syncArgs]) error {
					if _, ok := redrive.FencingToken(ctx); !ok {
						t.Error("no fencing token")
					}
					began <- *j.Message
					<-finish
					return nil
				}), redrive.Singleton(r.rdb, redrive.SingletonOptions{
					Prefix: b.Prefix, OnConflict: conflict, Logger: quiet,
					Key: task.Key(func(a syncArgs) string { return a.Resource }),
				}))
				r.start(mux, redrive.WorkerOptions{})
				first, err := task.Enqueue(r.ctx(), r.client, syncArgs{Resource: "a"}, nil)
				require.NoError(t, err)
				require.Equal(t, first.ID, receive(t, began, "start").ID)
				second, err := task.Enqueue(r.ctx(), r.client, syncArgs{Resource: "a"}, nil)
				require.NoError(t, err)
				other, err := task.Enqueue(r.ctx(), r.client, syncArgs{Resource: "b"}, nil)
				require.NoError(t, err)
				require.Equal(t, other.ID, receive(t, began, "start").ID, "another key is not held up")
				if conflict == redrive.Skip {
					_, err := second.Wait(r.ctx())
					var failed *redrive.FailedError
					require.ErrorAs(t, err, &failed)
					require.Equal(t, redrive.ReasonDiscarded, failed.Reason)
					require.Contains(t, failed.Message, "already running")
					require.Contains(t, failed.Message, "job "+first.ID)
					require.Contains(t, failed.Message, "since ")
				} else {
					r.eventually(func(s redrive.QueueStats) bool { return s.Snoozed+s.Retried >= 3 }, "no conflict")
				}
				close(finish)
				if conflict != redrive.Skip {
					m := receive(t, began, "second start")
					require.Equal(t, second.ID, m.ID)
					if conflict == redrive.Fail {
						require.GreaterOrEqual(t, m.Retries, 3)
						require.Zero(t, m.Snoozes)
					} else {
						require.Zero(t, m.Retries, "Later uses no retry")
						require.GreaterOrEqual(t, m.Snoozes, 3)
					}
					_, err = second.Wait(r.ctx())
					require.NoError(t, err)
				}
				r.drained()
			})
		})
	}
}

func TestSingletonReleasesAfterEveryOutcome(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[syncArgs, redrive.None]("sync", redrive.TaskOptions{
			ResultTTL: time.Minute, Timeout: 50 * time.Millisecond, Retry: redrive.RetryPolicy{MaxRetries: redrive.NoRetries},
		})
		mux := redrive.NewMux()
		task.Handle(mux, redrive.NoResult(func(ctx context.Context, j *redrive.Job[syncArgs]) error {
			switch j.Args.Behave {
			case "error":
				return errors.New("x")
			case "permanent":
				return redrive.Permanent(errors.New("x"))
			case "snooze":
				if j.Snoozes == 0 {
					return redrive.Snooze(time.Hour)
				}
			case "panic":
				panic("x")
			case "goexit":
				runtime.Goexit()
			case "timeout":
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}), redrive.Singleton(r.rdb, redrive.SingletonOptions{Prefix: b.Prefix, Logger: quiet}))
		var ends atomic.Int32
		r.start(mux, redrive.WorkerOptions{Concurrency: 1, Trace: &redrive.WorkerTrace{
			JobSettled: func(*redrive.Message, redrive.JobEnd) { ends.Add(1) },
		}})
		for i, how := range []string{"success", "error", "permanent", "snooze", "panic", "goexit", "timeout", "success"} {
			receipt, err := task.Enqueue(r.ctx(), r.client, syncArgs{Behave: how}, nil)
			require.NoError(t, err)
			require.Eventually(t, func() bool { return ends.Load() == int32(i+1) }, patience, time.Millisecond, how)
			if how == "success" {
				_, err := receipt.Wait(r.ctx())
				require.NoError(t, err, "after job %d the lock was not free", i-1)
			}
		}
	})
}

func TestSingletonLimitNeverLetsAFourthIn(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[syncArgs, redrive.None]("sync", redrive.TaskOptions{})
		mux := redrive.NewMux()
		var inside, most atomic.Int32
		task.Handle(mux, redrive.NoResult(func(context.Context, *redrive.Job[syncArgs]) error {
			n := inside.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(10 * time.Millisecond)
			inside.Add(-1)
			return nil
		}), redrive.Singleton(r.rdb, redrive.SingletonOptions{
			Prefix: b.Prefix, Limit: 3, OnConflict: redrive.Later(5 * time.Millisecond), Logger: quiet,
		}))
		r.start(mux, redrive.WorkerOptions{})
		r.start(mux, redrive.WorkerOptions{})
		_, err := task.EnqueueMany(r.ctx(), r.client, make([]syncArgs, 30), nil)
		require.NoError(t, err)
		r.drained()
		require.EqualValues(t, 3, most.Load())
		require.EqualValues(t, 30, r.stats("default").Succeeded)
	})
}

// TestSingletonLostMidRun takes the lock away from a running handler: its context
// ends, and then what it returns is taken as it is.
func TestSingletonLostMidRun(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[syncArgs, redrive.None]("sync", redrive.TaskOptions{ResultTTL: time.Minute, Retry: fast})
		mux := redrive.NewMux()
		attempts := make(chan redrive.Message, 10)
		task.Handle(mux, redrive.NoResult(func(ctx context.Context, j *redrive.Job[syncArgs]) error {
			attempts <- *j.Message
			<-ctx.Done()
			if !errors.Is(context.Cause(ctx), redrive.ErrLockLost) {
				return redrive.Permanent(fmt.Errorf("the context ended for %w", context.Cause(ctx)))
			}
			if j.Retries == 0 {
				return ctx.Err()
			}
			return nil
		}), redrive.Singleton(r.rdb, redrive.SingletonOptions{Prefix: b.Prefix, TTL: time.Second, Logger: quiet}))
		r.start(mux, redrive.WorkerOptions{})
		receipt, err := task.Enqueue(r.ctx(), r.client, syncArgs{}, nil)
		require.NoError(t, err)
		for retries := range 2 {
			require.Equal(t, retries, receive(t, attempts, "attempt").Retries, "an error under a lost lock is an ordinary one")
			require.EqualValues(t, 1, r.rdb.Del(r.ctx(), r.b.Prefix+":lock:{sync/sync}:holders").Val())
		}
		_, err = receipt.Wait(r.ctx())
		require.NoError(t, err, "success stands")
	})
}

func TestSingletonReleasesAtShutdown(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[syncArgs, redrive.None]("sync", redrive.TaskOptions{})
		mux := redrive.NewMux()
		began := make(chan struct{}, 1)
		task.Handle(mux, redrive.NoResult(func(ctx context.Context, _ *redrive.Job[syncArgs]) error {
			began <- struct{}{}
			<-ctx.Done()
			return context.Cause(ctx)
		}), redrive.Singleton(r.rdb, redrive.SingletonOptions{Prefix: b.Prefix, Logger: quiet}))
		w := r.start(mux, redrive.WorkerOptions{ShutdownTimeout: 500 * time.Millisecond})
		_, err := task.Enqueue(r.ctx(), r.client, syncArgs{}, nil)
		require.NoError(t, err)
		receive(t, began, "start")
		require.NoError(t, w.stop())
		require.EqualValues(t, 1, r.stats("default").Interrupted)
		lock, err := r.locker(redrive.LockerOptions{Scope: "sync"}).TryAcquire(r.ctx(), "sync")
		require.NoError(t, err)
		require.NoError(t, lock.Release(r.ctx()))
	})
}

// TestSingletonWaitsForRedis: the Redis of the locks does not answer. The job has
// not run, so no retry is used.
func TestSingletonWaitsForRedis(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		locks, proxy := faulty(t, b, 1)
		r := newRig(t, b)
		task := redrive.NewTask[syncArgs, int]("sync", redrive.TaskOptions{ResultTTL: time.Minute, Retry: fast})
		mux := redrive.NewMux()
		task.Handle(mux, func(_ context.Context, j *redrive.Job[syncArgs]) (int, error) {
			return j.Starts, nil
		}, redrive.Singleton(locks.rdb, redrive.SingletonOptions{Prefix: b.Prefix, Logger: quiet}))
		proxy.Down()
		w := r.start(mux, redrive.WorkerOptions{ShutdownTimeout: 500 * time.Millisecond})
		receipt, err := task.Enqueue(r.ctx(), r.client, syncArgs{}, nil)
		require.NoError(t, err)
		r.eventually(func(s redrive.QueueStats) bool { return s.Active == 1 }, "not claimed")
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, w.stop())
		stats := r.stats("default")
		require.EqualValues(t, 1, stats.Ready, "a shutdown puts it back")
		require.Zero(t, stats.Retried)
		r.start(mux, redrive.WorkerOptions{})
		r.eventually(func(s redrive.QueueStats) bool { return s.Active == 1 }, "not claimed again")
		proxy.Up()
		starts, err := receipt.Wait(r.ctx())
		require.NoError(t, err)
		require.Equal(t, 2, starts)
	})
}

// TestSingletonScopes: tasks do not share locks unless they say so, and a locker of
// the scope takes part.
func TestSingletonScopes(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Embedded(t))
	process := func(task string, o redrive.SingletonOptions) error {
		o.Prefix, o.OnConflict = r.b.Prefix, redrive.Fail
		o.Key = func(*redrive.Message) string { return "ann@example.com" }
		mux := redrive.NewMux()
		mux.Handle(task, redrive.Singleton(r.rdb, o)(redrive.HandlerFunc(
			func(context.Context, *redrive.Message) ([]byte, error) { return nil, nil })))
		_, err := mux.Process(r.ctx(), &redrive.Message{ID: "j", Task: task})
		return err
	}
	lock, err := r.locker(redrive.LockerOptions{Scope: "a", Holder: "the operator"}).TryAcquire(r.ctx(), "ann@example.com")
	require.NoError(t, err)
	err = process("a", redrive.SingletonOptions{})
	require.ErrorIs(t, err, redrive.ErrLockHeld)
	require.ErrorContains(t, err, "the operator")
	require.NoError(t, process("b", redrive.SingletonOptions{}))
	require.ErrorIs(t, process("b", redrive.SingletonOptions{Scope: "a"}), redrive.ErrLockHeld)
	require.NoError(t, lock.Release(r.ctx()))
	require.NoError(t, process("a", redrive.SingletonOptions{}))
}

func TestSingletonWithoutAKeyIsAPermanentFailure(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Embedded(t))
	task := redrive.NewTask[syncArgs, redrive.None]("sync", redrive.TaskOptions{})
	mux := redrive.NewMux()
	task.Handle(mux, redrive.NoResult(func(context.Context, *redrive.Job[syncArgs]) error { return nil }),
		redrive.Singleton(r.rdb, redrive.SingletonOptions{Prefix: r.b.Prefix, Key: task.Key(func(a syncArgs) string { return a.Resource })}))
	r.start(mux, redrive.WorkerOptions{})
	receipt, err := task.Enqueue(r.ctx(), r.client, syncArgs{}, nil)
	require.NoError(t, err)
	_, err = receipt.Wait(r.ctx())
	require.ErrorContains(t, err, "SingletonOptions.Key returned an empty key")
}

func TestAnOrderOfMiddlewareThatBreaksAGuaranteeIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Embedded(t))
	task := redrive.NewTask[syncArgs, redrive.None]("sync", redrive.TaskOptions{})
	require.NotPanics(t, func() {
		task.Handle(redrive.NewMux(), redrive.NoResult(func(context.Context, *redrive.Job[syncArgs]) error { return nil }),
			redrive.Singleton(r.rdb, redrive.SingletonOptions{}), redrive.Singleton(r.rdb, redrive.SingletonOptions{Scope: "all", Limit: 5}))
	})
}
