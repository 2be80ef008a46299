package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// auditDead checks the dead letters' part of I5: each has an entry, is in the index
// of all, of one task and of one reason, and is no job; tasks, hooks and reviews
// name letters that exist. jobs are the ids that have a payload.
func (q *Queue) auditDead(ctx context.Context, jobs map[string]bool) ([]string, error) {
	k := &q.keys
	pipe := q.rdb.Pipeline()
	letters, reviews := pipe.HKeys(ctx, k.Letters), pipe.HKeys(ctx, k.Reviews)
	dead, tasks := pipe.ZRangeWithScores(ctx, k.Dead, 0, -1), pipe.ZRange(ctx, k.DeadTasks, 0, -1)
	hooks := pipe.ZRangeWithScores(ctx, k.Hooks, 0, -1)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, q.wrap("audit", err)
	}
	byTask, err := q.scanIndexes(ctx, k.DeadTask(""))
	if err != nil {
		return nil, err
	}
	byReason, err := q.scanIndexes(ctx, k.Why(""))
	if err != nil {
		return nil, err
	}
	byHook, err := q.scanIndexes(ctx, k.TaskHooks(""))
	if err != nil {
		return nil, err
	}

	var found []string
	add := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	died := make(map[string]float64)
	for _, z := range dead.Val() {
		died[z.Member.(string)] = z.Score
	}
	entry := make(map[string]bool)
	for _, id := range letters.Val() {
		entry[id] = true
		if _, ok := died[id]; !ok {
			add("dead letter %s is not in the index of all", id)
		}
		if jobs[id] {
			add("job %s is a dead letter and has a payload", id)
		}
	}
	for id := range died {
		if !entry[id] {
			add("dead letter %s has no entry", id)
		}
	}
	for kind, indexes := range map[string]map[string][]redis.Z{"task": byTask, "reason": byReason} {
		places := make(map[string]int)
		for name, zs := range indexes {
			for _, z := range zs {
				id := z.Member.(string)
				places[id]++
				if score, ok := died[id]; !ok || score != z.Score {
					add("index of %s %s has %s at %.0f, which died at %.0f", kind, name, id, z.Score, score)
				}
			}
		}
		for id := range entry {
			if places[id] != 1 {
				add("dead letter %s is in the index of %d %ss", id, places[id], kind)
			}
		}
	}
	if want := slices.Sorted(maps.Keys(byTask)); !slices.Equal(tasks.Val(), want) {
		add("the tasks with dead letters are listed as %v and are %v", tasks.Val(), want)
	}
	first := make(map[string]float64)
	for task, zs := range byHook {
		first[task] = zs[0].Score
		ofTask := make(map[any]bool)
		for _, z := range byTask[task] {
			ofTask[z.Member] = true
		}
		for _, z := range zs {
			if !ofTask[z.Member] {
				add("a hook waits for %s, which is no dead letter of task %s", z.Member, task)
			}
		}
	}
	listed := make(map[string]float64)
	for _, z := range hooks.Val() {
		listed[z.Member.(string)] = z.Score
	}
	if !maps.Equal(listed, first) {
		add("hooks are listed as due %v and are due %v", listed, first)
	}
	for _, id := range reviews.Val() {
		if !entry[id] {
			add("%s is under review and no dead letter", id)
		}
	}
	return found, nil
}

// scanIndexes reads the sorted sets of all names behind a prefix.
func (q *Queue) scanIndexes(ctx context.Context, prefix string) (map[string][]redis.Z, error) {
	keys, err := scan(ctx, q.rdb, prefix+"*")
	if err != nil {
		return nil, q.wrap("audit", err)
	}
	out := make(map[string][]redis.Z)
	for _, key := range keys {
		if out[strings.TrimPrefix(key, prefix)], err = q.rdb.ZRangeWithScores(ctx, key, 0, -1).Result(); err != nil {
			return nil, q.wrap("audit", err)
		}
	}
	return out, nil
}
