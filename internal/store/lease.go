package store

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Beat is what a heartbeat learns.
type Beat struct {
	// Now is the time of Redis.
	Now time.Time
	// Held is false when the worker's lease had lapsed, or it had none: others
	// may have taken its jobs.
	Held bool
	// Owned counts the jobs that Redis says the worker owns.
	Owned int
	// Ready counts the jobs that wait.
	Ready int
	// NextDue is when the next delayed job is due; zero when there is none.
	NextDue time.Time
	// NextLapse is when the next lease of another worker lapses; zero when
	// there is none.
	NextLapse time.Time
	// Expired lists workers whose lease has lapsed.
	Expired []string
}

// Beat renews the worker's lease.
func (q *Queue) Beat(ctx context.Context, worker string, lease time.Duration) (Beat, error) {
	k := &q.keys
	res, err := q.run(ctx, beatScript, []string{k.Workers, k.Worker(worker), k.Ready, k.Delayed, k.Owners},
		[]any{worker, ceilMillis(lease)})
	if err != nil {
		return Beat{}, q.wrap("heartbeat", err)
	}
	reply, ok := res.([]any)
	if !ok || len(reply) != 7 {
		return Beat{}, q.malformed("heartbeat", res)
	}
	held, _ := reply[1].(int64)
	owned, _ := reply[2].(int64)
	ready, _ := reply[3].(int64)
	b := Beat{
		Now: msTime(reply[0]), Held: held == 1, Owned: int(owned), Ready: int(ready),
		NextDue: msTime(reply[4]), NextLapse: msTime(reply[5]),
	}
	names, _ := reply[6].([]any)
	for _, n := range names {
		if s, ok := n.(string); ok {
			b.Expired = append(b.Expired, s)
		}
	}
	return b, nil
}

// Expired lists up to [MaxBatch] jobs of a worker whose lease has lapsed. A
// worker that owns nothing is forgotten.
func (q *Queue) Expired(ctx context.Context, worker string) ([]ClaimedJob, error) {
	k := &q.keys
	res, err := q.run(ctx, expiredScript, []string{k.Workers, k.Worker(worker), k.Jobs, k.Ledger, k.Owners},
		[]any{worker, MaxBatch})
	if err != nil {
		return nil, q.wrap("reap", err)
	}
	reply, ok := res.([]any)
	if !ok || len(reply) != 4 {
		return nil, q.malformed("reap", res)
	}
	var columns [4][]any // a nil element is an entry that does not exist
	for i := range columns {
		if columns[i], ok = reply[i].([]any); !ok || len(columns[i]) != len(columns[0]) {
			return nil, q.malformed("reap", res)
		}
	}
	jobs := make([]ClaimedJob, len(columns[0]))
	for i := range jobs {
		j := &jobs[i]
		j.ID, _ = columns[0][i].(string)
		j.Token, _ = columns[1][i].(string)
		j.Envelope, _ = columns[2][i].(string)
		j.Ledger, _ = columns[3][i].(string)
	}
	return jobs, nil
}

// Leave gives back what the worker still owns and takes it off the queue. It
// returns how many jobs it gave back.
func (q *Queue) Leave(ctx context.Context, worker string) (int, error) {
	k := &q.keys
	released := 0
	for {
		res, err := q.run(ctx, leaveScript,
			[]string{k.Workers, k.Worker(worker), k.Ready, k.Bell, k.Stats, k.Owners}, []any{worker, MaxBatch})
		if err != nil {
			return released, q.wrap("leave", err)
		}
		reply, ok := res.([]any)
		if !ok || len(reply) != 2 {
			return released, q.malformed("leave", res)
		}
		n, _ := reply[0].(int64)
		left, _ := reply[1].(int64)
		released += int(n)
		if left == 0 {
			return released, nil
		}
	}
}

// Owned lists what Redis says the worker owns: id → token.
func (q *Queue) Owned(ctx context.Context, worker string) (map[string]string, error) {
	owned, err := q.rdb.HGetAll(ctx, q.keys.Worker(worker)).Result()
	if err != nil {
		return nil, q.wrap("list owned jobs", err)
	}
	for id := range owned {
		if strings.HasPrefix(id, "#") {
			delete(owned, id)
		}
	}
	return owned, nil
}

// Listen blocks until the bell rings, at most for the time given (whole
// seconds), and reports whether it rang. The bell is a hint; correctness never
// depends on it.
func (q *Queue) Listen(ctx context.Context, block time.Duration) (bool, error) {
	err := q.rdb.BLPop(ctx, block, q.keys.Bell).Err()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	return err == nil, q.wrap("listen", err)
}

// Ring wakes one blocked worker.
func (q *Queue) Ring(ctx context.Context) error {
	_, err := q.run(ctx, ringScript, []string{q.keys.Bell}, nil)
	return q.wrap("ring", err)
}
