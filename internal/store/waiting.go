package store

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// WaitingJob is a job that no worker owns.
type WaitingJob struct {
	ID, Envelope, Ledger string
	// Due is when a delayed job is due; zero for one that is ready.
	Due time.Time
}

// Waiting lists the jobs that wait, in the order in which they will start. It
// reads the whole queue: for tests.
func (q *Queue) Waiting(ctx context.Context) ([]WaitingJob, error) {
	k := &q.keys
	pipe := q.rdb.TxPipeline()
	ready, delayed := pipe.LRange(ctx, k.Ready, 0, -1), pipe.ZRangeWithScores(ctx, k.Delayed, 0, -1)
	jobs, ledgers := pipe.HGetAll(ctx, k.Jobs), pipe.HGetAll(ctx, k.Ledger)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, q.wrap("list waiting jobs", err)
	}
	var out []WaitingJob
	add := func(id string, due time.Time) {
		out = append(out, WaitingJob{ID: id, Envelope: jobs.Val()[id], Ledger: ledgers.Val()[id], Due: due})
	}
	for _, id := range ready.Val() {
		add(id, time.Time{})
	}
	for _, z := range delayed.Val() {
		if id, ok := z.Member.(string); ok {
			add(id, time.UnixMilli(int64(z.Score)))
		}
	}
	return out, nil
}

// NextDue returns when the next delayed job is due; zero when there is none.
func (q *Queue) NextDue(ctx context.Context) (time.Time, error) {
	head, err := q.rdb.ZRangeWithScores(ctx, q.keys.Delayed, 0, 0).Result()
	if err != nil || len(head) == 0 {
		return time.Time{}, q.wrap("read the next due time", err)
	}
	return time.UnixMilli(int64(head[0].Score)), nil
}

// Queues lists the queues under the prefix, in order of name, with SCAN: for tests.
func Queues(ctx context.Context, rdb redis.UniversalClient, prefix string) ([]string, error) {
	keys, err := scan(ctx, rdb, prefix+":{*")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, key := range keys {
		name, _, _ := strings.Cut(strings.TrimPrefix(key, prefix+":{"), "}")
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
