package redrive_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
)

func TestJobsRunAndReturnTheirResults(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		double := redrive.NewTask[number, int]("double", redrive.TaskOptions{ResultTTL: time.Minute})
		mux := redrive.NewMux()
		double.Handle(mux, func(_ context.Context, j *redrive.Job[number]) (int, error) { return 2 * j.Args.N, nil })
		r.start(mux, redrive.WorkerOptions{})

		one, err := double.Enqueue(r.ctx(), r.client, number{21}, nil)
		require.NoError(t, err)
		require.False(t, one.Duplicate)
		got, err := one.Wait(r.ctx())
		require.NoError(t, err)
		require.Equal(t, 42, got)

		args := make([]number, 1200)
		for i := range args {
			args[i].N = i
		}
		many, err := double.EnqueueMany(r.ctx(), r.client, args, nil)
		require.NoError(t, err)
		require.Len(t, many, len(args))
		for i, receipt := range many {
			got, err := receipt.Wait(r.ctx())
			require.NoError(t, err)
			require.Equal(t, 2*i, got)
		}
		// Another process may wait by the id alone.
		got, err = double.Receipt(r.client, many[7].ID).Wait(r.ctx())
		require.NoError(t, err)
		require.Equal(t, 14, got)
		require.EqualValues(t, 1201, r.stats("default").Succeeded)
	})
}

func TestFailuresRetryAndBecomeADeadLetterWithTheirHistory(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		var starts []int
		flaky := redrive.NewTask[number, int]("flaky", redrive.TaskOptions{Retry: fast})
		mux := redrive.NewMux()
		flaky.Handle(mux, func(_ context.Context, j *redrive.Job[number]) (int, error) {
			starts = append(starts, j.Starts)
			if len(j.Errors) != j.Retries {
				return 0, redrive.Permanent(fmt.Errorf("history has %d records at retry %d", len(j.Errors), j.Retries))
			}
			return 0, fmt.Errorf("boom %d", j.Retries)
		})
		r.start(mux, redrive.WorkerOptions{Name: "w"})
		receipt, err := flaky.Enqueue(r.ctx(), r.client, number{7}, &redrive.EnqueueOptions{
			Headers: map[string]string{"trace": "abc"}, IdempotencyKey: "order-7",
		})
		require.NoError(t, err)
		_, err = receipt.Wait(r.ctx())
		var failed *redrive.FailedError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, &redrive.FailedError{ID: receipt.ID, Task: "flaky", Reason: redrive.ReasonExhausted, Retries: 3, Message: "boom 3"}, failed)
		require.Equal(t, []int{1, 2, 3, 4}, starts)

		l := r.letter("default", receipt.ID)
		require.Equal(t, "flaky", l["task_name"])
		require.Equal(t, receipt.ID, l["task_id"])
		require.Equal(t, map[string]any{"N": 7.0}, l["args"])
		require.Equal(t, "boom 3", l["error"])
		require.EqualValues(t, 3, l["retries"])
		require.Equal(t, "exhausted", l["reason"])
		require.Equal(t, map[string]any{"trace": "abc"}, l["headers"])
		require.Equal(t, "order-7", l["idempotency_key"])
		at, err := time.Parse(time.RFC3339Nano, l["timestamp"].(string))
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), at, patience)
		history := l["errors"].([]any)
		require.Len(t, history, 4)
		for i, e := range history {
			rec := e.(map[string]any)
			require.Equal(t, fmt.Sprintf("boom %d", i), rec["error"])
			require.EqualValues(t, i+1, rec["attempt"])
			require.Contains(t, rec["worker"], "w-")
		}
		require.EqualValues(t, 1, history[0].(map[string]any)["delay_ms"])
		s := r.stats("default")
		require.EqualValues(t, 3, s.Retried)
		require.EqualValues(t, 1, s.Died)
		require.EqualValues(t, 1, s.Dead)
	})
}

// TestI8_EachReturnValueMovesItsOwnCounter goes through the table of what a
// handler may return.
func TestI8_EachReturnValueMovesItsOwnCounter(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name  string
		first func() error // what the first attempt returns; later ones succeed
		want  redrive.JobEnd
		// what the second attempt sees; nil when there is none
		second *redrive.Message
	}{
		{"nil", func() error { return nil }, redrive.JobEnd{Action: redrive.ActionDone}, nil},
		{"error", func() error { return errors.New("x") },
			redrive.JobEnd{Action: redrive.ActionRetry, Delay: time.Millisecond}, &redrive.Message{Starts: 2, Retries: 1}},
		{"retry after", func() error { return fmt.Errorf("later: %w", redrive.RetryAfter(3*time.Millisecond, errors.New("x"))) },
			redrive.JobEnd{Action: redrive.ActionRetry, Delay: 3 * time.Millisecond}, &redrive.Message{Starts: 2, Retries: 1}},
		{"snooze", func() error { return redrive.Snooze(2 * time.Millisecond) },
			redrive.JobEnd{Action: redrive.ActionSnooze, Delay: 2 * time.Millisecond}, &redrive.Message{Starts: 2, Snoozes: 1}},
		{"permanent", func() error { return errors.Join(errors.New("y"), redrive.Permanent(errors.New("x"))) },
			redrive.JobEnd{Action: redrive.ActionDead, Reason: redrive.ReasonPermanent}, nil},
		{"discard", func() error { return redrive.Discard(errors.New("x")) }, redrive.JobEnd{Action: redrive.ActionDiscard}, nil},
		{"panic", func() error { panic("x") },
			redrive.JobEnd{Action: redrive.ActionRetry, Delay: time.Millisecond}, &redrive.Message{Starts: 2, Retries: 1}},
		{"goexit", func() error { runtime.Goexit(); return nil },
			redrive.JobEnd{Action: redrive.ActionRetry, Delay: time.Millisecond}, &redrive.Message{Starts: 2, Retries: 1}},
	}
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		byName := make(map[string]func() error)
		for _, c := range cases {
			byName[c.name] = c.first
		}
		var mu sync.Mutex
		second := make(map[string]redrive.Message)
		task := redrive.NewTask[string, redrive.None]("t", redrive.TaskOptions{Retry: fast, ResultTTL: time.Minute})
		mux := redrive.NewMux()
		task.Handle(mux, redrive.NoResult(func(_ context.Context, j *redrive.Job[string]) error {
			if j.Starts == 1 {
				return byName[j.Args]()
			}
			mu.Lock()
			defer mu.Unlock()
			second[j.Args] = redrive.Message{Starts: j.Starts, Retries: j.Retries, Snoozes: j.Snoozes, Crashes: j.Crashes, Interrupts: j.Interrupts}
			return nil
		}))
		ends := make(map[string][]redrive.JobEnd)
		r.start(mux, redrive.WorkerOptions{Concurrency: 1, Trace: &redrive.WorkerTrace{
			JobSettled: func(m *redrive.Message, e redrive.JobEnd) {
				mu.Lock()
				defer mu.Unlock()
				ends[m.ID] = append(ends[m.ID], e)
			},
		}})
		for _, c := range cases {
			receipt, err := task.Enqueue(r.ctx(), r.client, c.name, nil)
			require.NoError(t, err)
			_, err = receipt.Wait(r.ctx())
			var failed *redrive.FailedError
			switch c.want.Action {
			case redrive.ActionDead, redrive.ActionDiscard:
				require.ErrorAs(t, err, &failed, c.name)
				if c.want.Action == redrive.ActionDiscard {
					require.Equal(t, redrive.ReasonDiscarded, failed.Reason)
				}
			default:
				require.NoError(t, err, c.name)
			}
			r.drained()
			var got redrive.JobEnd
			var again redrive.Message
			r.eventually(func(redrive.QueueStats) bool { // the trace hears of an end after Redis
				mu.Lock()
				defer mu.Unlock()
				again = second[c.name]
				if len(ends[receipt.ID]) == 0 {
					return false
				}
				got = ends[receipt.ID][0]
				return true
			}, "no end")
			if c.second != nil {
				require.Equal(t, *c.second, again, c.name)
			} else {
				require.Zero(t, again, c.name)
			}
			var panicked *redrive.PanicError
			require.Equal(t, c.name == "panic" || c.name == "goexit", errors.As(got.Err, &panicked), c.name)
			got.Err, got.Duration = nil, 0
			require.Equal(t, c.want, got, c.name)
		}
	})
}

func TestAJobTooOldIsDeadWithoutARun(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		ran := make(chan int, 10)
		task := redrive.NewTask[number, redrive.None]("aging", redrive.TaskOptions{
			MaxAge: 200 * time.Millisecond, Retry: redrive.RetryPolicy{Backoff: redrive.Constant(time.Hour)},
		})
		mux := redrive.NewMux()
		task.Handle(mux, redrive.NoResult(func(_ context.Context, j *redrive.Job[number]) error {
			ran <- j.Args.N
			if j.Args.N == 3 {
				return redrive.Snooze(time.Hour)
			}
			return errors.New("x")
		}))
		old, err := task.Enqueue(r.ctx(), r.client, number{1}, nil)
		require.NoError(t, err)
		time.Sleep(250 * time.Millisecond) // it ages
		var fresh []string
		for n := 2; n <= 3; n++ {
			receipt, err := task.Enqueue(r.ctx(), r.client, number{n}, nil)
			require.NoError(t, err)
			fresh = append(fresh, receipt.ID)
		}
		r.start(mux, redrive.WorkerOptions{Concurrency: 1})
		r.eventually(func(s redrive.QueueStats) bool { return s.Dead == 3 }, "not all dead")
		close(ran)
		for n := range ran {
			require.NotEqual(t, 1, n, "a job older than MaxAge ran")
		}
		require.Equal(t, "max-age", r.letter("default", old.ID)["reason"])
		for _, id := range fresh { // their next attempt would be too late: dead now
			require.Equal(t, "max-age", r.letter("default", id)["reason"])
		}
	})
}

func TestI13_WhatCannotBeDecodedIsADeadLetterAndTheWorkerGoesOn(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[number, int]("t", redrive.TaskOptions{ResultTTL: time.Minute, Retry: fast})
		mux := redrive.NewMux()
		task.Handle(mux, func(context.Context, *redrive.Job[number]) (int, error) { return 1, nil })
		base := r.b.Prefix + ":{default}:"
		raw := map[string]string{
			"garbage":  `{"v":1,`,
			"newer":    `{"v":9,"task":"t","args":{}}`,
			"badname":  `{"v":1,"task":"a{b}","args":{}}`,
			"mistyped": `{"v":1,"task":"t","args":{"N":"not a number"}}`,
			"binary":   "\x00\xff",
		}
		for id, envelope := range raw {
			require.NoError(t, r.rdb.HSet(r.ctx(), base+"jobs", id, envelope).Err())
			require.NoError(t, r.rdb.RPush(r.ctx(), base+"ready", id).Err())
		}
		// An id whose payload somebody deleted.
		require.NoError(t, r.rdb.RPush(r.ctx(), base+"ready", "missing").Err())
		raw["missing"] = ""
		r.start(mux, redrive.WorkerOptions{})
		good, err := task.Enqueue(r.ctx(), r.client, number{1}, nil)
		require.NoError(t, err)
		got, err := good.Wait(r.ctx())
		require.NoError(t, err)
		require.Equal(t, 1, got)
		r.eventually(func(s redrive.QueueStats) bool { return s.Dead == int64(len(raw)) }, "not all dead")
		for id := range raw {
			l := r.letter("default", id)
			require.Equal(t, "malformed", l["reason"], id)
			require.NotEmpty(t, l["error"], id)
		}
		require.Contains(t, r.letter("default", "missing")["error"], "missing from redis")
		require.Contains(t, r.letter("default", "newer")["error"], "9")
	})
}

func TestADamagedLedgerLosesTheCountersAndNotTheJob(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[number, int]("t", redrive.TaskOptions{ResultTTL: time.Minute})
		receipt, err := task.Enqueue(r.ctx(), r.client, number{1}, nil)
		require.NoError(t, err)
		require.NoError(t, r.rdb.HSet(r.ctx(), r.b.Prefix+":{default}:ledger", receipt.ID, "{{{").Err())
		mux := redrive.NewMux()
		task.Handle(mux, func(_ context.Context, j *redrive.Job[number]) (int, error) { return j.Starts, nil })
		r.start(mux, redrive.WorkerOptions{})
		got, err := receipt.Wait(r.ctx())
		require.NoError(t, err)
		require.Equal(t, 1, got)
	})
}

func TestAnUnknownTaskWaitsForAWorkerThatKnowsIt(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[number, int]("new.task", redrive.TaskOptions{ResultTTL: time.Minute})
		receipt, err := task.Enqueue(r.ctx(), r.client, number{1}, nil)
		require.NoError(t, err)
		old := r.start(redrive.NewMux(), redrive.WorkerOptions{})
		r.eventually(func(s redrive.QueueStats) bool { return s.Snoozed == 1 }, "not snoozed")
		require.NoError(t, old.stop())

		mux := redrive.NewMux()
		var seen redrive.Message
		task.Handle(mux, func(_ context.Context, j *redrive.Job[number]) (int, error) { seen = *j.Message; return 5, nil })
		r.start(mux, redrive.WorkerOptions{})
		got, err := receipt.Wait(r.ctx())
		require.NoError(t, err)
		require.Equal(t, 5, got)
		require.Zero(t, seen.Retries, "waiting for a worker burns no retry")

		gone, err := redrive.NewTask[number, int]("nobody", redrive.TaskOptions{}).Enqueue(r.ctx(), r.client, number{1}, nil)
		require.NoError(t, err)
		other := r.start(mux, redrive.WorkerOptions{UnknownTaskAge: time.Nanosecond})
		r.eventually(func(s redrive.QueueStats) bool { return s.Dead == 1 || s.Delayed == 1 }, "not settled")
		require.NoError(t, other.stop())
		if l := r.stats("default"); l.Dead == 1 { // the impatient worker was faster
			require.Equal(t, "unknown-task", r.letter("default", gone.ID)["reason"])
		}
	})
}

func TestAnUnknownTaskIsDeadAtItsAge(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		gone, err := redrive.NewTask[number, int]("nobody", redrive.TaskOptions{}).Enqueue(r.ctx(), r.client, number{1}, nil)
		require.NoError(t, err)
		r.start(redrive.NewMux(), redrive.WorkerOptions{UnknownTaskAge: time.Nanosecond})
		r.eventually(func(s redrive.QueueStats) bool { return s.Dead == 1 }, "not dead")
		l := r.letter("default", gone.ID)
		require.Equal(t, "unknown-task", l["reason"])
		require.EqualValues(t, 0, l["retries"])
	})
}

func TestPausedQueuesKeepTheirJobs(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[number, int]("t", redrive.TaskOptions{ResultTTL: time.Minute})
		mux := redrive.NewMux()
		var ran atomic.Int32
		task.Handle(mux, func(context.Context, *redrive.Job[number]) (int, error) { return int(ran.Add(1)), nil })
		require.NoError(t, r.client.Pause(r.ctx(), "default"))
		require.True(t, r.stats("default").Paused)
		r.start(mux, redrive.WorkerOptions{})
		receipt, err := task.Enqueue(r.ctx(), r.client, number{1}, nil)
		require.NoError(t, err)
		time.Sleep(100 * time.Millisecond) // time enough to break the pause
		require.Zero(t, ran.Load())
		require.NoError(t, r.client.Resume(r.ctx(), "default"))
		_, err = receipt.Wait(r.ctx())
		require.NoError(t, err)
		require.EqualValues(t, 1, ran.Load())
		require.False(t, r.stats("default").Paused)
	})
}

func TestConcurrencyIsNeverExceededByAHandlerThatIgnoresItsTimeout(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{Timeout: 20 * time.Millisecond, Retry: redrive.RetryPolicy{MaxRetries: redrive.NoRetries}})
		mux := redrive.NewMux()
		var running, most atomic.Int32
		release := make(chan struct{})
		causes := make(chan error, 100)
		task.Handle(mux, redrive.NoResult(func(ctx context.Context, j *redrive.Job[number]) error {
			n := running.Add(1)
			defer running.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			<-ctx.Done()
			causes <- context.Cause(ctx)
			<-release // deaf
			return ctx.Err()
		}))
		r.start(mux, redrive.WorkerOptions{Concurrency: 3})
		_, err := task.EnqueueMany(r.ctx(), r.client, make([]number, 9), nil)
		require.NoError(t, err)
		for range 3 {
			require.ErrorIs(t, receive(t, causes, "timeout"), redrive.ErrTimeout)
		}
		time.Sleep(100 * time.Millisecond) // time enough to give a slot away
		require.EqualValues(t, 3, running.Load())
		require.EqualValues(t, 6, r.stats("default").Ready)
		close(release)
		r.eventually(func(s redrive.QueueStats) bool { return s.Dead == 9 }, "not all ended")
		require.EqualValues(t, 3, most.Load())
	})
}

func TestWeightsShareSlotsAndNoQueueStarves(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[string, redrive.None]("t", redrive.TaskOptions{})
		mux := redrive.NewMux()
		var mu sync.Mutex
		var order []string
		task.Handle(mux, redrive.NoResult(func(_ context.Context, j *redrive.Job[string]) error {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, j.Queue)
			return nil
		}))
		const jobs = 400
		for _, q := range []string{"big", "small", "tiny"} {
			_, err := task.EnqueueMany(r.ctx(), r.client, make([]string, jobs), &redrive.EnqueueOptions{Queue: q})
			require.NoError(t, err)
		}
		r.start(mux, redrive.WorkerOptions{Concurrency: 4, Queues: []redrive.Queue{
			{Name: "big", Weight: 6}, {Name: "small", Weight: 3}, {Name: "tiny"},
		}})
		for _, q := range []string{"big", "small", "tiny"} {
			require.Eventually(t, func() bool { return r.stats(q).Succeeded == jobs }, patience, time.Millisecond)
		}
		share := make(map[string]int) // of the first jobs, while all queues have work
		for _, q := range order[:500] {
			share[q]++
		}
		require.InDelta(t, 300, share["big"], 45, "%v", share)
		require.InDelta(t, 150, share["small"], 45, "%v", share)
		require.InDelta(t, 50, share["tiny"], 30, "%v", share)
	})
}

func TestI12_DelayedJobsAreNeverEarlyAndHardlyLate(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[time.Time, redrive.None]("t", redrive.TaskOptions{})
		mux := redrive.NewMux()
		type start struct{ due, at time.Time }
		starts := make(chan start, 100)
		task.Handle(mux, redrive.NoResult(func(_ context.Context, j *redrive.Job[time.Time]) error {
			starts <- start{j.Args, time.Now()}
			return nil
		}))
		r.start(mux, redrive.WorkerOptions{Concurrency: 20})
		var late []time.Duration
		for i := range 20 {
			delay := time.Duration(50+7*i) * time.Millisecond // close together: who is early takes the next along
			opts := &redrive.EnqueueOptions{Delay: delay}
			due := time.Now().Add(delay)
			if i%2 == 1 { // the latest first and the soonest last, half of them by RunAt
				opts = &redrive.EnqueueOptions{RunAt: due}
			}
			_, err := task.Enqueue(r.ctx(), r.client, due, opts)
			require.NoError(t, err)
		}
		for range 20 {
			s := receive(t, starts, "start")
			// The clock of Redis here is ours, read in whole milliseconds.
			require.False(t, s.at.Before(s.due.Add(-time.Millisecond)), "early by %v", s.due.Sub(s.at))
			late = append(late, s.at.Sub(s.due))
		}
		within := 0
		for _, l := range late {
			if l <= 50*time.Millisecond {
				within++
			}
		}
		// All but the odd one: the machine may stall a test for longer than that.
		require.GreaterOrEqual(t, within, 18, "late by %v", late)
	})
}

func TestAnIdleWorkerWakesAtOnceAndCostsNextToNothing(t *testing.T) {
	server := redistest.StartServer(t)
	rdb := server.Client()
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	require.NoError(t, err)
	task := redrive.NewTask[time.Time, redrive.None]("t", redrive.TaskOptions{})
	mux := redrive.NewMux()
	took := make(chan time.Duration, 1)
	task.Handle(mux, redrive.NoResult(func(_ context.Context, j *redrive.Job[time.Time]) error {
		took <- time.Since(j.Args)
		return nil
	}))
	w, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{Logger: quiet})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()

	time.Sleep(300 * time.Millisecond) // it comes to rest
	before := server.CommandCount()
	const idle = 10 * time.Second
	time.Sleep(idle)
	// All commands count, those inside scripts too.
	cost := float64(server.CommandCount()-before) / idle.Seconds()
	require.LessOrEqual(t, cost, 2.0, "commands a second: %v", server.CommandStats())

	var best time.Duration
	for range 20 {
		_, err := task.Enqueue(ctx, client, time.Now(), nil)
		require.NoError(t, err)
		if d := receive(t, took, "start"); best == 0 || d < best {
			best = d
		}
		time.Sleep(5 * time.Millisecond)
	}
	require.Less(t, best, 5*time.Millisecond)
	cancel()
	require.NoError(t, <-done)
	require.Zero(t, rdb.Exists(context.Background(), "redrive:{default}:workers", "redrive:{default}:jobs", "redrive:{default}:ready").Val())
}

func TestI16_ADrainLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{Retry: fast})
		mux := redrive.NewMux()
		task.Handle(mux, redrive.NoResult(func(_ context.Context, j *redrive.Job[number]) error {
			if j.Starts == 1 && j.Args.N%3 == 0 {
				return errors.New("once")
			}
			return nil
		}))
		w := r.start(mux, redrive.WorkerOptions{})
		args := make([]number, 300)
		for i := range args {
			args[i].N = i
		}
		_, err := task.EnqueueMany(r.ctx(), r.client, args, nil)
		require.NoError(t, err)
		r.drained()
		require.NoError(t, w.stop())
		for _, key := range r.b.Keys() {
			switch {
			case key == r.b.Prefix+":{default}:stats", key == r.b.Prefix+":{default}:bell": // one element at most
			case r.rdb.TTL(context.Background(), key).Val() > 0: // the lane: ends by itself
			default:
				t.Errorf("key %s is left", key)
			}
		}
	})
}

func TestWorkerUsesASentinelsFailoverClient(t *testing.T) {
	s := redistest.StartSentinel(t)
	rdb := redis.NewFailoverClient(s.Options())
	defer rdb.Close()
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{EnqueueTimeout: patience})
	require.NoError(t, err)
	task := redrive.NewTask[number, int]("t", redrive.TaskOptions{ResultTTL: time.Minute})
	mux := redrive.NewMux()
	task.Handle(mux, func(_ context.Context, j *redrive.Job[number]) (int, error) { return j.Args.N, nil })
	w, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{Logger: quiet})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	run := func(n int) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		receipt, err := task.Enqueue(ctx, client, number{n}, nil)
		if err != nil {
			return err
		}
		got, err := receipt.Wait(ctx)
		if err == nil && got != n {
			err = fmt.Errorf("job %d returned %d", n, got)
		}
		return err
	}
	require.NoError(t, run(1))
	master := s.MasterAddr()
	s.Failover()
	s.AwaitFailover(master)
	// What the old master takes until it hears of its demotion is lost: that is
	// Redis's asynchronous replication. Worker and client go on by themselves.
	var last error
	require.Eventually(t, func() bool { last = run(2); return last == nil }, patience, 10*time.Millisecond, "%v", last)
	cancel()
	require.NoError(t, <-done)
}
