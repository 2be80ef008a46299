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
	r := readReply(res, 7)
	b := Beat{
		Now: r.time(), Held: r.flag(), Owned: r.count(), Ready: r.count(),
		NextDue: r.due(), NextLapse: r.due(), Expired: r.texts(),
	}
	if r.bad {
		return Beat{}, q.malformed("heartbeat", res)
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
	r := readReply(res, 4)
	ids := r.column(-1)
	jobs := make([]ClaimedJob, len(ids.list))
	tokens, envelopes, ledgers := r.column(len(jobs)), r.column(len(jobs)), r.column(len(jobs))
	for i := range jobs {
		j := &jobs[i]
		j.ID, j.Token = ids.text(), tokens.text()
		j.Envelope, _ = envelopes.optional()
		j.Ledger, _ = ledgers.optional()
	}
	if r.bad || ids.bad || tokens.bad || envelopes.bad || ledgers.bad {
		return nil, q.malformed("reap", res)
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
			[]string{k.Workers, k.Worker(worker), k.Ready, k.Bell, k.Stats, k.Owners, k.Delayed}, []any{worker, MaxBatch})
		if err != nil {
			return released, q.wrap("leave", err)
		}
		r := readReply(res, 2)
		n, left := r.count(), r.count()
		if r.bad || n == 0 && left > 0 { // that would never end
			return released, q.malformed("leave", res)
		}
		released += n
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
