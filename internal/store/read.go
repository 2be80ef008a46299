package store

import (
	"context"
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

// Stats reads the queue's figures at one instant.
func (q *Queue) Stats(ctx context.Context) (Stats, error) {
	k := &q.keys
	res, err := q.run(ctx, statsScript, []string{k.Ready, k.Delayed, k.Jobs, k.Dead, k.Workers, k.Stats}, nil)
	if err != nil {
		return Stats{}, q.wrap("stats", err)
	}
	r := readReply(res, 6)
	var n [5]int64
	for i := range n {
		n[i] = r.number(0, maxCount)
	}
	fields := r.texts()
	if r.bad || len(fields)%2 != 0 {
		return Stats{}, q.malformed("stats", res)
	}
	s := Stats{
		Ready: n[0], Delayed: n[1], Active: max(0, n[2]-n[0]-n[1]), Dead: n[3], Workers: n[4],
		Counters: make(map[Counter]int64),
	}
	for i := 0; i < len(fields); i += 2 {
		switch name, value := fields[i], fields[i+1]; name {
		case "paused":
			s.Paused = true
		case "token":
		default:
			s.Counters[Counter(name)], _ = strconv.ParseInt(value, 10, 64)
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
	res, err := q.run(ctx, fateScript, []string{k.Jobs, k.Letters, k.Result(id)}, []any{id})
	if err != nil {
		return Fate{}, q.wrap("look up job "+id, err)
	}
	r := readReply(res, 3)
	f := Fate{Pending: r.flag()}
	f.Letter, _ = r.optional()
	result, ok := r.optional()
	if r.bad {
		return Fate{}, q.malformed("look up", res)
	}
	f.Result, f.HasResult = []byte(result), ok
	return f, nil
}

// Subscribe hears the ids of jobs that end with a result or as dead letters,
// joined by spaces. Messages may be lost; look the job up as well.
func (q *Queue) Subscribe(ctx context.Context) *redis.PubSub {
	return q.rdb.Subscribe(ctx, q.keys.Channel)
}
