package redrive_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
)

// scripted changes what happens to script calls of a client.
type scripted func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error

func (scripted) DialHook(next redis.DialHook) redis.DialHook { return next }
func (scripted) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (s scripted) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() != "evalsha" && cmd.Name() != "eval" {
			return next(ctx, cmd)
		}
		return s(ctx, cmd, next)
	}
}

// tour goes through every step of a claim: it takes, renews, completes, releases,
// finds busy, replays and refuses. It returns the attempts of the first job.
func tour(t *testing.T, b *redistest.Backend, hook scripted) {
	r := newRig(t, b)
	faulty := b.Client()
	faulty.AddHook(hook)
	const lease = 2 * redrive.MinLease // every other renewal is lost, and the machine may be busy
	opts := redrive.IdempotencyOptions{Lease: lease, BusyDelay: 5 * time.Millisecond, Logger: quiet}
	var runs atomic.Int64
	began := make(chan int64, 99)
	var seen ends
	mux := redrive.NewMux()
	pay.Handle(mux, func(ctx context.Context, j *redrive.Job[string]) (string, error) {
		n := runs.Add(1)
		began <- n
		if n == 1 {
			return "", errors.New("try again")
		}
		if !sleepFor(ctx, lease+lease/2) {
			return "", context.Cause(ctx)
		}
		return fmt.Sprint("run ", n), nil
	}, redrive.Idempotent(faulty, opts))
	r.start(mux, redrive.WorkerOptions{Trace: seen.trace()})
	first := r.pay("ann", redrive.EnqueueOptions{IdempotencyKey: "k"})
	receive(t, began, "first start")
	receive(t, began, "second start")
	second := r.pay("ann", redrive.EnqueueOptions{IdempotencyKey: "k"})
	r.eventually(func(s redrive.QueueStats) bool { return s.Snoozed >= 1 }, "not busy")
	_, err := r.pay("bob", redrive.EnqueueOptions{IdempotencyKey: "k"}).Wait(r.ctx())
	var failed *redrive.FailedError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, redrive.ReasonKeyReused, failed.Reason)
	require.Equal(t, "run 2", r.paid(first))
	require.Equal(t, "run 2", r.paid(second))
	require.EqualValues(t, 2, runs.Load())
	require.Equal(t, redrive.ActionRetry, seen.actions()[0], "the first attempt found its own claim in its way")
	s := r.stats("default")
	require.EqualValues(t, 1, s.Retried)
	require.EqualValues(t, 1, s.Dead)
}

func TestI6_IdempotencyScriptsMayRunFourTimes(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		tour(t, b, func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			for range 3 {
				_ = next(ctx, cmd)
			}
			return next(ctx, cmd)
		})
	})
}

func TestI6_ALostReplyOfAnIdempotencyScriptChangesNothing(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		var calls atomic.Int64
		tour(t, b, func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			err := next(ctx, cmd)
			if calls.Add(1)%2 == 1 && err == nil { // the call was performed, and nobody heard
				cmd.SetErr(io.EOF)
				return io.EOF
			}
			return err
		})
	})
}

// fakeStore answers as told, and otherwise as a store does that has one record.
type fakeStore struct {
	claim, extend, complete, release func() error

	mu       sync.Mutex
	record   redrive.IdempotencyRecord
	released int
}

func answer(f func() error) error {
	if f == nil {
		return nil
	}
	return f()
}

func (s *fakeStore) Claim(context.Context, redrive.IdempotencyClaim) (redrive.IdempotencyRecord, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.record.State == redrive.IdempotencyDone {
		return s.record, answer(s.claim)
	}
	return redrive.IdempotencyRecord{State: redrive.IdempotencyClaimed, Fence: 7}, answer(s.claim)
}

func (s *fakeStore) Extend(context.Context, redrive.IdempotencyClaim) error { return answer(s.extend) }

func (s *fakeStore) Complete(_ context.Context, _ redrive.IdempotencyClaim, r redrive.IdempotencyRecord) error {
	if err := answer(s.complete); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record = r
	return nil
}

func (s *fakeStore) Release(context.Context, redrive.IdempotencyClaim) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.released++
	return answer(s.release)
}

// with runs one attempt under the store.
func (s *fakeStore) with(ctx context.Context, fn redrive.HandlerFunc) ([]byte, error) {
	mw := redrive.Idempotent(nil, redrive.IdempotencyOptions{Store: s, Lease: redrive.MinLease, Logger: quiet})
	return mw(fn).Process(ctx, &redrive.Message{ID: "job-1", Task: "pay", Queue: "q", Payload: []byte("x")})
}

func TestIdempotent_WhatAStoreAnswersDecidesTheJob(t *testing.T) {
	t.Parallel()
	fails := func(err error) func() error { return func() error { return err } }
	works := func(context.Context, *redrive.Message) ([]byte, error) { return []byte("done"), nil }
	broken := errors.New("syntax error")
	for name, c := range map[string]struct {
		store  *fakeStore
		want   redrive.Outcome
		is     error
		runs   int
		within time.Duration
	}{
		"no answer to the claim": {&fakeStore{claim: fails(io.EOF)},
			redrive.Outcome{Action: redrive.ActionSnooze, Delay: redrive.DefaultBusyDelay}, io.EOF, 0, redrive.MinLease},
		"claim refused": {&fakeStore{claim: fails(broken)}, redrive.Outcome{Action: redrive.ActionRetry}, broken, 0, 0},
		"overtaken": {&fakeStore{claim: fails(redrive.ErrClaimLost)},
			redrive.Outcome{Action: redrive.ActionSnooze, Delay: redrive.DefaultBusyDelay}, redrive.ErrClaimLost, 0, 0},
		"claim panics": {&fakeStore{claim: func() error { panic("x") }}, redrive.Outcome{Action: redrive.ActionRetry}, nil, 0, 0},
		"no answer to the completion": {&fakeStore{complete: fails(io.EOF)}, redrive.Outcome{Action: redrive.ActionRetry}, io.EOF, 1,
			2 * redrive.MinLease},
		"completion refused": {&fakeStore{complete: fails(redrive.ErrClaimLost)},
			redrive.Outcome{Action: redrive.ActionSnooze, Delay: redrive.DefaultBusyDelay}, redrive.ErrClaimLost, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runs, begin := 0, time.Now()
			result, err := c.store.with(t.Context(), func(ctx context.Context, m *redrive.Message) ([]byte, error) {
				runs++
				return works(ctx, m)
			})
			require.Nil(t, result)
			require.Equal(t, c.want, redrive.Disposition(err))
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			require.ErrorContains(t, err, "key with SHA-256 026ab639c21d")
			require.Equal(t, c.runs, runs)
			if c.within > 0 {
				require.Greater(t, time.Since(begin), c.within/4, "it did not try again")
			}
		})
	}
}

// A completion goes on when the job's context is done, and a shutdown is not held
// up by a store that does not answer.
func TestIdempotent_ACompletionOutlivesTheJobsContextForAWhile(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var s fakeStore
	works := func(context.Context, *redrive.Message) ([]byte, error) {
		cancel(redrive.ErrShutdown)
		return []byte("done"), nil
	}
	result, err := s.with(ctx, works)
	require.NoError(t, err)
	require.Equal(t, "done", string(result))
	require.Equal(t, "done", string(s.record.Result))

	deaf := fakeStore{complete: func() error { return io.EOF }}
	mw := redrive.Idempotent(nil, redrive.IdempotencyOptions{Store: &deaf, Lease: time.Hour, Logger: quiet})
	begin := time.Now()
	_, err = mw(redrive.HandlerFunc(works)).Process(ctx, &redrive.Message{ID: "job-1", Task: "pay"})
	require.ErrorIs(t, err, io.EOF)
	require.Less(t, time.Since(begin), patience)
}

func TestIdempotent_AHandlerWhoseClaimIsLostIsCancelledAndLooksAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err    error
		atMost time.Duration
	}{
		"taken over":          {redrive.ErrClaimLost, redrive.MinLease * 9 / 10},
		"no renewal answered": {io.EOF, 0},
		"renewal fails":       {errors.New("disk full"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fakeStore{extend: func() error { return c.err }}
			begin := time.Now()
			var took time.Duration
			_, err := s.with(t.Context(), func(ctx context.Context, _ *redrive.Message) ([]byte, error) {
				<-ctx.Done()
				took = time.Since(begin)
				require.ErrorIs(t, context.Cause(ctx), redrive.ErrClaimLost)
				return nil, ctx.Err()
			})
			require.Equal(t, redrive.Outcome{Action: redrive.ActionSnooze, Delay: redrive.DefaultBusyDelay}, redrive.Disposition(err))
			require.ErrorIs(t, err, redrive.ErrClaimLost)
			require.ErrorIs(t, err, context.Canceled)
			require.Equal(t, 1, s.released)
			if c.atMost == 0 {
				require.GreaterOrEqual(t, took, redrive.MinLease*9/10, "the lease had time left")
			}
			// A handler's own word counts more.
			_, err = s.with(t.Context(), func(ctx context.Context, _ *redrive.Message) ([]byte, error) {
				<-ctx.Done()
				return nil, redrive.Permanent(errors.New("no such customer"))
			})
			require.Equal(t, redrive.ActionDead, redrive.Disposition(err).Action)
		})
	}
}

func TestIdempotent_AStoreThatPanicsInARenewalDoesNotEndTheProcess(t *testing.T) {
	t.Parallel()
	s := fakeStore{extend: func() error { panic("x") }}
	result, err := s.with(t.Context(), func(context.Context, *redrive.Message) ([]byte, error) {
		time.Sleep(redrive.MinLease / 2)
		return []byte("done"), nil
	})
	require.NoError(t, err)
	require.Equal(t, "done", string(result))
}

func TestIdempotent_AFullRedisDoesNotStopTheDrain(t *testing.T) {
	t.Parallel()
	server := redistest.StartServer(t)
	rdb := server.Client()
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var receipts []*redrive.Receipt[string]
	for i := range 20 {
		receipt, err := pay.Enqueue(ctx, client, "ann", &redrive.EnqueueOptions{IdempotencyKey: fmt.Sprint(i)})
		require.NoError(t, err)
		receipts = append(receipts, receipt)
	}
	require.NoError(t, rdb.ConfigSet(ctx, "maxmemory", "1").Err())
	require.ErrorContains(t, rdb.Set(ctx, "k", "v", 0).Err(), "OOM")
	mux := redrive.NewMux()
	pay.Handle(mux, func(ctx context.Context, j *redrive.Job[string]) (string, error) {
		if j.Starts == 1 {
			return "", errors.New("a release is due")
		}
		sleepFor(ctx, redrive.MinLease/2) // a renewal is due
		return j.IdempotencyKey, nil
	}, redrive.Idempotent(rdb, redrive.IdempotencyOptions{Lease: redrive.MinLease, Logger: quiet}))
	w, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{Logger: quiet, Concurrency: 20})
	require.NoError(t, err)
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- w.Run(run) }()
	for i, receipt := range receipts {
		result, err := receipt.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), result)
	}
	stop()
	require.NoError(t, <-done)
}

func init() { redistest.RegisterSubprocess("payer", payerProcess) }

// payerProcess serves QUEUE until it is killed, and prints "run id" and "end id
// action". MODE says what its handler does.
func payerProcess() {
	db, _ := strconv.Atoi(os.Getenv("DB"))
	rdb := redis.NewClient(&redis.Options{Addr: os.Getenv("ADDR"), DB: db})
	lease, err := time.ParseDuration(os.Getenv("LEASE"))
	if err != nil {
		panic(err)
	}
	mux := redrive.NewMux()
	mux.Use(func(next redrive.Handler) redrive.Handler {
		return redrive.HandlerFunc(func(ctx context.Context, m *redrive.Message) ([]byte, error) {
			result, err := next.Process(ctx, m)
			if os.Getenv("MODE") == "die before the ack" {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			return result, err
		})
	})
	pay.Handle(mux, func(_ context.Context, j *redrive.Job[string]) (string, error) {
		fmt.Println("run", j.ID)
		switch os.Getenv("MODE") {
		case "die in the handler":
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		case "deaf": // until the file is there
			for {
				if _, err := os.Stat(os.Getenv("GO_ON")); err == nil {
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
		return "from the process", nil
	}, redrive.Idempotent(rdb, redrive.IdempotencyOptions{Lease: lease, BusyDelay: 5 * time.Millisecond, Logger: quiet}))
	workerLease, _ := time.ParseDuration(os.Getenv("WORKER_LEASE"))
	w, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{
		Prefix: os.Getenv("PREFIX"), Queues: []redrive.Queue{{Name: os.Getenv("QUEUE")}}, Lease: workerLease, Logger: quiet,
		Trace: &redrive.WorkerTrace{
			JobSettled: func(m *redrive.Message, e redrive.JobEnd) { fmt.Println("end", m.ID, e.Action) },
		},
	})
	if err != nil {
		panic(err)
	}
	_ = w.Run(context.Background())
}

// payer starts a payerProcess on the rig's backend.
func (r *rig) payer(env ...string) *redistest.Process {
	return redistest.StartSubprocess(r.t, "payer", append([]string{
		"ADDR=" + r.b.Addr, fmt.Sprintf("DB=%d", r.b.Options().DB), "PREFIX=" + r.b.Prefix,
	}, env...)...)
}

func TestIdempotent_AProcessKilledBetweenTheReturnAndTheAckLeavesItsResult(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Redis(t))
	receipt := r.pay("ann", redrive.EnqueueOptions{IdempotencyKey: "k"})
	p := r.payer("QUEUE=default", "MODE=die before the ack", "LEASE=1h", "WORKER_LEASE=1s")
	require.Equal(t, receipt.ID, p.WaitLine("run "))
	require.Error(t, p.Wait(), "it was killed")
	require.EqualValues(t, 1, r.stats("default").Active, "not settled")
	r.start(r.payMux(brisk, nil2), redrive.WorkerOptions{Lease: time.Second})
	require.Equal(t, "from the process", r.paid(receipt))
	s := r.stats("default")
	require.EqualValues(t, 1, s.Crashed)
	require.Zero(t, s.Retried+s.Snoozed)
}

func TestIdempotent_AProcessKilledInTheHandlerDoesNotHoldUpItsJob(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Redis(t))
	receipt := r.pay("ann", redrive.EnqueueOptions{IdempotencyKey: "k"})
	p := r.payer("QUEUE=default", "MODE=die in the handler", "LEASE=1h", "WORKER_LEASE=1s")
	require.Equal(t, receipt.ID, p.WaitLine("run "))
	require.Error(t, p.Wait(), "it was killed")
	// The claim has an hour to go. The job takes it over at once.
	r.start(r.payMux(brisk, func(context.Context, *redrive.Job[string]) (string, error) { return "again", nil }),
		redrive.WorkerOptions{Lease: time.Second})
	require.Equal(t, "again", r.paid(receipt))
	require.Zero(t, r.stats("default").Snoozed, "it found its own claim busy")
}

// A process is stopped past the lease of its claim, while its worker's lease
// holds. Another job of the key takes over, and is still at work when the first
// one wakes up and returns success.
func TestIdempotent_AHandlerThatSleptPastItsLeaseOverwritesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Redis(t))
	goOn := t.TempDir() + "/go-on"
	first := r.pay("ann", redrive.EnqueueOptions{IdempotencyKey: "k", Queue: "left"})
	zombie := r.payer("QUEUE=left", "MODE=deaf", "GO_ON="+goOn, "LEASE=1s", "WORKER_LEASE=1h")
	require.Equal(t, first.ID, zombie.WaitLine("run "))
	require.NoError(t, zombie.Process.Signal(syscall.SIGSTOP))

	second := r.pay("ann", redrive.EnqueueOptions{IdempotencyKey: "k", Queue: "right"})
	began, finish := make(chan redrive.IdempotencyClaim, 1), make(chan struct{})
	r.start(r.payMux(brisk, func(ctx context.Context, _ *redrive.Job[string]) (string, error) {
		c, _ := redrive.IdempotencyClaimFrom(ctx)
		began <- c
		<-finish
		return "from the new owner", nil
	}), redrive.WorkerOptions{Queues: []redrive.Queue{{Name: "right"}}})
	claim := receive(t, began, "takeover")
	require.Equal(t, "right/"+second.ID, claim.Owner)
	record := func() map[string]string {
		rec := r.rdb.HGetAll(r.ctx(), idemKeys(r)[0]).Val()
		delete(rec, "lease")
		return rec
	}
	before := record()

	require.NoError(t, os.WriteFile(goOn, nil, 0o600))
	require.NoError(t, zombie.Process.Signal(syscall.SIGCONT))
	require.Equal(t, first.ID+" snooze", zombie.WaitLine("end "), "its success was refused")
	require.Equal(t, before, record(), "the zombie wrote into the new owner's record")
	close(finish)
	require.Equal(t, "from the new owner", r.paid(second))
	require.Equal(t, "from the new owner", r.paid(first))
	zombie.Kill()
}
