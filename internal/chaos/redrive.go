package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/store"
)

// redriveSide is this library, used as its documentation shows it.
type redriveSide struct{}

const (
	redriveLease   = 2 * time.Second
	enqueueTimeout = 2 * time.Second
)

var chaosTask = redrive.NewTask[json.RawMessage, redrive.None](taskName, redrive.TaskOptions{
	Queue: queueName, Timeout: jobTimeout,
	Retry: redrive.RetryPolicy{Backoff: redrive.Constant(retryDelay), Jitter: redrive.NoJitter},
})

func (redriveSide) name() string         { return "redrive" }
func (redriveSide) lease() time.Duration { return redriveLease }
func (redriveSide) confirms() bool       { return true }

func (redriveSide) settings() string {
	return fmt.Sprintf("Lease %v, Concurrency %d, ShutdownTimeout %v, MaxCrashes %d, retries after %v, EnqueueTimeout %v",
		redriveLease, slots, shutdownTimeout, manyTimes, retryDelay, enqueueTimeout)
}

func warnings() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func (redriveSide) producer(rdb *redis.Client) (func(context.Context, job) (bool, error), error) {
	c, err := redrive.NewClient(rdb, redrive.ClientOptions{EnqueueTimeout: enqueueTimeout, Logger: warnings()})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, j job) (bool, error) {
		r, err := chaosTask.Enqueue(ctx, c, json.RawMessage(j.payload), &redrive.EnqueueOptions{ID: jobID(j.n), Delay: j.delay})
		if err != nil {
			return false, err
		}
		return r.Duplicate, nil
	}, nil
}

func (redriveSide) serve(ctx context.Context, rdb *redis.Client, w *worker) error {
	var open sync.Map // *redrive.Message → number of the attempt
	attempt := func(m *redrive.Message) int64 {
		a, ok := open.LoadAndDelete(m)
		if !ok {
			return 0 // it was claimed and not started
		}
		return a.(int64)
	}
	mux := redrive.NewMux()
	chaosTask.Handle(mux, redrive.NoResult(func(ctx context.Context, j *redrive.Job[json.RawMessage]) error {
		m := j.Message
		a := w.begin(m.ID, m.Payload, m.Starts, m.Retries, m.Crashes, m.Interrupts)
		open.Store(m, a.number)
		return w.work(ctx, a, redrive.Permanent)
	}))
	worker, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{
		Queues: []redrive.Queue{{Name: queueName}}, Concurrency: slots, Lease: redriveLease,
		ShutdownTimeout: shutdownTimeout, MaxCrashes: manyTimes, Name: w.name, Logger: warnings(),
		Trace: &redrive.WorkerTrace{
			JobSettled: func(m *redrive.Message, e redrive.JobEnd) {
				w.ledger.write(lineConfirmed, "", attempt(m), int64(jobNumber(m.ID)), int64(fateOf(e.Action)))
			},
			JobLost: func(m *redrive.Message) { w.ledger.write(lineRefused, "", attempt(m), int64(jobNumber(m.ID))) },
			JobReaped: func(_, id, dead string, crashes int) {
				w.ledger.write(lineReaped, dead, int64(jobNumber(id)), int64(crashes))
			},
		},
	})
	if err != nil {
		return err
	}
	if err := worker.Run(ctx); err != nil && !errors.Is(err, redrive.ErrHandlersStuck) {
		fmt.Fprintln(os.Stderr, err) // what it left, others take over: the checker sees to it
	}
	return nil
}

func fateOf(a redrive.Action) fate {
	switch a {
	case redrive.ActionDone:
		return fateDone
	case redrive.ActionRetry:
		return fateRetry
	case redrive.ActionRelease:
		return fateReleased
	case redrive.ActionDead:
		return fateDead
	}
	panic(fmt.Sprintf("no job of the workload ends with %v", a))
}

func (redriveSide) left(ctx context.Context, rdb *redis.Client) (int, error) {
	s, err := store.Open(rdb, store.DefaultPrefix, queueName).Stats(ctx)
	return int(s.Ready + s.Delayed + s.Active), err
}

func (redriveSide) dump(ctx context.Context, rdb *redis.Client, w io.Writer) error {
	k := store.NewKeys(store.DefaultPrefix, queueName)
	ids, err := rdb.HKeys(ctx, k.Jobs).Result()
	if err != nil {
		return err
	}
	for _, id := range ids {
		_, _ = fmt.Fprintln(w, "pending", id, "jobs")
	}
	c, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	if err != nil {
		return err
	}
	for letter, err := range c.DeadLetters(queueName).All(ctx, redrive.DeadLetterFilter{}) {
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintln(w, "dead", letter.TaskID, letter.Reason)
	}
	s, err := c.Stats(ctx, queueName)
	if err != nil {
		return err
	}
	for name, v := range map[string]int64{
		"enqueued": s.Enqueued, "succeeded": s.Succeeded, "died": s.Died, "retried": s.Retried,
		"crashed": s.Crashed, "interrupted": s.Interrupted, "released": s.Released,
	} {
		_, _ = fmt.Fprintln(w, "stat", name, v)
	}
	findings, err := store.Audit(ctx, rdb, store.DefaultPrefix)
	for _, f := range findings {
		_, _ = fmt.Fprintln(w, "audit", f)
	}
	return err
}
