package redrive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
)

// logBook is a log that may be written by many.
type logBook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestPayloadsResultsHeadersAndKeysAreNeverLogged sends jobs down every way that a job
// can go, with a mark in all that is the user's, and looks for it in what the loggers
// and the trace get besides the message itself.
func TestPayloadsResultsHeadersAndKeysAreNeverLogged(t *testing.T) {
	t.Parallel()
	const mark = "S3CRET"
	const digits = "31415926535897932384626"
	b := redistest.Embedded(t)
	book := new(logBook)
	logger := slog.New(slog.NewTextHandler(book, &slog.HandlerOptions{Level: slog.LevelDebug}))
	rdb := b.Client()
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{Prefix: b.Prefix, Logger: logger, MaxPayload: 1000})
	require.NoError(t, err)

	type secret struct {
		Text string
		N    int
	}
	opts := redrive.TaskOptions{ResultTTL: time.Minute, Retry: redrive.RetryPolicy{
		MaxRetries: 2, Backoff: redrive.Constant(time.Millisecond), Jitter: redrive.NoJitter,
	}}
	task := redrive.NewTask[secret, string]("t", opts)
	odd := redrive.NewTask[secret, func()]("odd", opts)
	singular := redrive.NewTask[secret, string]("singular", opts)
	mux := redrive.NewMux()
	mux.Use(redrive.DeadLetter(redrive.DeadLetterOptions{MaxCount: 3, OnDead: func(_ context.Context, e *redrive.DeadLetterEntry) error {
		return errors.New("hook failed")
	}}))
	ways := map[string]func(context.Context) error{
		"succeed": func(context.Context) error { return nil },
		"fail":    func(context.Context) error { return errors.New("failed") },
		"die":     func(context.Context) error { return redrive.Permanent(errors.New("died")) },
		"discard": func(context.Context) error { return redrive.Discard(errors.New("discarded")) },
		"panic":   func(context.Context) error { panic("panicked") },
	}
	handle := func(ctx context.Context, j *redrive.Job[secret]) (string, error) {
		way, _, _ := strings.Cut(j.Args.Text, " ")
		if way == "large" {
			return strings.Repeat(mark, 1000), nil
		}
		if f := ways[way]; f != nil {
			return mark, f(ctx)
		}
		return mark, nil
	}
	task.Handle(mux, handle, redrive.Idempotent(rdb, redrive.IdempotencyOptions{Logger: logger}))
	odd.Handle(mux, func(context.Context, *redrive.Job[secret]) (func(), error) { return func() {}, nil })
	singular.Handle(mux, handle, redrive.Singleton(rdb, redrive.SingletonOptions{Logger: logger}))
	settled := make(chan redrive.Action, 1000)
	w, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{
		Prefix: b.Prefix, Logger: logger, MaxResult: 1000, UnknownTaskAge: time.Nanosecond, Lease: redrive.MinLease,
		Trace: &redrive.WorkerTrace{
			JobSettled: func(m *redrive.Message, e redrive.JobEnd) {
				fmt.Fprintf(book, "%+v %v %s\n", e, e.Err, m.ID)
				settled <- e.Action
			},
			JobReaped: func(queue, id, worker string, crashes int) { fmt.Fprintln(book, queue, id, worker, crashes) },
			RedisLost: func(queue string, err error) { fmt.Fprintln(book, queue, err) },
		},
	})
	require.NoError(t, err)
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()

	headers := map[string]string{"auth": mark}
	ended := 0
	send := func(_ any, err error) {
		require.NoError(t, err)
		ended++
	}
	for way := range ways {
		send(task.Enqueue(ctx, client, secret{Text: way + " " + mark}, &redrive.EnqueueOptions{Headers: headers, IdempotencyKey: way + mark}))
		send(singular.Enqueue(ctx, client, secret{Text: way + " " + mark}, &redrive.EnqueueOptions{Headers: headers}))
	}
	send(task.Enqueue(ctx, client, secret{Text: "large " + mark}, nil))
	send(odd.Enqueue(ctx, client, secret{Text: mark}, nil))
	send(redrive.NewTask[string, redrive.None]("t", opts).Enqueue(ctx, client, mark, nil))                                    // no object
	send(redrive.NewTask[map[string]string, redrive.None]("t", opts).Enqueue(ctx, client, map[string]string{"N": mark}, nil)) // no number
	send(redrive.NewTask[secret, redrive.None]("nobody", opts).Enqueue(ctx, client, secret{Text: mark}, nil))
	_, err = task.Enqueue(ctx, client, secret{Text: strings.Repeat(mark, 1000)}, nil)
	require.ErrorIs(t, err, redrive.ErrPayloadTooLarge)
	fmt.Fprintln(book, err)
	for _, o := range []redrive.EnqueueOptions{{IdempotencyKey: mark + "\xff"}, {IdempotencyKey: strings.Repeat(mark, 1000)}} {
		_, err = task.Enqueue(ctx, client, secret{}, &o)
		require.ErrorIs(t, err, redrive.ErrInvalidOptions)
		fmt.Fprintln(book, err)
	}
	for id, envelope := range map[string]string{
		"broken": `{"v":1,"task":"t","args":{"Text":"` + mark,
		"twice":  `{"v":1,"task":"t","args":"` + mark + `","args":"` + mark + `"}`,
		"base64": `{"v":1,"task":"t","data":"` + mark + `!"}`,
		"number": `{"v":1,"task":"t","key":7,"headers":{"a":"` + mark + `"},"args":"` + mark + `"}`,
		"header": `{"v":1,"task":"t","headers":"` + mark + `"}`,
		"digits": `{"v":1,"task":"t","args":{"N":` + digits + `}}`,
		"ledger": `{"v":1,"task":"t","args":{"Text":"` + mark + `"}}`,
	} {
		require.NoError(t, rdb.HSet(ctx, b.Prefix+":{default}:jobs", id, envelope).Err())
		if id == "ledger" {
			require.NoError(t, rdb.HSet(ctx, b.Prefix+":{default}:ledger", id, `{"v":1,"r":"`+mark+`"}`).Err())
		}
		require.NoError(t, rdb.RPush(ctx, b.Prefix+":{default}:ready", id).Err())
		ended++
	}
	for n := 0; n < ended; {
		if a := receive(t, settled, "end"); a != redrive.ActionRetry && a != redrive.ActionSnooze {
			n++
		}
	}
	// The same key with other arguments.
	send(task.Enqueue(ctx, client, secret{Text: "other " + mark}, &redrive.EnqueueOptions{IdempotencyKey: "succeed" + mark}))
	require.Equal(t, redrive.ActionDead, receive(t, settled, "end"))
	report, err := client.Check(ctx, "default", false)
	require.NoError(t, err)
	logger.Info("checked", "report", report)
	fmt.Fprintln(book, report)
	require.Eventually(t, func() bool { return strings.Contains(book.String(), "dropped dead letters") }, patience, 5*time.Millisecond)
	stop()
	require.NoError(t, <-done)

	log := book.String()
	for _, said := range []string{"job is a dead letter", "job discarded", "OnDead failed", "ledger is damaged", "panicked", "key-reused", "malformed", "unknown-task"} {
		require.Contains(t, log, said, "the test no longer goes all ways")
	}
	for line := range strings.Lines(log) {
		require.NotContains(t, line, mark)
		require.NotContains(t, line, digits)
	}
}
