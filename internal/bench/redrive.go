package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive"
)

// redriveSide uses redrive the way its documentation says: jobs are enqueued by a
// typed task with a retry policy and the default timeout, which also decodes them
// where they are to be decoded.
type redriveSide struct {
	addr string
}

var (
	policy = redrive.RetryPolicy{Backoff: redrive.Constant(time.Millisecond), Jitter: redrive.NoJitter}
	noop   = redrive.NewTask[args, redrive.None](taskName, redrive.TaskOptions{Queue: queueName, Retry: policy})
)

func (s *redriveSide) name() string { return "redrive" }

func (s *redriveSide) describe(slots int) string {
	return fmt.Sprintf("Retry on, and Timeout where the task is typed; Concurrency %d, Logger discarded; client of default pool size", slots)
}

func (s *redriveSide) rdb(pool int) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: s.addr, PoolSize: pool})
}

func (s *redriveSide) client() (*redrive.Client, func()) {
	rdb := s.rdb(0)
	c, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	fatal(err)
	return c, func() { _ = rdb.Close() }
}

func (s *redriveSide) fill(queue string, n, payload int, delay time.Duration) {
	c, done := s.client()
	defer done()
	batch := make([]args, 500)
	data := body("", payload)
	for i := range batch {
		batch[i].Data = data
	}
	for n > 0 {
		k := min(n, len(batch))
		_, err := noop.EnqueueMany(background, c, batch[:k], &redrive.EnqueueOptions{Queue: queue, Delay: delay})
		fatal(err)
		n -= k
	}
}

func (s *redriveSide) producer(queue string, _ int) (func(string) error, func()) {
	c, done := s.client()
	return func(data string) error {
		_, err := noop.Enqueue(background, c, args{data}, &redrive.EnqueueOptions{Queue: queue})
		return err
	}, done
}

// many returns what enqueues batches of n jobs with one call.
func (s *redriveSide) many(queue string, n int) (func() error, func()) {
	c, done := s.client()
	batch := make([]args, n)
	for i := range batch {
		batch[i].Data = body("", payloadSize)
	}
	return func() error {
		_, err := noop.EnqueueMany(background, c, batch, &redrive.EnqueueOptions{Queue: queue})
		return err
	}, done
}

func (s *redriveSide) start(o workOptions) func() {
	mux := redrive.NewMux()
	handle := func(m *redrive.Message) error {
		if o.failOnce && m.Retries == 0 {
			o.failing()
			return errFirst
		}
		o.job(m.Payload)
		return nil
	}
	if o.decode {
		noop.Handle(mux, redrive.NoResult(func(_ context.Context, job *redrive.Job[args]) error { return handle(job.Message) }))
	} else {
		mux.Handle(taskName, redrive.Retry(policy)(redrive.HandlerFunc(func(_ context.Context, m *redrive.Message) ([]byte, error) {
			return nil, handle(m)
		})))
	}
	var queues []redrive.Queue
	for _, q := range o.queues {
		queues = append(queues, redrive.Queue{Name: q})
	}
	rdb := s.rdb(0)
	w, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{
		Queues: queues, Concurrency: o.slots, Logger: slog.New(slog.DiscardHandler),
	})
	fatal(err)
	ctx, cancel := context.WithCancel(background)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	return func() {
		cancel()
		fatal(<-ended)
		fatal(rdb.Close())
	}
}

func (s *redriveSide) left(queue string) int {
	c, done := s.client()
	defer done()
	st, err := c.Stats(background, queue)
	fatal(err)
	return int(st.Ready + st.Active)
}
