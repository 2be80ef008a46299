package redrive_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
)

// pay is the task of these tests; its argument is part of the payload only.
var pay = redrive.NewTask[string, string]("pay", redrive.TaskOptions{ResultTTL: time.Minute, Retry: fast})

// brisk are options for tests: a busy job looks again soon.
var brisk = redrive.IdempotencyOptions{BusyDelay: 5 * time.Millisecond, Logger: quiet}

type payHandler = func(context.Context, *redrive.Job[string]) (string, error)

// payMux serves pay with fn under the options.
func (r *rig) payMux(opts redrive.IdempotencyOptions, fn payHandler) *redrive.Mux {
	mux := redrive.NewMux()
	pay.Handle(mux, fn, redrive.Idempotent(r.rdb, opts))
	return mux
}

// pay enqueues one job of pay.
func (r *rig) pay(args string, o redrive.EnqueueOptions) *redrive.Receipt[string] {
	r.t.Helper()
	receipt, err := pay.Enqueue(r.ctx(), r.client, args, &o)
	require.NoError(r.t, err)
	return receipt
}

// paid waits for a result.
func (r *rig) paid(receipt *redrive.Receipt[string]) string {
	r.t.Helper()
	result, err := receipt.Wait(r.ctx())
	require.NoError(r.t, err)
	return result
}

// ends collects how attempts end.
type ends struct {
	mu  sync.Mutex
	all []redrive.JobEnd
}

func (e *ends) trace() *redrive.WorkerTrace {
	return &redrive.WorkerTrace{JobSettled: func(_ *redrive.Message, end redrive.JobEnd) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.all = append(e.all, end)
	}}
}

func (e *ends) first() redrive.JobEnd {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.all[0]
}

func (e *ends) actions() (all []redrive.Action) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, end := range e.all {
		all = append(all, end.Action)
	}
	return all
}

func TestIdempotent_TwoJobsOfOneKeyAtTwoWorkersRunOnce(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		keys := 1000
		if !b.Real() {
			keys = 200
		}
		r := newRig(t, b)
		var mu sync.Mutex
		runs := make(map[string]int)
		mux := r.payMux(brisk, func(_ context.Context, j *redrive.Job[string]) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			runs[j.IdempotencyKey]++
			return fmt.Sprintf("%s by %s, run %d", j.IdempotencyKey, j.ID, runs[j.IdempotencyKey]), nil
		})
		// Each worker has a queue of its own, so the two jobs of a key meet nowhere else.
		receipts := make(map[string][]*redrive.Receipt[string])
		for i := range keys {
			key := fmt.Sprint("order-", i)
			for _, queue := range []string{"left", "right"} {
				receipts[key] = append(receipts[key], r.pay("ann", redrive.EnqueueOptions{Queue: queue, IdempotencyKey: key}))
			}
		}
		for _, queue := range []string{"left", "right"} {
			r.start(mux, redrive.WorkerOptions{Queues: []redrive.Queue{{Name: queue}}, Concurrency: 16})
		}
		winners := make(map[string]int)
		for key, pair := range receipts {
			first := r.paid(pair[0])
			require.Equal(t, first, r.paid(pair[1]))
			for i, side := range []string{"left", "right"} {
				if strings.Contains(first, pair[i].ID) {
					winners[side]++
				}
			}
			mu.Lock()
			require.Equal(t, 1, runs[key], "runs of %s", key)
			mu.Unlock()
		}
		t.Logf("the winner was in %v; busy: %d", winners, r.stats("left").Snoozed+r.stats("right").Snoozed)
	})
}

func TestIdempotent_ABusyJobSnoozesAndReplays(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		began, finish := make(chan struct{}, 99), make(chan struct{})
		r.start(r.payMux(brisk, func(context.Context, *redrive.Job[string]) (string, error) {
			began <- struct{}{}
			<-finish
			return "receipt 1", nil
		}), redrive.WorkerOptions{})
		first := r.pay("ann", redrive.EnqueueOptions{IdempotencyKey: "k"})
		receive(t, began, "first start")
		second := r.pay("ann", redrive.EnqueueOptions{IdempotencyKey: "k"})
		r.eventually(func(s redrive.QueueStats) bool { return s.Snoozed >= 2 }, "the second job is not snoozed")
		close(finish)
		require.Equal(t, "receipt 1", r.paid(first))
		require.Equal(t, "receipt 1", r.paid(second))
		// A third one comes when all is over.
		require.Equal(t, "receipt 1", r.paid(r.pay("ann", redrive.EnqueueOptions{IdempotencyKey: "k"})))
		require.Empty(t, began, "the handler ran again")
		require.Zero(t, r.stats("default").Retried)
	})
}

func TestIdempotent_ABusyJobIsDiscardedOnDemand(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		began, finish := make(chan struct{}, 99), make(chan struct{})
		opts := brisk
		opts.OnBusy = redrive.BusyDiscard
		var seen ends
		r.start(r.payMux(opts, func(context.Context, *redrive.Job[string]) (string, error) {
			began <- struct{}{}
			<-finish
			return "receipt 1", nil
		}), redrive.WorkerOptions{Trace: seen.trace()})
		first := r.pay("ann", redrive.EnqueueOptions{IdempotencyKey: "k"})
		receive(t, began, "first start")
		second := r.pay("ann", redrive.EnqueueOptions{IdempotencyKey: "k"})
		_, err := second.Wait(r.ctx())
		var failed *redrive.FailedError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, redrive.ReasonDiscarded, failed.Reason)
		require.Contains(t, failed.Message, redrive.ErrInProgress.Error())
		require.Contains(t, failed.Message, "task pay, key with SHA-256 8254c329a928")
		// The receipt may hear of the end before the worker does.
		require.Eventually(t, func() bool { return len(seen.actions()) == 1 }, patience, time.Millisecond)
		require.ErrorIs(t, seen.first().Err, redrive.ErrInProgress)
		close(finish)
		require.Equal(t, "receipt 1", r.paid(first))
	})
}

func TestIdempotent_AKeyThatBelongsToAnotherPayloadIsADeadLetter(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		began, finish := make(chan string, 99), make(chan struct{})
		r.start(r.payMux(brisk, func(_ context.Context, j *redrive.Job[string]) (string, error) {
			began <- j.Args
			<-finish
			return j.Args, nil
		}), redrive.WorkerOptions{})
		first := r.pay("ann", redrive.EnqueueOptions{IdempotencyKey: "k"})
		receive(t, began, "first start")
		refused := func(when string) {
			other := r.pay("bob", redrive.EnqueueOptions{IdempotencyKey: "k"})
			_, err := other.Wait(r.ctx())
			var failed *redrive.FailedError
			require.ErrorAs(t, err, &failed, when)
			require.Equal(t, redrive.ReasonKeyReused, failed.Reason, when)
			require.Zero(t, failed.Retries, when)
			letter := r.letter("default", other.ID)
			require.Equal(t, "key-reused", letter["reason"])
			require.Contains(t, letter["error"], redrive.ErrKeyReused.Error())
		}
		refused("while the first runs")
		close(finish)
		require.Equal(t, "ann", r.paid(first))
		refused("when the first is done")
		require.Empty(t, began, "the other payload ran")
	})
}

// Whatever ends an attempt other than success, the next one runs: a claim that was
// not released would hold it up for the lease, which is longer than the test.
func TestIdempotent_EveryFailureReleasesTheClaim(t *testing.T) {
	t.Parallel()
	type outcome struct {
		name string
		fail func(ctx context.Context) error
		want redrive.Action
	}
	failures := []outcome{
		{"error", func(context.Context) error { return errors.New("x") }, redrive.ActionRetry},
		{"retry after", func(context.Context) error { return redrive.RetryAfter(0, errors.New("x")) }, redrive.ActionRetry},
		{"snooze", func(context.Context) error { return redrive.Snooze(time.Millisecond) }, redrive.ActionSnooze},
		{"permanent", func(context.Context) error { return redrive.Permanent(errors.New("x")) }, redrive.ActionDead},
		{"discard", func(context.Context) error { return redrive.Discard(errors.New("x")) }, redrive.ActionDiscard},
		{"panic", func(context.Context) error { panic("x") }, redrive.ActionRetry},
		{"goexit", func(context.Context) error { runtime.Goexit(); return nil }, redrive.ActionRetry},
		{"timeout", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, redrive.ActionRetry},
	}
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		byName := make(map[string]outcome)
		for _, f := range failures {
			byName[f.name] = f
		}
		task := redrive.NewTask[string, string]("pay", redrive.TaskOptions{Retry: fast, Timeout: 20 * time.Millisecond, ResultTTL: time.Minute})
		var mu sync.Mutex
		runs := make(map[string]int)
		got := make(map[string]redrive.Action)
		mux := redrive.NewMux()
		mux.Use(func(next redrive.Handler) redrive.Handler {
			return redrive.HandlerFunc(func(ctx context.Context, m *redrive.Message) ([]byte, error) {
				defer func() {
					for _, key := range idemKeys(r) {
						if rec := r.rdb.HGetAll(context.Background(), key).Val(); rec["state"] == "running" {
							t.Errorf("%s: the claim is not released when the attempt ends: %v", m.IdempotencyKey, rec)
						}
					}
				}()
				return next.Process(ctx, m)
			})
		})
		task.Handle(mux, func(ctx context.Context, j *redrive.Job[string]) (string, error) {
			mu.Lock()
			runs[j.Args]++
			first := runs[j.Args] == 1
			mu.Unlock()
			if first {
				return "", byName[j.Args].fail(ctx)
			}
			return "done by " + j.ID, nil
		}, redrive.Idempotent(r.rdb, redrive.IdempotencyOptions{Lease: time.Hour, BusyDelay: time.Hour, Logger: quiet}))
		w := r.start(mux, redrive.WorkerOptions{Trace: &redrive.WorkerTrace{JobSettled: func(m *redrive.Message, e redrive.JobEnd) {
			mu.Lock()
			defer mu.Unlock()
			if m.Starts == 1 && strings.HasPrefix(m.ID, "first") {
				got[m.IdempotencyKey] = e.Action
			}
		}}})
		for i, f := range failures {
			first, err := task.Enqueue(r.ctx(), r.client, f.name, &redrive.EnqueueOptions{ID: fmt.Sprint("first-", i), IdempotencyKey: f.name})
			require.NoError(t, err)
			_, err = first.Wait(r.ctx()) // of those that end here, the failure
			switch f.want {
			case redrive.ActionDead, redrive.ActionDiscard:
				require.Error(t, err, f.name)
			default:
				require.NoError(t, err, f.name)
			}
			// Another job of the same key.
			second, err := task.Enqueue(r.ctx(), r.client, f.name, &redrive.EnqueueOptions{IdempotencyKey: f.name})
			require.NoError(t, err)
			result, err := second.Wait(r.ctx())
			require.NoError(t, err, f.name)
			runner := first.ID
			if f.want == redrive.ActionDead || f.want == redrive.ActionDiscard {
				runner = second.ID
			}
			require.Equal(t, "done by "+runner, result, f.name)
		}
		require.NoError(t, w.stop()) // the trace hears of an end after Redis
		for _, f := range failures {
			require.Equal(t, f.want, got[f.name], f.name)
			require.Equal(t, 2, runs[f.name], f.name)
		}
	})
}

func TestIdempotent_AShutdownReleasesTheClaim(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		opts := redrive.IdempotencyOptions{Lease: time.Hour, BusyDelay: 5 * time.Millisecond, Logger: quiet}
		began := make(chan struct{}, 1)
		w := r.start(r.payMux(opts, func(ctx context.Context, _ *redrive.Job[string]) (string, error) {
			began <- struct{}{}
			<-ctx.Done()
			return "", context.Cause(ctx)
		}), redrive.WorkerOptions{ShutdownTimeout: time.Second})
		first := r.pay("ann", redrive.EnqueueOptions{IdempotencyKey: "k", Queue: "default"})
		receive(t, began, "start")
		require.NoError(t, w.stop())
		require.EqualValues(t, 1, r.stats("default").Interrupted)
		// It is another job that comes first now.
		other := r.pay("ann", redrive.EnqueueOptions{IdempotencyKey: "k", Queue: "other"})
		r.start(r.payMux(opts, func(_ context.Context, j *redrive.Job[string]) (string, error) { return j.ID, nil }),
			redrive.WorkerOptions{Queues: []redrive.Queue{{Name: "other"}}})
		require.Equal(t, other.ID, r.paid(other))
		r.start(r.payMux(opts, nil2), redrive.WorkerOptions{})
		require.Equal(t, other.ID, r.paid(first))
	})
}

// nil2 is a handler that must not run.
func nil2(context.Context, *redrive.Job[string]) (string, error) {
	return "", redrive.Permanent(errors.New("the handler ran"))
}

func TestIdempotent_TheLeaseIsKeptWhileTheHandlerRuns(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		opts := redrive.IdempotencyOptions{Lease: redrive.MinLease, BusyDelay: 20 * time.Millisecond, TTL: time.Hour, Logger: quiet}
		began := make(chan struct{}, 99)
		var lowest atomic.Int64
		lowest.Store(int64(time.Hour))
		r.start(r.payMux(opts, func(ctx context.Context, j *redrive.Job[string]) (string, error) {
			began <- struct{}{}
			for end := time.Now().Add(3 * opts.Lease); time.Now().Before(end); {
				if !sleepFor(ctx, 50*time.Millisecond) {
					return "", context.Cause(ctx)
				}
				for _, key := range idemKeys(r) {
					ttl := r.rdb.PTTL(ctx, key).Val()
					lowest.Store(min(lowest.Load(), int64(ttl)))
				}
			}
			return j.ID, nil
		}), redrive.WorkerOptions{})
		first := r.pay("ann", redrive.EnqueueOptions{IdempotencyKey: "k"})
		receive(t, began, "start")
		second := r.pay("ann", redrive.EnqueueOptions{IdempotencyKey: "k"})
		require.Equal(t, first.ID, r.paid(first))
		require.Equal(t, first.ID, r.paid(second))
		require.Empty(t, began, "the handler ran twice")
		require.GreaterOrEqual(t, time.Duration(lowest.Load()), opts.Lease, "the record of a running claim had a shorter TTL than its lease")
	})
}

// sleepFor waits, or returns false when ctx is done.
func sleepFor(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// idemKeys lists the records of effects.
func idemKeys(r *rig) (keys []string) {
	for _, k := range r.b.Keys() {
		if strings.HasPrefix(k, r.b.Prefix+":idem:{") {
			keys = append(keys, k)
		}
	}
	return keys
}

func TestIdempotent_AResultThatIsNotKeptIsNoFailure(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		opts := brisk
		opts.MaxResult = 10
		var runs atomic.Int64
		mux := r.payMux(opts, func(_ context.Context, j *redrive.Job[string]) (string, error) {
			runs.Add(1)
			return j.Args, nil
		})
		odd := redrive.NewTask[string, func()]("odd", redrive.TaskOptions{ResultTTL: time.Minute})
		odd.Handle(mux, func(context.Context, *redrive.Job[string]) (func(), error) {
			runs.Add(1)
			return func() {}, nil
		}, redrive.Idempotent(r.rdb, opts))
		none := redrive.NewTask[string, redrive.None]("none", redrive.TaskOptions{ResultTTL: time.Minute})
		none.Handle(mux, redrive.NoResult(func(context.Context, *redrive.Job[string]) error {
			runs.Add(1)
			return nil
		}), redrive.Idempotent(r.rdb, opts))
		r.start(mux, redrive.WorkerOptions{})

		long := strings.Repeat("x", 100)
		o := redrive.EnqueueOptions{IdempotencyKey: "k"}
		require.Equal(t, long, r.paid(r.pay(long, o)), "the job that made the result has it")
		_, err := r.pay(long, o).Wait(r.ctx())
		require.ErrorIs(t, err, redrive.ErrNoResult)
		for range 2 {
			receipt, err := odd.Enqueue(r.ctx(), r.client, "", &o)
			require.NoError(t, err)
			_, err = receipt.Wait(r.ctx())
			require.ErrorIs(t, err, redrive.ErrNoResult)
		}
		for range 2 { // no bytes are a result, too
			receipt, err := none.Enqueue(r.ctx(), r.client, "", &o)
			require.NoError(t, err)
			_, err = receipt.Wait(r.ctx())
			require.NoError(t, err)
		}
		require.EqualValues(t, 3, runs.Load())
		s := r.stats("default")
		require.EqualValues(t, 6, s.Succeeded)
		require.Zero(t, s.Dead+s.Retried)

		var reasons []string
		for _, key := range idemKeys(r) {
			rec := r.rdb.HGetAll(r.ctx(), key).Val()
			if rec["state"] == "bare" {
				reasons = append(reasons, rec["result"])
			}
		}
		require.Len(t, reasons, 2, "the records say why they have no result")
		all := strings.Join(reasons, "\n")
		require.Contains(t, all, "102 bytes exceeds IdempotencyOptions.MaxResult, 10")
		require.Contains(t, all, "encode the result of odd: json: unsupported type")
	})
}

func TestIdempotent_KeysAreAnyTextAndNoTwoAreOne(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		var runs atomic.Int64
		work := func(_ context.Context, j *redrive.Job[string]) (string, error) {
			runs.Add(1)
			return j.IdempotencyKey, nil
		}
		mux := r.payMux(brisk, work)
		// A name that ends like the beginning of a key of pay.
		near := redrive.NewTask[string, string]("pay:a", redrive.TaskOptions{ResultTTL: time.Minute})
		near.Handle(mux, work, redrive.Idempotent(r.rdb, brisk))
		r.start(mux, redrive.WorkerOptions{})
		keys := []string{"a", "A", "a ", " a", "a:b", "b", "a}", "{a}", "}{", "a\x00", "\x00", "ä", "a\u0308", "%61",
			"*", "\r\n", strings.Repeat("k", redrive.MaxIdempotencyKey), strings.Repeat("k", redrive.MaxIdempotencyKey-1)}
		for _, key := range keys {
			for range 2 {
				require.Equal(t, key, r.paid(r.pay("ann", redrive.EnqueueOptions{IdempotencyKey: key})))
			}
		}
		require.EqualValues(t, len(keys), runs.Load())
		// Bytes that are no text would come out of the envelope as one key.
		_, err := pay.Enqueue(r.ctx(), r.client, "ann", &redrive.EnqueueOptions{IdempotencyKey: "\xff"})
		require.ErrorIs(t, err, redrive.ErrInvalidOptions)
		require.ErrorContains(t, err, "IdempotencyKey")
		for _, key := range keys {
			receipt, err := near.Enqueue(r.ctx(), r.client, "ann", &redrive.EnqueueOptions{IdempotencyKey: key})
			require.NoError(t, err)
			_, err = receipt.Wait(r.ctx())
			require.NoError(t, err)
		}
		require.EqualValues(t, 2*len(keys), runs.Load(), "a task shares its keys with no other")
		require.Len(t, idemKeys(r), 2*len(keys))
	})
}

func TestIdempotent_TheKeyIsTheOptionsThenTheJobsThenItsID(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Embedded(t))
	var claim redrive.IdempotencyClaim
	var inside bool
	work := func(ctx context.Context, _ *redrive.Job[string]) (string, error) {
		claim, inside = redrive.IdempotencyClaimFrom(ctx)
		return "", nil
	}
	mux := r.payMux(brisk, work)
	byArgs := redrive.NewTask[string, string]("by-args", redrive.TaskOptions{ResultTTL: time.Minute, Retry: fast})
	opts := brisk
	opts.Key = byArgs.Key(func(args string) string { return args })
	byArgs.Handle(mux, work, redrive.Idempotent(r.rdb, opts))
	r.start(mux, redrive.WorkerOptions{})
	_, outside := redrive.IdempotencyClaimFrom(t.Context())
	require.False(t, outside)

	r.paid(r.pay("ann", redrive.EnqueueOptions{ID: "job-1"}))
	require.True(t, inside)
	require.Equal(t, "job-1", claim.Key)
	require.Equal(t, "default/job-1", claim.Owner)
	require.Equal(t, "pay", claim.Task)
	require.Equal(t, r.b.Prefix, claim.Prefix, "the worker's")
	require.Positive(t, claim.Fence)
	require.Positive(t, claim.Attempt)
	require.Len(t, claim.Fingerprint, 64)
	fence := claim.Fence
	r.paid(r.pay("ann", redrive.EnqueueOptions{ID: "job-2", IdempotencyKey: "order"}))
	require.Equal(t, "order", claim.Key)
	require.Greater(t, claim.Fence, fence)

	enqueue := func(args string) error {
		receipt, err := byArgs.Enqueue(r.ctx(), r.client, args, &redrive.EnqueueOptions{IdempotencyKey: "not this"})
		require.NoError(t, err)
		_, err = receipt.Wait(r.ctx())
		return err
	}
	require.NoError(t, enqueue("from args"))
	require.Equal(t, "from args", claim.Key)
	for args, text := range map[string]string{
		"": "IdempotencyOptions.Key returned no key",
		strings.Repeat("k", redrive.MaxIdempotencyKey+1): "idempotency key has 513 bytes: use at most 512",
	} {
		var failed *redrive.FailedError
		require.ErrorAs(t, enqueue(args), &failed)
		require.Equal(t, redrive.ReasonPermanent, failed.Reason)
		require.Contains(t, failed.Message, text)
	}
}

func TestIdempotent_AFingerprintOfOnesOwn(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Embedded(t))
	opts := brisk
	opts.Fingerprint = func(*redrive.Message) string { return "" }
	r.start(r.payMux(opts, func(_ context.Context, j *redrive.Job[string]) (string, error) { return j.Args, nil }), redrive.WorkerOptions{})
	require.Equal(t, "ann", r.paid(r.pay("ann", redrive.EnqueueOptions{IdempotencyKey: "k"})))
	require.Equal(t, "ann", r.paid(r.pay("bob", redrive.EnqueueOptions{IdempotencyKey: "k"})))
}

func TestIdempotent_TheTTLRunsFromTheCompletion(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		opts := brisk
		opts.TTL = 300 * time.Millisecond
		var runs atomic.Int64
		r.start(r.payMux(opts, func(ctx context.Context, _ *redrive.Job[string]) (string, error) {
			sleepFor(ctx, 2*opts.TTL)
			return fmt.Sprint("run ", runs.Add(1)), nil
		}), redrive.WorkerOptions{})
		require.Equal(t, "run 1", r.paid(r.pay("ann", redrive.EnqueueOptions{IdempotencyKey: "k"})))
		keys := idemKeys(r)
		if len(keys) > 0 { // unless this machine is very slow
			require.LessOrEqual(t, r.rdb.PTTL(r.ctx(), keys[0]).Val(), opts.TTL)
		}
		require.Eventually(t, func() bool { return len(idemKeys(r)) == 0 }, patience, 10*time.Millisecond)
		require.Equal(t, "run 2", r.paid(r.pay("ann", redrive.EnqueueOptions{IdempotencyKey: "k"})))
	})
}

func TestIdempotent_PanicsOnInvalidOptionsAndNamesThem(t *testing.T) {
	t.Parallel()
	defer func() {
		text := fmt.Sprint(recover())
		for _, field := range []string{"rdb", "TTL", "Lease", "OnBusy", "BusyDelay", "MaxResult", "Prefix"} {
			require.Contains(t, text, field)
		}
	}()
	redrive.Idempotent(nil, redrive.IdempotencyOptions{
		TTL: -1, Lease: time.Millisecond, OnBusy: 9, BusyDelay: -1, MaxResult: -1, Prefix: "a{b",
	})
	t.Fatal("no panic")
}
