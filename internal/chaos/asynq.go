package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// asynqSide is asynq v0.26.0 behind the same producers and handlers. Its intervals
// are as short as they help; its lease, and how often it looks for lapsed ones, are
// constants of its own.
type asynqSide struct{}

func (asynqSide) name() string         { return "asynq" }
func (asynqSide) lease() time.Duration { return 30 * time.Second }
func (asynqSide) confirms() bool       { return false }

func (asynqSide) settings() string {
	return fmt.Sprintf("v0.26.0, Concurrency %d, ShutdownTimeout %v, MaxRetry %d, retries after %v, TaskCheckInterval 10ms, "+
		"DelayedTaskCheckInterval 100ms, Retention 0 (lease 30s, looked after once a minute, 30s late: fixed)",
		slots, shutdownTimeout, manyTimes, retryDelay)
}

func (asynqSide) producer(rdb *redis.Client) (func(context.Context, job) (bool, error), error) {
	c := asynq.NewClientFromRedisClient(rdb)
	return func(ctx context.Context, j job) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, enqueueTimeout)
		defer cancel()
		opts := []asynq.Option{
			asynq.Queue(queueName), asynq.TaskID(jobID(j.n)), asynq.MaxRetry(manyTimes), asynq.Timeout(jobTimeout),
		}
		if j.delay > 0 {
			opts = append(opts, asynq.ProcessIn(j.delay))
		}
		_, err := c.EnqueueContext(ctx, asynq.NewTask(taskName, []byte(j.payload)), opts...)
		if errors.Is(err, asynq.ErrTaskIDConflict) {
			return true, nil
		}
		return false, err
	}, nil
}

func (asynqSide) serve(ctx context.Context, rdb *redis.Client, w *worker) error {
	srv := asynq.NewServerFromRedisClient(rdb, asynq.Config{
		Concurrency: slots, Queues: map[string]int{queueName: 1}, LogLevel: asynq.WarnLevel,
		ShutdownTimeout: shutdownTimeout, TaskCheckInterval: 10 * time.Millisecond,
		DelayedTaskCheckInterval: 100 * time.Millisecond,
		RetryDelayFunc:           func(int, error, *asynq.Task) time.Duration { return retryDelay },
	})
	permanent := func(err error) error { return fmt.Errorf("%w: %w", err, asynq.SkipRetry) }
	err := srv.Start(asynq.HandlerFunc(func(ctx context.Context, t *asynq.Task) error {
		id, _ := asynq.GetTaskID(ctx)
		retries, _ := asynq.GetRetryCount(ctx)
		return w.work(ctx, w.begin(id, t.Payload(), 0, retries, 0, 0), permanent)
	}))
	if err != nil {
		return err
	}
	<-ctx.Done()
	srv.Shutdown()
	return nil
}

const asynqBase = "asynq:{" + queueName + "}:"

func (asynqSide) left(ctx context.Context, rdb *redis.Client) (int, error) {
	pipe := rdb.Pipeline()
	counts := []*redis.IntCmd{
		pipe.LLen(ctx, asynqBase+"pending"), pipe.LLen(ctx, asynqBase+"active"),
		pipe.ZCard(ctx, asynqBase+"scheduled"), pipe.ZCard(ctx, asynqBase+"retry"),
	}
	_, err := pipe.Exec(ctx)
	n := 0
	for _, c := range counts {
		n += int(c.Val())
	}
	return n, err
}

func (asynqSide) dump(ctx context.Context, rdb *redis.Client, w io.Writer) error {
	pipe := rdb.Pipeline()
	lists := map[string]*redis.StringSliceCmd{}
	for _, name := range []string{"pending", "active"} {
		lists[name] = pipe.LRange(ctx, asynqBase+name, 0, -1)
	}
	for _, name := range []string{"scheduled", "retry", "archived"} {
		lists[name] = pipe.ZRange(ctx, asynqBase+name, 0, -1)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	for name, ids := range lists {
		for _, id := range ids.Val() {
			if name == "archived" {
				_, _ = fmt.Fprintln(w, "dead", id, "archived")
			} else {
				_, _ = fmt.Fprintln(w, "pending", id, name)
			}
		}
	}
	return nil
}
