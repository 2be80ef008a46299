// Singleton: the job of a resource runs alone. The lock has an owner and is renewed
// while the handler runs; a job that finds it held says who holds it and since when;
// and the resource refuses a holder whose lock was taken over (fencing).
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

type syncArgs struct {
	ResourceID string `json:"resource_id"`
}

type syncResult struct {
	Status string `json:"status"`
}

var syncResource = redrive.NewTask[syncArgs, syncResult]("resource.sync", redrive.TaskOptions{ResultTTL: time.Minute})

// A ledger is a resource that checks fencing tokens: it keeps the highest it has
// seen and refuses lower ones. Most databases can do this in a WHERE clause.
type ledger struct {
	mu      sync.Mutex
	highest int64
	entries []string
}

var errStale = errors.New("stale fencing token")

func (l *ledger) append(ctx context.Context, entry string) error {
	token, ok := redrive.FencingToken(ctx)
	if !ok {
		return errors.New("no lock")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if token < l.highest {
		return errStale
	}
	l.highest = token
	l.entries = append(l.entries, entry)
	return nil
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	rdb, closeRedis, err := open(out)
	if err != nil {
		return err
	}
	defer closeRedis()
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	if err != nil {
		return err
	}

	var book ledger
	began, finish := make(chan struct{}), make(chan struct{})
	mux := redrive.NewMux()
	syncResource.Handle(mux,
		func(ctx context.Context, job *redrive.Job[syncArgs]) (syncResult, error) {
			close(began)
			<-finish // the exclusive work
			return syncResult{Status: "completed"}, book.append(ctx, job.Args.ResourceID)
		},
		redrive.Singleton(rdb, redrive.SingletonOptions{
			Key: syncResource.Key(func(a syncArgs) string { return a.ResourceID }),
		}))
	worker, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()

	first, err := syncResource.Enqueue(ctx, client, syncArgs{ResourceID: "report-7"}, nil)
	if err != nil {
		return err
	}
	<-began
	fmt.Fprintln(out, "first job: runs alone with report-7")

	second, err := syncResource.Enqueue(ctx, client, syncArgs{ResourceID: "report-7"}, nil)
	if err != nil {
		return err
	}
	_, err = second.Wait(ctx)
	var failed *redrive.FailedError
	if !errors.As(err, &failed) {
		return fmt.Errorf("the second job was not turned away: %w", err)
	}
	fmt.Fprintf(out, "second job: %s: %s\n", failed.Reason, failed.Message)

	close(finish)
	result, err := first.Wait(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "first job: %s\n", result.Status)

	if err := fence(ctx, out, rdb, &book); err != nil {
		return err
	}
	stop()
	return <-done
}

// fence shows what a token is for: a holder that lost its lock and does not know it.
func fence(ctx context.Context, out io.Writer, rdb redis.UniversalClient, book *ledger) error {
	locker, err := redrive.NewLocker(rdb, redrive.LockerOptions{})
	if err != nil {
		return err
	}
	old, err := locker.Acquire(ctx, "report-7")
	if err != nil {
		return err
	}
	slow := context.WithoutCancel(old.Context()) // a write that is on its way already
	if err := old.Release(ctx); err != nil {
		return err
	}
	return locker.Do(ctx, "report-7", func(ctx context.Context) error {
		if err := book.append(ctx, "by the new holder"); err != nil {
			return err
		}
		if err := book.append(slow, "by the old holder"); !errors.Is(err, errStale) {
			return fmt.Errorf("the old holder's write was taken: %w", err)
		}
		fmt.Fprintln(out, "the resource refused a write of the old holder:", errStale)
		return nil
	})
}

// open uses the Redis at REDIS_URL, or one inside this process.
func open(out io.Writer) (redis.UniversalClient, func(), error) {
	if url := os.Getenv("REDIS_URL"); url != "" {
		o, err := redis.ParseURL(url)
		if err != nil {
			return nil, nil, fmt.Errorf("REDIS_URL: %w", err)
		}
		fmt.Fprintln(out, "using the Redis at REDIS_URL")
		rdb := redis.NewClient(o)
		return rdb, func() { _ = rdb.Close() }, nil
	}
	server, err := embedded.Start()
	if err != nil {
		return nil, nil, err
	}
	fmt.Fprintln(out, "REDIS_URL is not set: using an in-process Redis")
	return server.Client(), func() { _ = server.Close() }, nil
}
