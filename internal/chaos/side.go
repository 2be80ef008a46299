package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/redis/go-redis/v9"
)

// A side is what is put through the chaos.
type side interface {
	name() string
	// settings says how it is configured, besides its defaults.
	settings() string
	// lease is how long a process may be out of touch before others take its jobs.
	lease() time.Duration
	// confirms is true if the side tells what Redis has confirmed.
	confirms() bool
	// producer returns what enqueues one job. After an error the job may be there or
	// not. dup says that it was there already.
	producer(rdb *redis.Client) (enqueue func(context.Context, job) (dup bool, err error), err error)
	// serve runs handlers until ctx is done, then drains.
	serve(ctx context.Context, rdb *redis.Client, w *worker) error
	// left counts the jobs that wait or run.
	left(ctx context.Context, rdb *redis.Client) (int, error)
	// dump writes what is left in Redis, a line each: "pending id where", "dead id
	// reason", "stat name value", "audit finding".
	dump(ctx context.Context, rdb *redis.Client, w io.Writer) error
}

var sideNames = []string{"redrive", "asynq"}

func sideNamed(name string) (side, error) {
	switch name {
	case "redrive":
		return redriveSide{}, nil
	case "asynq":
		return asynqSide{}, nil
	}
	return nil, fmt.Errorf("no side is named %q: use redrive or asynq", name)
}

// What both sides have in common, so that the nemesis hits both alike.
const (
	queueName       = "chaos"
	taskName        = "chaos.job"
	slots           = 16
	retryDelay      = 100 * time.Millisecond
	jobTimeout      = time.Minute
	shutdownTimeout = 1500 * time.Millisecond
	// manyTimes is for caps that no job of a run shall reach.
	manyTimes = 1000
)
