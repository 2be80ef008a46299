package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Audit checks invariant I5 on one queue, while nothing else uses it: a job is
// in exactly one of ready, delayed, active and dead; no payload is without an
// index entry and none the other way round. It returns one line per finding.
func (q *Queue) Audit(ctx context.Context) ([]string, error) {
	k := &q.keys
	pipe := q.rdb.Pipeline()
	jobs, ledger := pipe.HKeys(ctx, k.Jobs), pipe.HKeys(ctx, k.Ledger)
	ready, delayed := pipe.LRange(ctx, k.Ready, 0, -1), pipe.ZRange(ctx, k.Delayed, 0, -1)
	workers, bell := pipe.ZRange(ctx, k.Workers, 0, -1), pipe.LLen(ctx, k.Bell)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, q.wrap("audit", err)
	}
	owners, err := q.scanOwners(ctx)
	if err != nil {
		return nil, err
	}

	var found []string
	add := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	places := make(map[string][]string)
	for _, id := range ready.Val() {
		places[id] = append(places[id], "ready")
	}
	for _, id := range delayed.Val() {
		places[id] = append(places[id], "delayed")
	}
	for worker, ids := range owners {
		if !slices.Contains(workers.Val(), worker) && len(ids) > 0 {
			add("worker %s owns %d jobs and has no lease", worker, len(ids))
		}
		for _, id := range ids {
			places[id] = append(places[id], "active at "+worker)
		}
	}
	payload := make(map[string]bool)
	for _, id := range jobs.Val() {
		payload[id] = true
		if len(places[id]) == 0 {
			add("job %s has a payload and is nowhere", id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(places)) {
		if len(places[id]) > 1 {
			add("job %s is in %s", id, strings.Join(places[id], " and "))
		}
		if !payload[id] {
			add("job %s is in %s and has no payload", id, strings.Join(places[id], " and "))
		}
	}
	for _, id := range ledger.Val() {
		if !payload[id] {
			add("job %s has a ledger and no payload", id)
		}
	}
	dead, err := q.auditDead(ctx, payload)
	if err != nil {
		return nil, err
	}
	found = append(found, dead...)
	if bell.Val() > 1 {
		add("the bell holds %d elements", bell.Val())
	}
	return found, nil
}

// scanOwners finds the hashes of all workers, also of those without a lease.
func (q *Queue) scanOwners(ctx context.Context) (map[string][]string, error) {
	owners := make(map[string][]string)
	keys, err := scan(ctx, q.rdb, q.keys.base+"*")
	if err != nil {
		return nil, q.wrap("audit", err)
	}
	for _, key := range keys {
		if worker, ok := strings.CutPrefix(key, q.keys.Worker("")); ok {
			owned, err := q.Owned(ctx, worker)
			if err != nil {
				return nil, err
			}
			owners[worker] = slices.Collect(maps.Keys(owned))
		}
	}
	return owners, nil
}

// Audit checks I5 on every queue under the prefix, with SCAN: for tests.
func Audit(ctx context.Context, rdb redis.UniversalClient, prefix string) ([]string, error) {
	keys, err := scan(ctx, rdb, prefix+":{*")
	if err != nil {
		return nil, err
	}
	queues := make(map[string]bool)
	for _, key := range keys {
		name, _, _ := strings.Cut(strings.TrimPrefix(key, prefix+":{"), "}")
		queues[name] = true
	}
	var found []string
	for _, name := range slices.Sorted(maps.Keys(queues)) {
		lines, err := Open(rdb, prefix, name).Audit(ctx)
		if err != nil {
			return nil, err
		}
		for _, l := range lines {
			found = append(found, "queue "+name+": "+l)
		}
	}
	return found, nil
}

// scan lists the keys that match, on every master of a cluster.
func scan(ctx context.Context, rdb redis.UniversalClient, pattern string) ([]string, error) {
	one := func(ctx context.Context, c redis.UniversalClient) ([]string, error) {
		var keys []string
		it := c.Scan(ctx, 0, pattern, 1000).Iterator()
		for it.Next(ctx) {
			keys = append(keys, it.Val())
		}
		return keys, it.Err()
	}
	cluster, ok := rdb.(*redis.ClusterClient)
	if !ok {
		return one(ctx, rdb)
	}
	found := make(chan []string, 1)
	found <- nil
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		keys, err := one(ctx, c)
		found <- append(<-found, keys...)
		return err
	})
	return <-found, err
}
