package store

import (
	"context"
	"errors"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// Counter names a field of a queue's statistics.
type Counter string

// The counters of a queue; scripts raise them in the step they count.
const (
	Enqueued    Counter = "enqueued"
	Succeeded   Counter = "succeeded"
	Discarded   Counter = "discarded"
	Retried     Counter = "retried"
	Snoozed     Counter = "snoozed"
	Crashed     Counter = "crashed"
	Interrupted Counter = "interrupted"
	Released    Counter = "released"
	Died        Counter = "dead"
	Dropped     Counter = "dropped"
)

// Stats is one consistent look at a queue.
type Stats struct {
	Ready, Delayed, Active, Dead, Workers int64
	Paused                                bool
	Counters                              map[Counter]int64
}

// Stats reads the queue's figures in one transaction.
func (q *Queue) Stats(ctx context.Context) (Stats, error) {
	k := &q.keys
	pipe := q.rdb.TxPipeline()
	ready, delayed := pipe.LLen(ctx, k.Ready), pipe.ZCard(ctx, k.Delayed)
	jobs, dead := pipe.HLen(ctx, k.Jobs), pipe.ZCard(ctx, k.Dead)
	workers, stats := pipe.ZCard(ctx, k.Workers), pipe.HGetAll(ctx, k.Stats)
	if _, err := pipe.Exec(ctx); err != nil {
		return Stats{}, q.wrap("stats", err)
	}
	s := Stats{
		Ready: ready.Val(), Delayed: delayed.Val(), Dead: dead.Val(), Workers: workers.Val(),
		Active:   max(0, jobs.Val()-ready.Val()-delayed.Val()),
		Counters: make(map[Counter]int64),
	}
	for name, v := range stats.Val() {
		switch name {
		case "paused":
			s.Paused = true
		case "token":
		default:
			n, _ := strconv.ParseInt(v, 10, 64)
			s.Counters[Counter(name)] = n
		}
	}
	return s, nil
}

// Pause stops claims on the queue, from the next one on.
func (q *Queue) Pause(ctx context.Context) error {
	return q.wrap("pause", q.rdb.HSet(ctx, q.keys.Stats, "paused", 1).Err())
}

// Resume ends a pause and wakes a worker.
func (q *Queue) Resume(ctx context.Context) error {
	if err := q.rdb.HDel(ctx, q.keys.Stats, "paused").Err(); err != nil {
		return q.wrap("resume", err)
	}
	return q.Ring(ctx)
}

// Fate is what is known of a job.
type Fate struct {
	// Result is what the job's end left, if HasResult.
	Result    []byte
	HasResult bool
	// Letter is the job's dead letter, or empty.
	Letter string
	// Pending is true while the job waits or runs.
	Pending bool
}

// Fate looks a job up.
func (q *Queue) Fate(ctx context.Context, id string) (Fate, error) {
	k := &q.keys
	pipe := q.rdb.TxPipeline()
	result, letter := pipe.Get(ctx, k.Result(id)), pipe.HGet(ctx, k.Letters, id)
	pending := pipe.HExists(ctx, k.Jobs, id)
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return Fate{}, q.wrap("look up job "+id, err)
	}
	f := Fate{Letter: letter.Val(), Pending: pending.Val(), HasResult: result.Err() == nil}
	if f.HasResult {
		f.Result, _ = result.Bytes()
	}
	return f, nil
}

// Subscribe hears the ids of jobs that end with a result or as dead letters,
// joined by spaces. Messages may be lost; look the job up as well.
func (q *Queue) Subscribe(ctx context.Context) *redis.PubSub {
	return q.rdb.Subscribe(ctx, q.keys.Channel)
}
