// Command quickstart enqueues three jobs and runs them in the same process: one
// succeeds, one is retried until it does, one becomes a dead letter.
//
//	go run ./examples/quickstart
//	REDIS_URL=redis://localhost:6379/0 go run ./examples/quickstart
//
// Without REDIS_URL it needs nothing installed: a Redis runs inside the process.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/embedded"
)

type Args struct {
	To string `json:"to"`
}

// Welcome is declared once, and imported by producers and workers.
var Welcome = redrive.NewTask[Args, string]("mail.welcome", redrive.TaskOptions{
	Queue:     "quickstart",
	ResultTTL: time.Minute, // kept for the receipts below
	Retry: redrive.RetryPolicy{
		MaxRetries: 5,
		Backoff:    redrive.Exponential(100*time.Millisecond, time.Second),
	},
})

var (
	errBusy    = errors.New("mail server is busy")
	errAddress = errors.New("no such address")
)

// send is the handler. What it returns settles the job.
func send(_ context.Context, job *redrive.Job[Args]) (string, error) {
	switch {
	case job.Args.To == "nobody":
		return "", redrive.Permanent(errAddress) // no retry can mend it
	case job.Args.To == "bob" && job.Retries < 2:
		return "", errBusy // retried, as the policy says
	}
	return "welcome, " + job.Args.To, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
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

	// The worker: a handler for each task, and the queues to serve.
	mux := redrive.NewMux()
	Welcome.Handle(mux, send)
	worker, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{
		Queues: []redrive.Queue{{Name: "quickstart"}},
		Trace:  &redrive.WorkerTrace{JobSettled: func(m *redrive.Message, end redrive.JobEnd) { tell(out, m, end) }},
		Logger: slog.New(slog.DiscardHandler), // the trace tells it all
		// One slot, so that the lines below come in order.
		Concurrency: 1,
	})
	if err != nil {
		return err
	}
	workerCtx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- worker.Run(workerCtx) }()

	results, err := produce(ctx, rdb)
	stop() // let the worker finish what it has
	if err := errors.Join(err, <-done); err != nil {
		return err
	}
	fmt.Fprintln(out)
	for _, result := range results {
		fmt.Fprintln(out, result)
	}
	return nil
}

// produce is the producer's side: enqueue, and wait for the results.
func produce(ctx context.Context, rdb redis.UniversalClient) ([]string, error) {
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	if err != nil {
		return nil, err
	}
	users := []Args{{"ann"}, {"bob"}, {"nobody"}}
	receipts, err := Welcome.EnqueueMany(ctx, client, users, nil)
	if err != nil {
		return nil, err
	}
	results := make([]string, len(receipts))
	for i, receipt := range receipts {
		result, err := receipt.Wait(ctx)
		if failed, ok := errors.AsType[*redrive.FailedError](err); ok {
			result = fmt.Sprintf("dead letter: %s (%s)", failed.Message, failed.Reason)
		} else if err != nil {
			return nil, err
		}
		results[i] = fmt.Sprintf("%-8s %s", users[i].To, result)
	}
	return results, nil
}

// tell prints how an attempt ended.
func tell(out io.Writer, m *redrive.Message, end redrive.JobEnd) {
	what := "done"
	switch end.Action {
	case redrive.ActionRetry:
		what = fmt.Sprintf("failed: %v; again in %v", end.Err, end.Delay.Round(time.Millisecond))
	case redrive.ActionDead:
		what = fmt.Sprintf("dead letter: %v", end.Err)
	}
	fmt.Fprintf(out, "%s %-16s attempt %d  %s\n", m.Task, m.Payload, m.Starts, what)
}

// connect uses the Redis that REDIS_URL names, or else one inside the process.
func connect(out io.Writer) (rdb redis.UniversalClient, closeRedis func(), err error) {
	if url := os.Getenv("REDIS_URL"); url != "" {
		opts, err := redis.ParseURL(url)
		if err != nil {
			return nil, nil, fmt.Errorf("REDIS_URL: %w", err)
		}
		fmt.Fprintf(out, "Using the Redis at %s.\n\n", opts.Addr)
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
