package store

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed lua/dead_scan.lua
	deadScanLua string
	//go:embed lua/dead_page.lua
	deadPageLua string
	//go:embed lua/dead_take.lua
	deadTakeLua string
	//go:embed lua/dead_forget.lua
	deadForgetLua string
	//go:embed lua/dead_settle.lua
	deadSettleLua string
	//go:embed lua/dead_trim.lua
	deadTrimLua string
	//go:embed lua/dead_release.lua
	deadReleaseLua string

	deadPageScript    = redis.NewScript(deadScanLua + deadPageLua)
	deadTakeScript    = redis.NewScript(deadScanLua + deadTakeLua)
	deadSettleScript  = redis.NewScript(deadForgetLua + deadSettleLua)
	deadTrimScript    = redis.NewScript(deadForgetLua + deadTrimLua)
	deadReleaseScript = redis.NewScript(deadReleaseLua)
)

// reasons are those that dead letters are indexed by; each has a place in dead_forget.lua.
var reasons = [...]string{"exhausted", "permanent", "crash-loop", "max-age", "malformed", "unknown-task", "key-reused"}

// Reasons returns the reasons that dead letters are indexed by.
func Reasons() []string { return slices.Clone(reasons[:]) }

// indexedReason keeps a letter of a reason that no index is for visible: under
// "permanent". No reason of ours needs it.
func indexedReason(reason string) string {
	if slices.Contains(reasons[:], reason) {
		return reason
	}
	return reasons[1]
}

// Counters of dead letters that an operator ended.
const (
	Requeued Counter = "requeued"
	Drained  Counter = "drained"
	Deleted  Counter = "deleted"
)

const (
	// memoTTL is how long the last call of a caller is remembered: longer than any
	// caller goes on sending it.
	memoTTL = 10 * time.Minute
	// PageBytes bounds the entries of one reply; a single larger entry passes.
	PageBytes = 1 << 20
)

// A Caller makes calls one after the other; the same one, sent again, gets the
// answer of the first time, and one that arrives late does nothing (I6).
type Caller struct {
	name string
	call int64
}

// NewCaller returns a caller of that name, which nobody else has.
func NewCaller(name string) *Caller { return &Caller{name: name} }

// Next makes what follows a new call.
func (c *Caller) Next() { c.call++ }

// A Letter is one dead letter as it is stored.
type Letter struct {
	ID string
	// Died is when, ms, by the clock of Redis.
	Died  int64
	Entry string
}

// Sum identifies the entry: a letter that was requeued and died again has another.
func (l *Letter) Sum() string {
	sum := sha1.Sum([]byte(l.Entry)) // what Lua has; it need not withstand an attack
	return hex.EncodeToString(sum[:])
}

// LetterCursor is a place in the order of dead letters. The zero value is before
// the first.
type LetterCursor struct {
	Died int64
	ID   string
}

// LetterIndex selects letters by what is indexed. Zero values select all.
type LetterIndex struct {
	Task, Reason string
	// Since and Until bound the time of death, ms, both included.
	Since, Until int64
}

// key returns the shortest index that holds all letters selected. Of those of a
// task, Reason still has to be looked at.
func (q *Queue) letterKey(x LetterIndex) string {
	switch {
	case x.Task != "":
		return q.keys.DeadTask(x.Task)
	case x.Reason != "":
		return q.keys.Why(x.Reason)
	}
	return q.keys.Dead
}

// Page is a part of an index of dead letters.
type Page struct {
	// Now is the time of Redis.
	Now     time.Time
	Letters []Letter
	// More: there may be more after Next.
	More bool
	Next LetterCursor
}

// Letters reads up to [MaxBatch] dead letters after a cursor, oldest first.
func (q *Queue) Letters(ctx context.Context, x LetterIndex, after LetterCursor, limit int) (Page, error) {
	if after.Died < x.Since {
		after = LetterCursor{Died: x.Since}
	}
	last := "+inf"
	if x.Until > 0 {
		last = strconv.FormatInt(x.Until, 10)
	}
	res, err := q.run(ctx, deadPageScript, []string{q.letterKey(x), q.keys.Letters},
		[]any{after.Died, after.ID, last, min(limit, MaxBatch), PageBytes})
	if err != nil {
		return Page{}, q.wrap("list dead letters", err)
	}
	r := readReply(res, 5)
	p := Page{Now: r.time(), More: r.flag(), Letters: r.letters(), Next: after}
	if r.bad {
		return Page{}, q.malformed("list dead letters", res)
	}
	if n := len(p.Letters); n > 0 {
		p.Next = LetterCursor{Died: p.Letters[n-1].Died, ID: p.Letters[n-1].ID}
	}
	return p, nil
}

// LettersByID looks letters up. One that does not exist has no entry.
func (q *Queue) LettersByID(ctx context.Context, ids []string) ([]Letter, error) {
	pipe := q.rdb.Pipeline()
	entries := pipe.HMGet(ctx, q.keys.Letters, ids...)
	scores := make([]*redis.FloatCmd, len(ids))
	for i, id := range ids {
		scores[i] = pipe.ZScore(ctx, q.keys.Dead, id)
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, q.wrap("look up dead letters", err)
	}
	out := make([]Letter, len(ids))
	for i, id := range ids {
		entry, _ := entries.Val()[i].(string)
		out[i] = Letter{ID: id, Died: int64(scores[i].Val()), Entry: entry}
	}
	return out, nil
}

// CountLetters counts what an index selects, without reading it; a Task makes it
// disregard Reason.
func (q *Queue) CountLetters(ctx context.Context, x LetterIndex) (int64, error) {
	last := "+inf"
	if x.Until > 0 {
		last = strconv.FormatInt(x.Until, 10)
	}
	n, err := q.rdb.ZCount(ctx, q.letterKey(x), strconv.FormatInt(x.Since, 10), last).Result()
	return n, q.wrap("count dead letters", err)
}

// DeadTasks lists up to n tasks that have dead letters, by name, after the one given.
func (q *Queue) DeadTasks(ctx context.Context, after string, n int) ([]string, error) {
	from := "-"
	if after != "" {
		from = "(" + after
	}
	tasks, err := q.rdb.ZRangeByLex(ctx, q.keys.DeadTasks, &redis.ZRangeBy{Min: from, Max: "+", Count: int64(n)}).Result()
	return tasks, q.wrap("list tasks of dead letters", err)
}

// LetterCounts is how many dead letters there are.
type LetterCounts struct {
	Total    int64
	Tasks    map[string]int64
	ByReason map[string]int64
}

// LetterCounts counts all dead letters: one look at the reasons, and one per
// [MaxBatch] tasks.
func (q *Queue) LetterCounts(ctx context.Context) (LetterCounts, error) {
	c := LetterCounts{Tasks: make(map[string]int64), ByReason: make(map[string]int64)}
	count := func(names []string, key func(string) string, into map[string]int64) error {
		pipe := q.rdb.Pipeline()
		total := pipe.ZCard(ctx, q.keys.Dead)
		cards := make([]*redis.IntCmd, len(names))
		for i, name := range names {
			cards[i] = pipe.ZCard(ctx, key(name))
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return q.wrap("count dead letters", err)
		}
		for i, name := range names {
			if n := cards[i].Val(); n > 0 {
				into[name] = n
			}
		}
		c.Total = total.Val()
		return nil
	}
	for after := ""; ; {
		tasks, err := q.DeadTasks(ctx, after, MaxBatch)
		if err != nil {
			return c, err
		}
		if err := count(tasks, q.keys.DeadTask, c.Tasks); err != nil {
			return c, err
		}
		if len(tasks) < MaxBatch {
			return c, count(reasons[:], q.keys.Why, c.ByReason)
		}
		after = tasks[len(tasks)-1]
	}
}

// LetterTask finds the task of a letter whose entry does not tell, by its indexes.
func (q *Queue) LetterTask(ctx context.Context, id string) (string, error) {
	for after := ""; ; {
		tasks, err := q.DeadTasks(ctx, after, MaxBatch)
		if err != nil || len(tasks) == 0 {
			return "", err
		}
		pipe := q.rdb.Pipeline()
		scores := make([]*redis.FloatCmd, len(tasks))
		for i, task := range tasks {
			scores[i] = pipe.ZScore(ctx, q.keys.DeadTask(task), id)
		}
		if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
			return "", q.wrap("find the task of dead letter "+id, err)
		}
		for i, task := range tasks {
			if scores[i].Err() == nil {
				return task, nil
			}
		}
		after = tasks[len(tasks)-1]
	}
}

// TakeLetters puts up to n letters of a task under review.
func (q *Queue) TakeLetters(ctx context.Context, c *Caller, task, token string, lease time.Duration, n int, after LetterCursor) (Page, error) {
	k := &q.keys
	res, err := q.run(ctx, deadTakeScript, []string{k.Memo(c.name), k.DeadTask(task), k.Letters, k.Reviews},
		[]any{c.call, memoTTL.Milliseconds(), token, ceilMillis(lease), min(n, MaxBatch), PageBytes, after.Died, after.ID})
	if err != nil {
		return Page{}, q.wrap("review dead letters", err)
	}
	r := readReply(res, 7)
	p := Page{Now: r.time(), More: r.flag(), Letters: r.letters()}
	p.Next = LetterCursor{Died: r.score(), ID: r.text()}
	if r.bad {
		return Page{}, q.malformed("review dead letters", res)
	}
	return p, nil
}

// ReleaseLetters ends reviews, and returns how many still were under this one.
func (q *Queue) ReleaseLetters(ctx context.Context, token string, ids []string) (int, error) {
	args := []any{token}
	for _, id := range ids {
		args = append(args, id)
	}
	res, err := q.run(ctx, deadReleaseScript, []string{q.keys.Reviews}, args)
	if err != nil {
		return 0, q.wrap("release dead letters", err)
	}
	n, ok := res.(int64)
	if !ok || n < 0 || n > int64(len(ids)) {
		return 0, q.malformed("release dead letters", res)
	}
	return int(n), nil
}

// LetterEnd is how one dead letter ends.
type LetterEnd struct {
	ID, Task string
	// Sum is [Letter.Sum] of the entry that was read; empty for any.
	Sum string
	// Token is the review that the letter is under; empty for none.
	Token string
	// Envelope, unless empty, makes the letter a job again, with Ledger.
	Envelope, Ledger []byte
}

// LetterFate says what became of a [LetterEnd].
type LetterFate byte

// The fates of a letter.
const (
	LetterDone     LetterFate = '+'
	LetterMissing  LetterFate = '-'
	LetterChanged  LetterFate = 'c'
	LetterReviewed LetterFate = 'r'
	LetterLost     LetterFate = 'l'
	LetterTaken    LetterFate = 't'

	letterFates = "+-crlt"
)

// EndLetters ends up to [MaxBatch] dead letters, each id once, and raises the
// counter by how many that were.
func (q *Queue) EndLetters(ctx context.Context, c *Caller, counter Counter, ends []LetterEnd) ([]LetterFate, error) {
	k := &q.keys
	keys := append(q.forgetKeys(c), k.Jobs, k.Ledger, k.Ready, k.Bell)
	tasks := make(map[string]int)
	args := []any{c.call, memoTTL.Milliseconds(), string(counter)}
	for i := range ends {
		e := &ends[i]
		if _, ok := tasks[e.Task]; !ok {
			tasks[e.Task] = len(keys) + 1
			keys = append(keys, k.DeadTask(e.Task), k.TaskHooks(e.Task))
		}
		args = append(args, e.ID, e.Sum, e.Token, tasks[e.Task], e.Task, e.Envelope, e.Ledger)
	}
	answer, err := q.remembered(ctx, "end dead letters", deadSettleScript, keys, args)
	if err != nil {
		return nil, err
	}
	if len(answer) != len(ends) || strings.Trim(answer, letterFates) != "" {
		return nil, q.malformed("end dead letters", answer)
	}
	return []LetterFate(answer), nil
}

// forgetKeys are the keys that dead_forget.lua names.
func (q *Queue) forgetKeys(c *Caller) []string {
	k := &q.keys
	keys := []string{k.Memo(c.name), k.Dead, k.Letters, k.DeadTasks, k.Hooks, k.Stats, k.Reviews}
	for _, r := range reasons {
		keys = append(keys, k.Why(r))
	}
	return keys
}

func (q *Queue) remembered(ctx context.Context, op string, script *redis.Script, keys []string, args []any) (string, error) {
	res, err := q.run(ctx, script, keys, args)
	if err != nil {
		return "", q.wrap(op, err)
	}
	answer, ok := res.(string)
	switch {
	case !ok:
		return "", q.malformed(op, res)
	case answer == "overtaken":
		return "", q.wrap(op, ErrOvertaken)
	}
	return answer, nil
}

// TrimLetters drops the oldest letters of a task over a count and an age, at most
// [MaxBatch], and returns how many it dropped and how many are left to drop.
// Negative limits are none.
func (q *Queue) TrimLetters(ctx context.Context, c *Caller, task string, count int, age time.Duration) (dropped, left int, err error) {
	maxAge := int64(-1)
	if age >= 0 {
		maxAge = ceilMillis(age)
	}
	answer, err := q.remembered(ctx, "trim dead letters", deadTrimScript,
		append(q.forgetKeys(c), q.keys.DeadTask(task), q.keys.TaskHooks(task)),
		[]any{c.call, memoTTL.Milliseconds(), task, max(count, -1), maxAge})
	if err != nil {
		return 0, 0, err
	}
	one, two, _ := strings.Cut(answer, ",")
	dropped, ok1 := digits(one)
	left, ok2 := digits(two)
	if !ok1 || !ok2 {
		return 0, 0, q.malformed("trim dead letters", answer)
	}
	return dropped, left, nil
}
