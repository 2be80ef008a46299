// Command deadletter shows what becomes of a job that keeps failing: a dead letter
// with the whole story, which is reviewed, requeued and redriven when the cause is
// mended.
//
//	go run ./examples/deadletter
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/embedded"
)

type Import struct {
	File string `json:"file"`
}

// Important gives up after three retries.
var Important = redrive.NewTask[Import, redrive.None]("important.import", redrive.TaskOptions{
	Queue: "imports",
	Retry: redrive.RetryPolicy{MaxRetries: 3, Backoff: redrive.Exponential(10*time.Millisecond, time.Second)},
})

var errFormat = errors.New("unknown file format")

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "deadletter:", err)
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
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	if err != nil {
		return err
	}

	var fixed atomic.Bool // the bug in the handler
	paged := make(chan string, 10)
	mux := redrive.NewMux()
	mux.Use(redrive.DeadLetter(redrive.DeadLetterOptions{
		MaxCount: 1000,
		OnDead: func(_ context.Context, e *redrive.DeadLetterEntry) error { // the 3 a.m. call
			paged <- e.TaskID
			return nil
		},
	}))
	Important.Handle(mux, redrive.NoResult(func(_ context.Context, job *redrive.Job[Import]) error {
		if !fixed.Load() {
			return fmt.Errorf("%s: %w", job.Args.File, errFormat)
		}
		return nil
	}))
	worker, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{
		Queues: []redrive.Queue{{Name: "imports"}}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	workerCtx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- worker.Run(workerCtx) }()

	for i := range 4 {
		_, err := Important.Enqueue(ctx, client, Import{File: fmt.Sprintf("report-%d.csv", i)}, &redrive.EnqueueOptions{ID: fmt.Sprintf("import-%d", i)})
		if err != nil {
			return err
		}
	}
	for range 4 {
		<-paged
	}
	letters := client.DeadLetters("imports")
	entry, err := letters.Get(ctx, "import-0")
	if err != nil {
		return err
	}
	if err := show(out, entry); err != nil {
		return err
	}

	// A person looks at one under a lease: should they not come back, it is anybody's.
	reviewed, err := letters.Review(ctx, Important.Name(), 1, time.Minute)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nreviewed %d, resolved it by hand\n", len(reviewed))
	for _, r := range reviewed {
		if err := r.Resolve(ctx); err != nil {
			return err
		}
	}

	fixed.Store(true) // the bug is mended, and what is left can run
	left := 0
	var oneID string
	for e, err := range letters.All(ctx, redrive.DeadLetterFilter{Task: Important.Name(), ErrorContains: "format"}) {
		if err != nil {
			return err
		}
		left++
		oneID = e.TaskID
	}
	fmt.Fprintf(out, "%d are left\n", left)
	n, err := letters.Requeue(ctx, oneID)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "requeued %d\n", n)
	report, err := letters.Redrive(ctx, redrive.RedriveOptions{
		Filter: redrive.DeadLetterFilter{Task: Important.Name()}, Rate: 100,
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "redrove %d\n", report.Moved)

	for {
		stats, err := client.Stats(ctx, "imports")
		if err != nil {
			return err
		}
		if stats.Succeeded >= 3 && stats.Ready+stats.Active == 0 {
			fmt.Fprintf(out, "%d succeeded, %d dead letters\n", stats.Succeeded, stats.Dead)
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	stop()
	return <-done
}

// show prints an entry: the six fields of every dead letter queue, and why.
func show(out io.Writer, e *redrive.DeadLetterEntry) error {
	text, err := json.MarshalIndent(map[string]any{
		"task_name": e.TaskName, "task_id": e.TaskID, "args": e.Args, "error": e.Error,
		"retries": e.Retries, "timestamp": e.Timestamp,
	}, "", "  ")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s\nreason: %s\n", text, e.Reason)
	for _, r := range e.Errors {
		fmt.Fprintf(out, "attempt %d: %s\n", r.Attempt, r.Error)
	}
	return nil
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
