// Package redrivetest helps to test programs that use redrive: a Redis inside
// the test, a drain that runs everything that was enqueued, a look at what
// waits, and fake jobs to call a handler with.
//
//	func TestWelcome(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			env := redrivetest.New(t)
//			mux := redrive.NewMux()
//			welcome.Handle(mux, mailer.send) // fails twice
//			require.NoError(t, signUp(t.Context(), env.Client, "ann")) // the code under test
//			redrivetest.RequireEnqueued(t, env, welcome)
//			drained := env.Drain(mux, nil) // hours of backoff, in milliseconds
//			require.Len(t, drained.Attempts, 3)
//			require.Empty(t, drained.Dead)
//		})
//	}
//
// Everything works inside a testing/synctest bubble and outside. Inside, time is
// virtual: [Env.Drain] passes through any backoff at once. Outside, it really
// waits, and fails the test rather than wait for longer than [DrainOptions].Limit.
package redrivetest

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/embedded"
)

// Env is one test's Redis and a client of it. All it starts ends with the test.
type Env struct {
	// Client enqueues into the test's Redis, under [redrive.DefaultPrefix].
	Client *redrive.Client

	t   testing.TB
	rdb redis.UniversalClient
}

// New starts an in-process Redis for the test. Tests with an Env of their own
// may run in parallel. In a synctest bubble, call it inside the bubble.
func New(t testing.TB) *Env {
	t.Helper()
	server, err := embedded.Start()
	if err != nil {
		t.Fatalf("redrivetest: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("redrivetest: %v", err)
		}
	})
	e := &Env{t: t, rdb: server.Client()}
	if e.Client, err = redrive.NewClient(e.rdb, redrive.ClientOptions{}); err != nil {
		t.Fatalf("redrivetest: %v", err)
	}
	return e
}

// Redis returns a client of the test's Redis, for [redrive.NewWorker],
// middleware and the like. It is closed when the test ends.
func (e *Env) Redis() redis.UniversalClient { return e.rdb }

// Run starts a worker in the background and returns the function that stops it,
// which waits for its handlers. The worker also stops when the test ends, and
// fails it unless it drains cleanly. Logs go to the test's output, warnings and
// worse, unless opts has a Logger.
func (e *Env) Run(mux *redrive.Mux, opts redrive.WorkerOptions) (stop func()) {
	e.t.Helper()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.NewTextHandler(e.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	worker, err := redrive.NewWorker(e.rdb, mux, opts)
	if err != nil {
		e.t.Fatalf("redrivetest: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			e.t.Errorf("redrivetest: worker: %v", err)
		}
	})
	e.t.Cleanup(stop)
	return stop
}
