// Command basetask shares options and behaviour between tasks without inheritance:
// options are data, changed by With; behaviour is a group of the mux. The session
// that the middleware opens is closed after every attempt, also one that is retried.
//
//	go run ./examples/basetask
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/embedded"
)

// The data half of the base: a copy per task, so that none changes another's.
var base = redrive.TaskOptions{
	Queue:     "db",
	ResultTTL: time.Minute,
	Retry: redrive.RetryPolicy{
		MaxRetries: 5,
		Backoff:    redrive.Exponential(10*time.Millisecond, time.Second),
		RetryIf:    redrive.Temporary,
	},
}

var (
	Query  = redrive.NewTask[string, int]("db.query", base)
	Report = redrive.NewTask[string, int]("db.report", base.With(func(o *redrive.TaskOptions) { o.Timeout = time.Hour }))
)

// A pool stands for a database: it counts sessions that are open.
type pool struct {
	mu           sync.Mutex
	opened, open int
}

type session struct{ number int }

func (p *pool) connect() *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opened++
	p.open++
	return &session{number: p.opened}
}

func (p *pool) close(*session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open--
}

// The behavioural half: open, use, always close. It runs once per attempt.
type sessionKey struct{}

func withSession(p *pool) redrive.Middleware {
	return func(next redrive.Handler) redrive.Handler {
		return redrive.HandlerFunc(func(ctx context.Context, m *redrive.Message) ([]byte, error) {
			s := p.connect()
			defer p.close(s) // success, error, retry, panic, timeout, shutdown
			return next.Process(context.WithValue(ctx, sessionKey{}, s), m)
		})
	}
}

func sessionOf(ctx context.Context) *session { return ctx.Value(sessionKey{}).(*session) }

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "basetask:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	rdb, closeRedis, err := connect(out)
	if err != nil {
		return err
	}
	defer closeRedis()

	var db pool
	mux := redrive.NewMux()
	group := mux.With(withSession(&db))
	Query.Handle(group, func(ctx context.Context, job *redrive.Job[string]) (int, error) {
		fmt.Fprintf(out, "%s, attempt %d, session %d\n", job.Args, job.Starts, sessionOf(ctx).number)
		if job.Starts < 3 {
			return 0, context.DeadlineExceeded // temporary: retried
		}
		return 42, nil
	})
	Report.Handle(group, func(ctx context.Context, job *redrive.Job[string]) (int, error) {
		fmt.Fprintf(out, "%s, attempt %d, session %d\n", job.Args, job.Starts, sessionOf(ctx).number)
		return 0, errors.New("no such table") // not temporary: a dead letter at once
	})
	worker, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{
		Queues: []redrive.Queue{{Name: "db"}}, Concurrency: 1, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	if err != nil {
		return err
	}
	workerCtx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- worker.Run(workerCtx) }()
	defer stop()

	for _, task := range []*redrive.Task[string, int]{Query, Report} {
		receipt, err := task.Enqueue(ctx, client, "SELECT by "+task.Name(), nil)
		if err != nil {
			return err
		}
		var failed *redrive.FailedError
		switch result, err := receipt.Wait(ctx); {
		case errors.As(err, &failed):
			fmt.Fprintf(out, "%s failed: %s (%s)\n", task.Name(), failed.Message, failed.Reason)
		case err != nil:
			return err
		default:
			fmt.Fprintf(out, "%s: %d\n", task.Name(), result)
		}
	}
	stop()
	err = <-done
	fmt.Fprintf(out, "sessions opened: %d, still open: %d\n", db.opened, db.open)
	return err
}

// connect uses the Redis that REDIS_URL names, or else one inside the process.
func connect(out io.Writer) (redis.UniversalClient, func(), error) {
	if url := os.Getenv("REDIS_URL"); url != "" {
		opts, err := redis.ParseURL(url)
		if err != nil {
			return nil, nil, fmt.Errorf("REDIS_URL: %w", err)
		}
		client := redis.NewClient(opts)
		return client, func() { _ = client.Close() }, nil
	}
	fmt.Fprint(out, "REDIS_URL is not set: using a Redis inside this process.\n\n")
	server, err := embedded.Start()
	if err != nil {
		return nil, nil, err
	}
	return server.Client(), func() { _ = server.Close() }, nil
}
