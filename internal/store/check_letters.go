package store

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// letterBatch is how many letters are looked up at once: their size is not known.
const letterBatch = 100

// letters checks every dead letter that an entry, an index or a review names.
func (c *checker) letters(ctx context.Context) error {
	k := &c.q.keys
	if err := c.scanSorted(ctx, k.DeadTasks, func(tasks []string) error {
		for _, task := range tasks {
			c.tasks[task] = true
		}
		return nil
	}); err != nil {
		return err
	}
	visit := func(task string) func([]string) error {
		return func(ids []string) error {
			for part := range slices.Chunk(ids, letterBatch) {
				if err := c.filed(ctx, task, part); err != nil {
					return err
				}
			}
			return nil
		}
	}
	for _, key := range []string{k.Letters, k.Reviews} {
		if err := c.scanHash(ctx, key, visit("")); err != nil {
			return err
		}
	}
	keys := []string{k.Dead}
	for _, reason := range reasons {
		keys = append(keys, k.Why(reason))
	}
	for _, key := range keys {
		if err := c.scanSorted(ctx, key, visit("")); err != nil {
			return err
		}
	}
	for task := range c.tasks {
		if err := c.scanSorted(ctx, k.DeadTask(task), visit(task)); err != nil {
			return err
		}
	}
	return nil
}

// filed checks letters that were found in the index of a task, or elsewhere.
func (c *checker) filed(ctx context.Context, found string, ids []string) error {
	k := &c.q.keys
	letters, err := c.q.LettersByID(ctx, ids)
	if err != nil {
		return err
	}
	keys := []string{k.Dead, k.Letters, k.DeadTasks, k.Reviews, k.Jobs}
	for _, reason := range reasons {
		keys = append(keys, k.Why(reason))
	}
	places := make(map[string]int)
	place := func(task string) int {
		if _, ok := places[task]; !ok {
			keys = append(keys, k.DeadTask(task), k.TaskHooks(task))
			places[task] = 2 + len(keys) - 1 // behind the memo and the counters
		}
		return places[task]
	}
	var args []any
	for _, l := range letters {
		task, reason, died, err := c.facts(ctx, &l)
		if err != nil {
			return err
		}
		sum, at := "", found
		if l.Entry != "" {
			c.tasks[task] = true
			sum = l.Sum()
		}
		if at == "" {
			at = task
		}
		args = append(args, l.ID, sum, strconv.FormatInt(died, 10), place(task), task,
			8+slices.Index(reasons[:], indexedReason(reason)), place(at))
	}
	codes, err := c.call(ctx, checkLetterScript, keys, args...)
	if err != nil {
		return err
	}
	_, err = c.report("nij", codes, ids)
	return err
}

// facts says where a letter belongs: by its entry, else where it is.
func (c *checker) facts(ctx context.Context, l *Letter) (task, reason string, died int64, err error) {
	if l.Entry != "" {
		if task, reason, died, ok := c.Letter(l.Entry); ok && CheckName("", task) == nil {
			return task, reason, max(died, 0), nil
		}
	}
	if task, err = c.q.LetterTask(ctx, l.ID); err != nil {
		return "", "", 0, err
	}
	if task == "" {
		task = "unknown"
	}
	reason = "malformed"
	for _, r := range reasons {
		err := c.q.rdb.ZScore(ctx, c.q.keys.Why(r), l.ID).Err()
		if err == nil {
			reason = r
			break
		}
		if !errors.Is(err, redis.Nil) {
			return "", "", 0, err
		}
	}
	now, err := c.q.Now(ctx)
	return task, reason, now.UnixMilli(), err
}

// deadTasks checks the lists of tasks with dead letters and with hooks.
func (c *checker) deadTasks(ctx context.Context) error {
	k := &c.q.keys
	if err := c.scanSorted(ctx, k.Hooks, func(tasks []string) error {
		for _, task := range tasks {
			c.tasks[task] = true
		}
		return nil
	}); err != nil {
		return err
	}
	for task := range c.tasks {
		keys := []string{k.DeadTasks, k.Hooks, k.DeadTask(task), k.TaskHooks(task)}
		check := func(ids []string) error {
			args, names := []any{task}, []string{task}
			for _, id := range ids {
				args, names = append(args, id), append(names, id)
			}
			codes, err := c.call(ctx, checkTaskScript, keys, args...)
			if err == nil {
				_, err = c.report("th", codes, names)
			}
			return err
		}
		if err := c.scanSorted(ctx, k.TaskHooks(task), check); err != nil {
			return err
		}
		if err := check(nil); err != nil {
			return err
		}
	}
	return nil
}
