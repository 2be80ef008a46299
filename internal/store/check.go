package store

import (
	"context"
	_ "embed"
	"errors"
	"hash/maphash"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed lua/check_ids.lua
	checkIDsLua string
	//go:embed lua/check_look.lua
	checkLookLua string
	//go:embed lua/check_memo.lua
	checkMemoLua string
	//go:embed lua/check_mend.lua
	checkMendLua string
	//go:embed lua/check_mend_write.lua
	checkMendWriteLua string
	//go:embed lua/check_owner.lua
	checkOwnerLua string
	//go:embed lua/check_rest.lua
	checkRestLua string
	//go:embed lua/check_letter.lua
	checkLetterLua string
	//go:embed lua/check_task.lua
	checkTaskLua string

	checkIDsScript    = redis.NewScript(checkIDsLua)
	checkLookScript   = redis.NewScript(checkLookLua)
	checkMendScript   = redis.NewScript(checkMemoLua + checkMendLua + checkMendWriteLua)
	checkMovesScript  = redis.NewScript(checkMemoLua + "return moves()\n")
	checkOwnerScript  = redis.NewScript(checkMemoLua + checkOwnerLua)
	checkRestScript   = redis.NewScript(checkMemoLua + checkRestLua)
	checkLetterScript = redis.NewScript(checkMemoLua + checkLetterLua)
	checkTaskScript   = redis.NewScript(checkMemoLua + checkTaskLua)
)

// Damage is a kind of damage, as the scripts call it.
type Damage byte

// The kinds of damage.
const (
	NoPayload      Damage = 'x'
	NotIndexed     Damage = 'o'
	SeveralPlaces  Damage = 'm'
	StrayLedger    Damage = 'l'
	OwnerGone      Damage = 'g'
	NeverDue       Damage = 'd'
	BadCounter     Damage = 'c'
	BellTooLong    Damage = 'b'
	NoLetter       Damage = 'n'
	LetterMisfiled Damage = 'i'
	LetterAlive    Damage = 'j'
	TaskMislisted  Damage = 't'
	StrayHook      Damage = 'h'
)

const (
	// maxDue is the last ms of the year 9999, as in the envelope.
	maxDue = 253402300799999
	// checkGrace is the lease that a check gives a worker which has lost its own: time
	// to renew it, if it lives.
	checkGrace = 30 * time.Second
	// scanBytes bounds, about, what one step of reading a hash moves inside Redis.
	scanBytes = 1 << 20
	// walkBudget bounds the elements of ready that one call walks, unless for one job:
	// walking a million took Redis 7.0 from 10 to 20 ms.
	walkBudget = 1_000_000
	// ownerBudget bounds the owners' hashes that one call looks into.
	ownerBudget = 20_000
)

// A Check is what to do about a queue's damage. The functions read what is opaque here.
type Check struct {
	// By makes the calls that mend.
	By *Caller
	// Mend also mends what it finds.
	Mend bool
	// Found hears of each finding, once.
	Found func(d Damage, id string, mended bool)
	// Due says when the job of an envelope is due, ms, or 0.
	Due func(envelope string) int64
	// Letter says which task and reason an entry is of, and when it died, ms; ok is
	// false when it cannot be told.
	Letter func(entry string) (task, reason string, died int64, ok bool)
}

// A checker looks for structural damage of a queue that is in use. A suspect is what
// one step after the other, each of which sees a part of the queue, does not explain:
// jobs move between steps. A script then judges it by all places at one instant.
type checker struct {
	Check
	q *Queue
	// seed and ready: the ids that were seen in ready, hashed.
	seed   maphash.Seed
	ready  map[uint64]struct{}
	owners []string
	tasks  map[string]bool
	told   map[string]bool
}

// Check looks the queue through. What it has found before an error holds.
func (q *Queue) Check(ctx context.Context, o Check) error {
	c := q.checker(o)
	for _, step := range []func(context.Context) error{c.rest, c.lost, c.jobs, c.letters, c.deadTasks} {
		if err := step(ctx); err != nil {
			return q.wrap("check", err)
		}
	}
	return nil
}

func (q *Queue) checker(o Check) *checker {
	return &checker{
		Check: o, q: q, seed: maphash.MakeSeed(), ready: make(map[uint64]struct{}),
		tasks: make(map[string]bool), told: make(map[string]bool),
	}
}

// call runs a script that mends.
func (c *checker) call(ctx context.Context, s *redis.Script, keys []string, args ...any) (string, error) {
	c.By.Next()
	mend := ""
	if c.Mend {
		mend = "1"
	}
	k := &c.q.keys
	return c.q.remembered(ctx, "check", s, append([]string{k.Memo(c.By.name), k.Stats}, keys...),
		append([]any{c.By.call, memoTTL.Milliseconds(), mend}, args...))
}

// report takes a script's codes apart: one per id, of the kinds that the script finds.
func (c *checker) report(kinds, codes string, ids []string) (mended int, err error) {
	if len(codes) != len(ids) {
		return 0, c.q.malformed("check", codes)
	}
	for i := range ids {
		if codes[i] != '.' && strings.IndexByte(kinds, codes[i]|0x20) < 0 {
			return 0, c.q.malformed("check", codes)
		}
	}
	for i := range ids {
		if codes[i] == '.' {
			continue
		}
		kind := codes[i] | 0x20
		done := codes[i] != kind
		if done {
			mended++
		}
		if key := string(kind) + ids[i]; !c.told[key] {
			c.told[key] = true
			c.Found(Damage(kind), ids[i], done)
		}
	}
	return mended, nil
}

// counters are the fields of stats that hold numbers.
var counters = []Counter{
	Enqueued, Succeeded, Discarded, Retried, Snoozed, Crashed, Interrupted, Released,
	Died, Dropped, Requeued, Drained, Deleted, mended, "token",
}

// mended counts what checks have mended.
const mended Counter = "mended"

// rest checks the counters, the bell, and the times of delayed jobs.
func (c *checker) rest(ctx context.Context) error {
	k := &c.q.keys
	for offset := int64(0); ; {
		ids, err := c.q.rdb.ZRangeArgs(ctx, redis.ZRangeArgs{
			Key: k.Delayed, ByScore: true, Start: "(" + strconv.Itoa(maxDue), Stop: "+inf", Offset: offset, Count: MaxBatch,
		}).Result()
		if err != nil {
			return err
		}
		args, names := []any{maxDue, len(counters)}, []string{"bell"}
		for _, name := range counters {
			args, names = append(args, string(name)), append(names, string(name))
		}
		for _, id := range ids {
			due, err := c.due(ctx, id)
			if err != nil {
				return err
			}
			args = append(args, id, due)
		}
		codes, err := c.call(ctx, checkRestScript, []string{k.Bell, k.Delayed}, args...)
		if err != nil {
			return err
		}
		n, err := c.report("bcd", codes, append(names, ids...))
		if err != nil || len(ids) < MaxBatch {
			return err
		}
		if !c.Mend || n == 0 {
			offset += int64(len(ids))
		}
	}
}

// lost checks the owners' lists.
func (c *checker) lost(ctx context.Context) error {
	if err := c.list(ctx); err != nil {
		return err
	}
	k := &c.q.keys
	for names := range slices.Chunk(c.owners, MaxBatch) {
		keys, args := []string{k.Workers, k.Owners}, []any{checkGrace.Milliseconds()}
		for _, name := range names {
			keys, args = append(keys, k.Worker(name)), append(args, name)
		}
		codes, err := c.call(ctx, checkOwnerScript, keys, args...)
		if err != nil {
			return err
		}
		if _, err := c.report("g", codes, names); err != nil {
			return err
		}
	}
	return c.list(ctx) // without those that were forgotten
}

// list lists every worker that may own jobs.
func (c *checker) list(ctx context.Context) error {
	names := make(map[string]bool)
	for _, key := range []string{c.q.keys.Workers, c.q.keys.Owners} {
		if err := c.scanSorted(ctx, key, func(ids []string) error {
			for _, id := range ids {
				names[id] = true
			}
			return nil
		}); err != nil {
			return err
		}
	}
	c.owners = slices.Sorted(maps.Keys(names))
	return nil
}

func (c *checker) ownerKeys() []string {
	keys := make([]string, len(c.owners))
	for i, name := range c.owners {
		keys[i] = c.q.keys.Worker(name)
	}
	return keys
}

// scanSorted visits the members of a sorted set, in parts of at most [MaxBatch]. One
// that is there all the time is visited.
func (c *checker) scanSorted(ctx context.Context, key string, visit func(ids []string) error) error {
	return scanAll(visit, func(cursor uint64) ([]string, uint64, error) {
		part, next, err := c.q.rdb.ZScan(ctx, key, cursor, "", MaxBatch).Result()
		ids := make([]string, 0, len(part)/2)
		for i := 0; i < len(part); i += 2 {
			ids = append(ids, part[i])
		}
		return ids, next, err
	})
}

// scanHash visits the fields of a hash likewise. Redis reads what they hold, too, so
// the steps shrink where that is much.
func (c *checker) scanHash(ctx context.Context, key string, visit func(ids []string) error) error {
	count := int64(16)
	return scanAll(visit, func(cursor uint64) ([]string, uint64, error) {
		res, err := c.q.run(ctx, checkIDsScript, []string{key}, []any{strconv.FormatUint(cursor, 10), count})
		if err != nil {
			return nil, 0, err
		}
		r := readReply(res, 3)
		next, ids, bytes := r.cursor(), r.texts(), r.count()
		if r.bad {
			return nil, 0, c.q.malformed("check", res)
		}
		if bytes > scanBytes {
			count = max(1, count/2)
		} else if bytes < scanBytes/4 {
			count = min(MaxBatch, count*2)
		}
		return ids, next, nil
	})
}

func scanAll(visit func(ids []string) error, step func(cursor uint64) ([]string, uint64, error)) error {
	for cursor := uint64(0); ; {
		ids, next, err := step(cursor)
		if err != nil {
			return err
		}
		for part := range slices.Chunk(ids, MaxBatch) { // a small key comes whole
			if err := visit(part); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// due is when a delayed job with a time that cannot be is due: as its envelope says,
// or now (empty).
func (c *checker) due(ctx context.Context, id string) (string, error) {
	envelope, err := c.q.rdb.HGet(ctx, c.q.keys.Jobs, id).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", err
	}
	if at := c.Due(envelope); at > 0 && at <= maxDue {
		return strconv.FormatInt(at, 10), nil
	}
	return "", nil
}
