package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/google/uuid"
)

// asynqSide uses asynq v0.26.0. Its pool has a connection for every slot, and its
// intervals are chosen per measure, as short as they help.
type asynqSide struct {
	addr string
}

func (s *asynqSide) name() string { return "asynq" }

func (s *asynqSide) describe(slots int) string {
	return fmt.Sprintf("Retention 0; Concurrency %d, StrictPriority off, log level fatal, a connection per slot; "+
		"DelayedTaskCheckInterval 1ms for retries, TaskCheckInterval 1ms where so marked", slots)
}

func (s *asynqSide) rdb(pool int) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: s.addr, PoolSize: pool})
}

// fill lets asynq enqueue one job, and writes copies of it under other ids, byte
// for byte what n calls would leave: asynq itself has no batches.
func (s *asynqSide) fill(queue string, n, payload int, delay time.Duration) {
	rdb := s.rdb(4)
	defer func() { _ = rdb.Close() }()
	c := asynq.NewClientFromRedisClient(rdb)
	opts := []asynq.Option{asynq.Queue(queue)}
	if delay > 0 {
		opts = append(opts, asynq.ProcessIn(delay))
	}
	task, err := c.Enqueue(asynq.NewTask(taskName, encoded(body("", payload))), opts...)
	fatal(err)
	base := "asynq:{" + queue + "}:"
	model, err := rdb.HGetAll(background, base+"t:"+task.ID).Result()
	fatal(err)
	msg := []byte(model["msg"])
	for left := n - 1; left > 0; {
		k := min(left, 500)
		pipe := rdb.Pipeline()
		for range k {
			id := uuid.NewString()
			fields := []any{"msg", bytes.Replace(msg, []byte(task.ID), []byte(id), 1), "state", model["state"]}
			if since, ok := model["pending_since"]; ok {
				fields = append(fields, "pending_since", since)
			}
			pipe.HSet(background, base+"t:"+id, fields...)
			if delay > 0 {
				pipe.ZAdd(background, base+"scheduled", redis.Z{Score: float64(time.Now().Add(delay).Unix()), Member: id})
			} else {
				pipe.LPush(background, base+"pending", id)
			}
		}
		_, err := pipe.Exec(background)
		fatal(err)
		left -= k
	}
}

func (s *asynqSide) producer(queue string, goroutines int) (func(string) error, func()) {
	rdb := s.rdb(goroutines)
	c := asynq.NewClientFromRedisClient(rdb)
	return func(data string) error {
		_, err := c.Enqueue(asynq.NewTask(taskName, encoded(data)), asynq.Queue(queue))
		return err
	}, func() { _ = rdb.Close() }
}

func (s *asynqSide) start(o workOptions) func() {
	queues := make(map[string]int)
	for _, q := range o.queues {
		queues[q] = 1
	}
	cfg := asynq.Config{
		Concurrency: o.slots, Queues: queues, LogLevel: asynq.FatalLevel,
		RetryDelayFunc: func(int, error, *asynq.Task) time.Duration { return time.Millisecond },
	}
	if o.failOnce {
		cfg.DelayedTaskCheckInterval = time.Millisecond
	}
	if o.eager {
		cfg.TaskCheckInterval = time.Millisecond
	}
	rdb := s.rdb(o.slots + 5)
	srv := asynq.NewServerFromRedisClient(rdb, cfg)
	fatal(srv.Start(asynq.HandlerFunc(func(ctx context.Context, t *asynq.Task) error {
		if o.failOnce {
			if n, _ := asynq.GetRetryCount(ctx); n == 0 {
				o.failing()
				return errFirst
			}
		}
		if o.decode {
			var a args
			if err := json.Unmarshal(t.Payload(), &a); err != nil {
				return err
			}
		}
		o.job(t.Payload())
		return nil
	})))
	return func() {
		srv.Shutdown()
		fatal(rdb.Close())
	}
}

func (s *asynqSide) left(queue string) int {
	rdb := s.rdb(1)
	defer func() { _ = rdb.Close() }()
	base := "asynq:{" + queue + "}:"
	pending, err := rdb.LLen(background, base+"pending").Result()
	fatal(err)
	active, err := rdb.LLen(background, base+"active").Result()
	fatal(err)
	return int(pending + active)
}
