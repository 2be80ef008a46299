package redrivetest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/store"
	"github.com/redrive-go/redrive/internal/wire"
)

// Waiting is a job that waits for a worker, with its arguments decoded.
type Waiting[A any] struct {
	*redrive.Job[A]
	// Due is when a delayed job is due; zero for a job that is ready.
	Due time.Time
}

// Enqueued lists the jobs of the task that wait, in all queues: those that are
// ready in the order in which they will start, then the delayed ones. It fails
// the test when one cannot be decoded.
func Enqueued[A, R any](e *Env, task *redrive.Task[A, R]) []Waiting[A] {
	e.t.Helper()
	ctx := context.Background()
	names, err := store.Queues(ctx, e.rdb, redrive.DefaultPrefix)
	if err != nil {
		e.t.Fatalf("redrivetest: %v", err)
	}
	var out []Waiting[A]
	for _, name := range names {
		jobs, err := store.Open(e.rdb, redrive.DefaultPrefix, name).Waiting(ctx)
		if err != nil {
			e.t.Fatalf("redrivetest: %v", err)
		}
		for _, job := range jobs {
			m, err := message(name, job)
			if err != nil {
				e.t.Fatalf("redrivetest: job %s in queue %s: %v", job.ID, name, err)
			}
			if m.Task != task.Name() {
				continue
			}
			w := Waiting[A]{Job: &redrive.Job[A]{Message: m}, Due: job.Due}
			if err := task.Options().Codec.Unmarshal(m.Payload, &w.Args); err != nil {
				e.t.Fatalf("redrivetest: arguments of job %s of %s: %v", m.ID, m.Task, err)
			}
			out = append(out, w)
		}
	}
	slices.SortStableFunc(out, func(a, b Waiting[A]) int { return a.Due.Compare(b.Due) })
	return out
}

// RequireEnqueued fails the test unless a job of the task waits whose arguments
// satisfy every match. It returns the first such job.
func RequireEnqueued[A, R any](t testing.TB, e *Env, task *redrive.Task[A, R], match ...func(A) bool) Waiting[A] {
	t.Helper()
	waiting := Enqueued(e, task)
	for _, w := range waiting {
		if !slices.ContainsFunc(match, func(ok func(A) bool) bool { return !ok(w.Args) }) {
			return w
		}
	}
	if len(waiting) == 0 {
		t.Fatalf("redrivetest: no job of task %s waits", task.Name())
	}
	var list strings.Builder
	for _, w := range waiting {
		fmt.Fprintf(&list, "\n\t%+v", w.Args)
	}
	t.Fatalf("redrivetest: of %d waiting jobs of task %s none matches; their arguments:%s", len(waiting), task.Name(), &list)
	panic("unreachable")
}

// message reads a waiting job as the attempt to come will see it.
func message(queue string, job store.WaitingJob) (*redrive.Message, error) {
	env, err := wire.ParseEnvelope([]byte(job.Envelope))
	if err != nil {
		return nil, err
	}
	ledger, err := wire.ParseLedger([]byte(job.Ledger))
	if err != nil {
		return nil, err
	}
	m := &redrive.Message{
		ID: job.ID, Task: env.Task, Queue: queue, Payload: env.Args, Headers: env.Headers, IdempotencyKey: env.IdempotencyKey,
		EnqueuedAt: wire.Time(env.EnqueuedAt), RunAt: wire.Time(max(env.EnqueuedAt, env.RunAt)),
		FirstStartedAt: wire.Time(ledger.FirstStarted), Generation: ledger.Generation,
		Retries: ledger.Retries, Crashes: ledger.Crashes, Snoozes: ledger.Snoozes, Interrupts: ledger.Interrupts,
	}
	m.Starts = starts(m)
	return m, nil
}

// starts numbers the attempt that a message is for.
func starts(m *redrive.Message) int { return 1 + m.Retries + m.Crashes + m.Snoozes + m.Interrupts }

// NewJob returns a job to call a typed handler with, no Redis involved:
//
//	_, err := mailer.sendWelcome(t.Context(), redrivetest.NewJob(WelcomeArgs{To: "ann"},
//		func(m *redrive.Message) { m.Retries = 4 }))
//	require.Equal(t, redrive.ActionRetryAfter, redrive.Disposition(err).Action)
//
// It is the first attempt of job "job-1" of task "task" in the default queue,
// enqueued now, unless a change says otherwise. Starts follows from the other
// counters, unless a change sets it. The payload is the arguments as JSON.
// To try a shutdown or a timeout, cancel the context with [redrive.ErrShutdown]
// or [redrive.ErrTimeout] as the cause ([context.WithCancelCause]).
func NewJob[A any](args A, changes ...func(*redrive.Message)) *redrive.Job[A] {
	payload, err := json.Marshal(args)
	if err != nil {
		payload = nil // arguments of another codec: only the untyped layer reads it
	}
	now := time.Now()
	m := &redrive.Message{
		ID: "job-1", Task: "task", Queue: redrive.DefaultQueue, Payload: payload,
		EnqueuedAt: now, RunAt: now, FirstStartedAt: now,
	}
	for _, change := range changes {
		change(m)
	}
	if m.Starts == 0 {
		m.Starts = starts(m)
	}
	return &redrive.Job[A]{Message: m, Args: args}
}
