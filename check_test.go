package redrive_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
	"github.com/redrive-go/redrive/internal/wire"
)

// hospital is a queue with something in every place: jobs r0 to r5 are ready, d0 and
// d1 delayed, a0 and a1 with a worker that is gone, l0 to l2 are dead letters.
type hospital struct {
	*rig
	store *store.Queue
}

var ward = redrive.NewTask[number, redrive.None]("ward", redrive.TaskOptions{})

func newHospital(t *testing.T, b *redistest.Backend) *hospital {
	h := &hospital{rig: newRig(t, b)}
	h.store = store.Open(h.rdb, b.Prefix, "default")
	ctx := h.ctx()
	h.add("a0", 0)
	h.add("a1", 0)
	for n := range 3 {
		h.add(fmt.Sprint("l", n), 0)
	}
	_, err := h.store.Beat(ctx, "ghost", time.Hour)
	require.NoError(t, err)
	c, err := h.store.Claim(ctx, store.ClaimCall{Worker: "ghost", Call: 1, N: 5})
	require.NoError(t, err)
	require.Len(t, c.Jobs, 5)
	var burials []store.Burial
	for _, j := range c.Jobs[2:] {
		letter := wire.DeadLetter{TaskName: "ward", TaskID: j.ID, Queue: "default", Reason: "exhausted", Error: "x", Timestamp: time.UnixMilli(1_700_000_000_000)}
		burials = append(burials, store.Burial{
			Owned: store.Owned{ID: j.ID, Token: j.Token}, Task: "ward", Reason: "exhausted", Entry: letter.Append(nil), Hook: true,
		})
	}
	_, err = h.store.Bury(ctx, store.Settler{Worker: "ghost", Call: "1"}, burials)
	require.NoError(t, err)
	for n := range 6 {
		h.add(fmt.Sprint("r", n), 0)
	}
	h.add("d0", time.Hour)
	h.add("d1", time.Hour)
	require.NoError(t, h.rdb.HSet(ctx, h.key("ledger"), "r0", `{"v":1,"r":1}`, "a1", `{"v":1,"r":1}`).Err())
	return h
}

func (h *hospital) key(name string) string { return h.b.Prefix + ":{default}:" + name }

func (h *hospital) add(id string, delay time.Duration) {
	h.t.Helper()
	_, err := ward.Enqueue(h.ctx(), h.client, number{}, &redrive.EnqueueOptions{ID: id, Delay: delay})
	require.NoError(h.t, err)
}

func (h *hospital) check(repair bool) redrive.CheckReport {
	h.t.Helper()
	report, err := h.client.Check(h.ctx(), "default", repair)
	require.NoError(h.t, err)
	return report
}

// dump reads everything under the prefix but what remembers calls.
func (h *hospital) dump() map[string]any {
	h.t.Helper()
	ctx, out := h.ctx(), make(map[string]any)
	for _, key := range h.b.Keys() {
		switch typ := h.rdb.Type(ctx, key).Val(); {
		case strings.HasPrefix(key, h.key("m:")), strings.HasPrefix(key, h.key("p:")):
		case typ == "hash":
			out[key] = h.rdb.HGetAll(ctx, key).Val()
		case typ == "zset":
			out[key] = h.rdb.ZRangeWithScores(ctx, key, 0, -1).Val()
		case typ == "list":
			out[key] = h.rdb.LRange(ctx, key, 0, -1).Val()
		default:
			h.t.Fatalf("unexpected %s %s", typ, key)
		}
	}
	return out
}

// drain runs all that is there and returns how often each job ran. Delays end first,
// and other workers leave.
func (h *hospital) drain() map[string]int {
	h.t.Helper()
	ctx := h.ctx()
	for _, z := range h.rdb.ZRangeWithScores(ctx, h.key("delayed"), 0, -1).Val() {
		require.NoError(h.t, h.rdb.ZAdd(ctx, h.key("delayed"), redis.Z{Member: z.Member}).Err())
	}
	for _, w := range h.rdb.ZRange(ctx, h.key("workers"), 0, -1).Val() {
		_, err := h.store.Leave(ctx, w)
		require.NoError(h.t, err)
	}
	var mu sync.Mutex
	runs := make(map[string]int)
	mux := redrive.NewMux()
	ward.Handle(mux, redrive.NoResult(func(_ context.Context, j *redrive.Job[number]) error {
		mu.Lock()
		defer mu.Unlock()
		runs[j.ID]++
		return nil
	}))
	w := h.start(mux, redrive.WorkerOptions{})
	h.drained()
	require.NoError(h.t, w.stop())
	h.b.Audit()
	return runs
}

type damaged map[redrive.Damage][]string

// injuries damage a hospital by hand. left is what a repair leaves undone; lost are
// the jobs that cannot run any more.
var injuries = map[string]struct {
	hurt func(h *hospital, rdb redis.UniversalClient, ctx context.Context) error
	want damaged
	left damaged
	lost []string
}{
	"payloads are gone": {
		hurt: func(h *hospital, rdb redis.UniversalClient, ctx context.Context) error {
			return rdb.HDel(ctx, h.key("jobs"), "r0", "r3", "d0").Err()
		},
		want: damaged{redrive.DamageNoPayload: {"r0", "r3", "d0"}},
		lost: []string{"r0", "r3", "d0"},
	},
	"a payload of a dead worker is gone": {
		hurt: func(h *hospital, rdb redis.UniversalClient, ctx context.Context) error {
			if err := rdb.ZAdd(ctx, h.key("workers"), redis.Z{Member: "ghost", Score: 1}).Err(); err != nil {
				return err
			}
			return rdb.HDel(ctx, h.key("jobs"), "a1").Err()
		},
		want: damaged{redrive.DamageNoPayload: {"a1"}},
		lost: []string{"a1"},
	},
	"ready is gone": {
		hurt: func(h *hospital, rdb redis.UniversalClient, ctx context.Context) error {
			return rdb.Del(ctx, h.key("ready"), h.key("bell")).Err()
		},
		want: damaged{redrive.DamageNotIndexed: {"r0", "r1", "r2", "r3", "r4", "r5"}},
	},
	"places are gone one by one": {
		hurt: func(h *hospital, rdb redis.UniversalClient, ctx context.Context) error {
			_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
				p.LRem(ctx, h.key("ready"), 0, "r2")
				p.ZRem(ctx, h.key("delayed"), "d1")
				p.HDel(ctx, h.key("w:ghost"), "a0")
				return nil
			})
			return err
		},
		want: damaged{redrive.DamageNotIndexed: {"r2", "d1", "a0"}},
	},
	"jobs are in several places": {
		hurt: func(h *hospital, rdb redis.UniversalClient, ctx context.Context) error {
			_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
				p.RPush(ctx, h.key("ready"), "r1", "d0", "a0", "r1")
				p.ZAdd(ctx, h.key("delayed"), redis.Z{Member: "a1", Score: 4e12 + 1})
				p.ZAdd(ctx, h.key("workers"), redis.Z{Member: "other", Score: 4e12 + 1})
				p.HSet(ctx, h.key("w:other"), "a0", "17")
				return nil
			})
			return err
		},
		want: damaged{redrive.DamageSeveralPlaces: {"r1", "d0", "a0", "a1"}},
	},
	"an owner is gone": {
		hurt: func(h *hospital, rdb redis.UniversalClient, ctx context.Context) error {
			return rdb.Del(ctx, h.key("workers")).Err()
		},
		want: damaged{redrive.DamageOwnerGone: {"ghost"}},
	},
	"ledgers are left": {
		hurt: func(h *hospital, rdb redis.UniversalClient, ctx context.Context) error {
			return rdb.HSet(ctx, h.key("ledger"), "x0", "{}", "l1", "{}").Err()
		},
		want: damaged{redrive.DamageStrayLedger: {"x0", "l1"}},
	},
	"jobs are never due": {
		hurt: func(h *hospital, rdb redis.UniversalClient, ctx context.Context) error {
			return rdb.Do(ctx, "ZADD", h.key("delayed"), "+inf", "d0", "1.7e15", "d1").Err()
		},
		want: damaged{redrive.DamageNeverDue: {"d0", "d1"}},
	},
	"counters and bell are wrong": {
		hurt: func(h *hospital, rdb redis.UniversalClient, ctx context.Context) error {
			_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
				p.HSet(ctx, h.key("stats"), "enqueued", "many", "token", "none", "retried", "1.5")
				p.RPush(ctx, h.key("bell"), 1, 1, 1)
				return nil
			})
			return err
		},
		want: damaged{redrive.DamageBadCounter: {"enqueued", "token", "retried"}, redrive.DamageBell: {"bell"}},
	},
	"an entry of a dead letter is gone": {
		hurt: func(h *hospital, rdb redis.UniversalClient, ctx context.Context) error {
			if err := rdb.HSet(ctx, h.key("reviews"), "x1", "1:me").Err(); err != nil {
				return err
			}
			return rdb.HDel(ctx, h.key("letters"), "l1").Err()
		},
		want: damaged{redrive.DamageNoLetter: {"l1", "x1"}, redrive.DamageStrayHook: nil},
	},
	"dead letters are misfiled": {
		hurt: func(h *hospital, rdb redis.UniversalClient, ctx context.Context) error {
			_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
				p.ZRem(ctx, h.key("dead"), "l0")
				p.ZAdd(ctx, h.key("why:permanent"), redis.Z{Member: "l1", Score: 5})
				p.ZRem(ctx, h.key("dead:ward"), "l2")
				p.ZAdd(ctx, h.key("dead:other"), redis.Z{Member: "l2", Score: 5})
				p.ZAdd(ctx, h.key("deadtasks"), redis.Z{Member: "other"})
				return nil
			})
			return err
		},
		want: damaged{redrive.DamageLetterMisfiled: {"l0", "l1", "l2"}, redrive.DamageStrayHook: nil, redrive.DamageTaskMislisted: nil},
	},
	"the indexes of dead letters are gone": {
		hurt: func(h *hospital, rdb redis.UniversalClient, ctx context.Context) error {
			for _, key := range []string{"dead", "dead:ward", "why:exhausted", "deadtasks"} {
				if err := rdb.Del(ctx, h.key(key)).Err(); err != nil {
					return err
				}
			}
			return nil
		},
		want: damaged{redrive.DamageLetterMisfiled: {"l0", "l1", "l2"}, redrive.DamageStrayHook: nil, redrive.DamageTaskMislisted: nil},
	},
	"an entry cannot be read": {
		hurt: func(h *hospital, rdb redis.UniversalClient, ctx context.Context) error {
			if err := rdb.HSet(ctx, h.key("letters"), "l1", "{{{").Err(); err != nil {
				return err
			}
			return rdb.HSet(ctx, h.key("letters"), "stranger", "{{{").Err()
		},
		want: damaged{redrive.DamageLetterMisfiled: {"stranger"}},
	},
	"tasks and hooks are mislisted": {
		hurt: func(h *hospital, rdb redis.UniversalClient, ctx context.Context) error {
			_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
				p.ZAdd(ctx, h.key("deadtasks"), redis.Z{Member: "never"})
				p.ZAdd(ctx, h.key("hooks"), redis.Z{Member: "ward", Score: 5})
				p.ZAdd(ctx, h.key("hooks:ward"), redis.Z{Member: "x2", Score: 7})
				return nil
			})
			return err
		},
		want: damaged{redrive.DamageTaskMislisted: {"never", "ward"}, redrive.DamageStrayHook: {"x2"}},
	},
	"a dead letter lives": {
		hurt: func(h *hospital, rdb redis.UniversalClient, ctx context.Context) error {
			_, err := rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
				p.HSet(ctx, h.key("jobs"), "l0", `{"v":1,"task":"ward","args":{"N":1}}`)
				p.RPush(ctx, h.key("ready"), "l0")
				return nil
			})
			return err
		},
		want: damaged{redrive.DamageLetterAlive: {"l0"}},
		left: damaged{redrive.DamageLetterAlive: {"l0"}},
	},
}

// matches compares a report with what it should say; no ids are any.
func (d damaged) matches(t *testing.T, r redrive.CheckReport) {
	t.Helper()
	for _, f := range r.Findings {
		ids, ok := d[f.Damage]
		require.True(t, ok, "%s", r)
		if ids != nil {
			require.ElementsMatch(t, ids, f.IDs, "%s", r)
			require.Equal(t, len(ids), f.Found)
		}
	}
	for damage, ids := range d {
		require.True(t, ids == nil || r.Finding(damage).Found > 0, "%s is not found: %s", damage, r)
	}
}

func TestCheckFindsEachKindOfDamageAndMendsIt(t *testing.T) {
	t.Parallel()
	for name, c := range injuries {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
				h := newHospital(t, b)
				report := h.check(true)
				require.True(t, report.Sound(), "%s", report)

				require.NoError(t, c.hurt(h, h.rdb, h.ctx()))
				before := h.dump()
				report = h.check(false)
				c.want.matches(t, report)
				for _, f := range report.Findings {
					require.Zero(t, f.Mended, "%s", report)
				}
				require.Equal(t, before, h.dump(), "a check without repair changed something")

				report = h.check(true)
				c.want.matches(t, report)
				for _, f := range report.Findings {
					if c.left[f.Damage] == nil {
						require.Equal(t, f.Found, f.Mended, "%s", report)
					}
				}
				if c.left == nil {
					b.Audit()
				}
				mended := h.dump()
				c.left.matches(t, h.check(true))
				require.Equal(t, mended, h.dump(), "a second repair changed something")

				want := map[string]int{"a0": 1, "a1": 1, "d0": 1, "d1": 1}
				for n := range 6 {
					want[fmt.Sprint("r", n)] = 1
				}
				for _, id := range slices.Concat(c.lost) {
					delete(want, id)
				}
				if c.left != nil {
					want["l0"] = 1
				}
				require.Equal(t, want, h.drain())
				report = h.check(true)
				require.True(t, report.Sound(), "%s", report)
			})
		})
	}
}

func TestEveryKindOfDamageIsTested(t *testing.T) {
	t.Parallel()
	seen := make(damaged)
	for _, c := range injuries {
		maps.Copy(seen, c.want)
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(seen)), []redrive.Damage{
		redrive.DamageNoPayload, redrive.DamageNotIndexed, redrive.DamageSeveralPlaces, redrive.DamageStrayLedger,
		redrive.DamageOwnerGone, redrive.DamageNeverDue, redrive.DamageBadCounter, redrive.DamageBell,
		redrive.DamageNoLetter, redrive.DamageLetterMisfiled, redrive.DamageLetterAlive,
		redrive.DamageTaskMislisted, redrive.DamageStrayHook,
	})
}
