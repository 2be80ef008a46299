package store

import (
	"context"
	_ "embed"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed lua/dead_hooks.lua
	deadHooksLua string
	//go:embed lua/dead_heard.lua
	deadHeardLua string

	deadHooksScript = redis.NewScript(deadHooksLua)
	deadHeardScript = redis.NewScript(deadHeardLua)
)

// HookTask is a task with dead letters that a hook must hear of.
type HookTask struct {
	Task string
	// In is how long until the first of them is due; not positive for due.
	In time.Duration
}

// clockLua reads the clock; a cluster has one per node, and the key says whose.
const clockLua = `local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000)`

// Now returns the time of the Redis that holds the queue.
func (q *Queue) Now(ctx context.Context) (time.Time, error) {
	ms, err := q.rdb.Eval(ctx, clockLua, []string{q.keys.Dead}).Int64()
	return time.UnixMilli(ms), q.wrap("read the clock", err)
}

// HookTasks lists the tasks that hooks must hear of, the first due first.
func (q *Queue) HookTasks(ctx context.Context) ([]HookTask, error) {
	var out []HookTask
	for {
		pipe := q.rdb.Pipeline()
		now := pipe.Eval(ctx, clockLua, []string{q.keys.Hooks})
		found := pipe.ZRangeWithScores(ctx, q.keys.Hooks, int64(len(out)), int64(len(out))+MaxBatch-1)
		if _, err := pipe.Exec(ctx); err != nil {
			return nil, q.wrap("list hooks", err)
		}
		ms, _ := now.Int64()
		for _, z := range found.Val() {
			task, _ := z.Member.(string)
			out = append(out, HookTask{Task: task, In: time.Duration(int64(z.Score)-ms) * time.Millisecond})
		}
		if len(found.Val()) < MaxBatch {
			return out, nil
		}
	}
}

// HookLetters is what a worker took to call a hook with.
type HookLetters struct {
	// Deadline is when others may take them, ms by the clock of Redis.
	Deadline int64
	Letters  []Letter
}

// TakeHooks takes up to n letters of a task whose hook is due.
func (q *Queue) TakeHooks(ctx context.Context, c *Caller, task string, n int, lease time.Duration) (HookLetters, error) {
	k := &q.keys
	res, err := q.run(ctx, deadHooksScript, []string{k.Memo(c.name), k.Hooks, k.TaskHooks(task), k.Letters, k.Dead},
		[]any{c.call, memoTTL.Milliseconds(), task, min(n, MaxBatch), ceilMillis(lease)})
	if err != nil {
		return HookLetters{}, q.wrap("take hooks", err)
	}
	r := readReply(res, 4)
	h := HookLetters{Deadline: r.number(0, maxMillis), Letters: r.letters()}
	if r.bad {
		return HookLetters{}, q.malformed("take hooks", res)
	}
	return h, nil
}

// Bounds of the wait before a hook is called again.
const (
	minHookWait = time.Second
	maxHookWait = 5 * time.Minute
)

// EndHook says whether the hook heard of a letter. If not it is called again after
// a growing wait, unless others took the letter since.
func (q *Queue) EndHook(ctx context.Context, task string, l Letter, deadline int64, heard bool) error {
	ok := ""
	if heard {
		ok = "1"
	}
	k := &q.keys
	_, err := q.run(ctx, deadHeardScript, []string{k.Hooks, k.TaskHooks(task), k.Dead},
		[]any{task, l.ID, strconv.FormatInt(l.Died, 10), strconv.FormatInt(deadline, 10), ok,
			minHookWait.Milliseconds(), maxHookWait.Milliseconds()})
	return q.wrap("end hook", err)
}
