package redrive_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
)

// This file is the program that the API was designed by: how it reads is the test
// of the API, that it runs is the test below.

type WelcomeArgs struct{ To string }

type Delivery struct{ MessageID string }

type DigestArgs struct{ User string }

// What a package of tasks declares, imported by producers and workers alike.
var (
	base = redrive.TaskOptions{
		Queue:   "mail",
		Timeout: 30 * time.Second,
		Retry: redrive.RetryPolicy{
			MaxRetries: 5,
			Backoff:    redrive.Exponential(time.Second, 10*time.Minute),
			Jitter:     redrive.EqualJitter,
		},
		ResultTTL: time.Minute,
	}

	Welcome = redrive.NewTask[WelcomeArgs, Delivery]("mail.welcome", base)
	Digest  = redrive.NewTask[DigestArgs, redrive.None]("mail.digest",
		base.With(func(o *redrive.TaskOptions) { o.Queue = "bulk" }))
)

var (
	errMailThrottled  = errors.New("mail API: throttled")
	errMailBadAddress = errors.New("mail API: no such address")
)

// mailAPI is what the mailer depends on.
type mailAPI struct{ throttled atomic.Bool }

func (a *mailAPI) Send(_ context.Context, to string) (Delivery, error) {
	switch {
	case to == "nobody":
		return Delivery{}, errMailBadAddress
	case to == "bob" && a.throttled.CompareAndSwap(true, false):
		return Delivery{}, errMailThrottled
	}
	return Delivery{MessageID: "to-" + to}, nil
}

type mailer struct{ api *mailAPI }

func (m *mailer) sendWelcome(ctx context.Context, job *redrive.Job[WelcomeArgs]) (Delivery, error) {
	d, err := m.api.Send(ctx, job.Args.To)
	switch {
	case errors.Is(err, errMailThrottled):
		return d, redrive.RetryAfter(10*time.Millisecond, err)
	case errors.Is(err, errMailBadAddress):
		return d, redrive.Permanent(err)
	}
	return d, err
}

func (m *mailer) sendDigest(ctx context.Context, job *redrive.Job[DigestArgs]) error {
	_, err := m.api.Send(ctx, job.Args.User)
	return err
}

// TestDesignProgramRuns runs it: producer and worker in one process.
func TestDesignProgramRuns(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		rdb := b.Client()
		m := &mailer{api: &mailAPI{}}
		m.api.throttled.Store(true)
		var mu sync.Mutex
		var order []string
		note := func(name string) redrive.Middleware {
			return func(next redrive.Handler) redrive.Handler {
				return redrive.HandlerFunc(func(ctx context.Context, msg *redrive.Message) ([]byte, error) {
					mu.Lock()
					order = append(order, name+" "+msg.Task)
					mu.Unlock()
					return next.Process(ctx, msg)
				})
			}
		}
		tracing, withDB := note("tracing"), note("db")
		rawDone := make(chan string, 1)
		rawHandler := redrive.HandlerFunc(func(_ context.Context, msg *redrive.Message) ([]byte, error) {
			if msg.Retries == 0 {
				return nil, errors.New("not yet")
			}
			rawDone <- string(msg.Payload)
			return nil, nil
		})

		// producer
		client, err := redrive.NewClient(rdb, redrive.ClientOptions{Prefix: b.Prefix})
		require.NoError(t, err)
		receipt, err := Welcome.Enqueue(ctx, client, WelcomeArgs{To: "ann"}, nil)
		require.NoError(t, err)
		later, err := Welcome.Enqueue(ctx, client, WelcomeArgs{To: "bob"},
			&redrive.EnqueueOptions{Delay: 50 * time.Millisecond, IdempotencyKey: "order-7"})
		require.NoError(t, err)
		bad, err := Welcome.Enqueue(ctx, client, WelcomeArgs{To: "nobody"}, nil)
		require.NoError(t, err)
		digest, err := Digest.Enqueue(ctx, client, DigestArgs{User: "ann"}, nil)
		require.NoError(t, err)
		_, err = redrive.NewTask[int, redrive.None]("legacy.raw", base).Enqueue(ctx, client, 7, nil)
		require.NoError(t, err)

		// worker, in-process
		mux := redrive.NewMux()
		alerts := make(chan string, 1)
		alert := func(_ context.Context, e *redrive.DeadLetterEntry) error { alerts <- e.TaskID; return nil }
		mux.Use(tracing, redrive.DeadLetter(redrive.DeadLetterOptions{OnDead: alert}))
		mail := mux.With(withDB)            // the behavioural half of a base class
		Welcome.Handle(mail, m.sendWelcome, // a method value: dependencies live in m
			redrive.Idempotent(rdb, redrive.IdempotencyOptions{TTL: 24 * time.Hour}))
		Digest.Handle(mail, redrive.NoResult(m.sendDigest),
			redrive.Singleton(rdb, redrive.SingletonOptions{Prefix: b.Prefix, Key: Digest.Key(func(a DigestArgs) string { return a.User })}))
		mux.Handle("legacy.raw", redrive.Chain(redrive.Retry(fast))(rawHandler)) // the untyped layer

		worker, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{
			Prefix:      b.Prefix,
			Logger:      quiet,
			Queues:      []redrive.Queue{{Name: "mail", Weight: 3}, {Name: "bulk", Weight: 1}},
			Concurrency: 50,
		})
		require.NoError(t, err)
		runCtx, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- worker.Run(runCtx) }() // until runCtx is done, then drains

		delivery, err := receipt.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, Delivery{MessageID: "to-ann"}, delivery)
		delivery, err = later.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, Delivery{MessageID: "to-bob"}, delivery)
		_, err = bad.Wait(ctx)
		var failed *redrive.FailedError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, redrive.ReasonPermanent, failed.Reason)
		require.Equal(t, errMailBadAddress.Error(), failed.Message)
		require.Equal(t, bad.ID, receive(t, alerts, "alert"))
		_, err = digest.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, "7", receive(t, rawDone, "raw job"))

		stop()
		require.NoError(t, receive(t, done, "end of the worker"))
		mu.Lock()
		defer mu.Unlock()
		require.Contains(t, order, "tracing mail.welcome")
		require.Contains(t, order, "db mail.digest")
		require.Contains(t, order, "tracing legacy.raw")
		require.NotContains(t, order, "db legacy.raw")
	})
}
