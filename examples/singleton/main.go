// Command singleton runs a job only while no other runs for the same resource. The
// recipe that people copy is
//
//	if not redis_client.set(lock_key, "1", nx=True, ex=300):
//	    return {"status": "already_running", "resource_id": resource_id}
//	try:
//	    result = do_exclusive_work(resource_id)
//	finally:
//	    redis_client.delete(lock_key)
//
// whose lock ends after 300 s even if the work does not, and which then deletes the
// lock of somebody else. Here the lock is renewed while the handler runs, its context
// ends before the lock can, and a token lets the resource refuse a holder that
// does not know.
//
//	go run ./examples/singleton
//	REDIS_URL=redis://localhost:6379/0 go run ./examples/singleton
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/embedded"
)

// Args names what a job must be alone with.
type Args struct {
	ResourceID string `json:"resource_id"`
}

// Reindex is done for one resource at a time.
var Reindex = redrive.NewTask[Args, string]("index.rebuild", redrive.TaskOptions{
	Queue:     "singleton",
	ResultTTL: time.Minute,
})

// An index is the resource. It keeps the highest fencing token that it has seen.
type index struct {
	mu      sync.Mutex
	highest int64
}

var errStale = errors.New("refused: a later holder has written")

// Write is what a database does with "UPDATE … WHERE token <= $1".
func (x *index) Write(token int64) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if token < x.highest {
		return errStale
	}
	x.highest = token
	return nil
}

// An indexer holds what the handler depends on.
type indexer struct {
	index   *index
	started chan string   // tells that a job is at work
	proceed chan struct{} // lets it end

	late func() error // a write of the first job that is still on its way
}

func (i *indexer) rebuild(ctx context.Context, job *redrive.Job[Args]) (string, error) {
	i.started <- job.ID
	select {
	case <-i.proceed: // the exclusive work, however long it takes
	case <-ctx.Done(): // also when the lock is lost
		return "", context.Cause(ctx)
	}
	token, _ := redrive.FencingToken(ctx)
	if i.late == nil {
		i.late = func() error { return i.index.Write(token) }
	}
	return "completed", i.index.Write(token)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "singleton:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	rdb, closeRedis, err := connect()
	if err != nil {
		return err
	}
	defer closeRedis()

	i := &indexer{index: &index{}, started: make(chan string, 1), proceed: make(chan struct{})}
	mux := redrive.NewMux()
	Reindex.Handle(mux, i.rebuild, redrive.Singleton(rdb, redrive.SingletonOptions{
		Key: Reindex.Key(func(a Args) string { return a.ResourceID }),
		// OnConflict defaults to Skip: the work is being done. Later(d) would wait.
	}))
	skipped := make(chan *redrive.AlreadyRunningError, 1)
	worker, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{
		Queues: []redrive.Queue{{Name: "singleton"}},
		Logger: slog.New(slog.DiscardHandler),
		Trace: &redrive.WorkerTrace{JobSettled: func(_ *redrive.Message, end redrive.JobEnd) {
			if running, ok := errors.AsType[*redrive.AlreadyRunningError](end.Err); ok {
				skipped <- running
			}
		}},
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
	err = story(ctx, out, client, i, skipped)
	stop()
	return errors.Join(err, <-done)
}

func story(ctx context.Context, out io.Writer, client *redrive.Client, i *indexer, skipped <-chan *redrive.AlreadyRunningError) error {
	enqueue := func() (*redrive.Receipt[string], error) {
		return Reindex.Enqueue(ctx, client, Args{ResourceID: "catalogue/42"}, nil)
	}
	first, err := enqueue()
	if err != nil {
		return err
	}
	if _, err := next(ctx, i.started); err != nil {
		return err
	}
	fmt.Fprintln(out, "first job:  running")

	if _, err = enqueue(); err != nil {
		return err
	}
	running, err := next(ctx, skipped)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "second job: already_running\n  key    %s\n  holder %s\n  since  %s\n",
		running.Key, running.Holder, running.Since.Format(time.RFC3339))

	i.proceed <- struct{}{}
	status, err := first.Wait(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "first job: ", status)

	third, err := enqueue()
	if err != nil {
		return err
	}
	if _, err := next(ctx, i.started); err != nil {
		return err
	}
	i.proceed <- struct{}{}
	if status, err = third.Wait(ctx); err != nil {
		return err
	}
	fmt.Fprintln(out, "third job: ", status)

	// The first job's process was stopped for a minute, and goes on as if nothing had
	// happened; or its write was slow on its way.
	fmt.Fprintln(out, "late write of the first job:", i.late())
	return nil
}

// next returns the next value of c.
func next[T any](ctx context.Context, c <-chan T) (v T, err error) {
	select {
	case v = <-c:
		return v, nil
	case <-ctx.Done():
		return v, context.Cause(ctx)
	}
}

// connect returns a client of the Redis at REDIS_URL, or of one in this process.
func connect() (rdb redis.UniversalClient, closeRedis func() error, err error) {
	if url := os.Getenv("REDIS_URL"); url != "" {
		o, err := redis.ParseURL(url)
		if err != nil {
			return nil, nil, fmt.Errorf("REDIS_URL: %w", err)
		}
		rdb = redis.NewClient(o)
		return rdb, rdb.Close, nil
	}
	server, err := embedded.Start()
	if err != nil {
		return nil, nil, err
	}
	return server.Client(), server.Close, nil
}
