package store_test

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/store"
)

// A check calls many scripts; checks writes down one call of one of them, the nth
// from 0, of a check that mends or not.
func checks(script string, nth int, mend bool, want string, hurt func(s *stage)) func(*stage) {
	return func(s *stage) {
		s.t.Helper()
		s.only, s.skip = script, nth
		hurt(s)
		var found []string
		require.NoError(s.t, s.Check(s.t.Context(), store.Check{
			By: store.NewCaller("checker"), Mend: mend,
			Found: func(d store.Damage, id string, mended bool) {
				if kind := string(rune(d)); mended {
					found = append(found, strings.ToUpper(kind)+":"+id)
				} else {
					found = append(found, kind+":"+id)
				}
			},
			Due: func(envelope string) int64 {
				if envelope == "payload-late" {
					return s.ms(time.Minute)
				}
				return 0
			},
			Letter: func(entry string) (task, reason string, died int64, ok bool) {
				return "t", "exhausted", s.ms(-time.Minute), strings.HasPrefix(entry, "letter-")
			},
		}))
		require.Equal(s.t, want, strings.Join(found, " "))
	}
}

var kinds = regexp.MustCompile(`\b[a-z]:`)

// both are two scenes: of a check that looks, and of one that mends.
func both(name, script string, nth int, want string, hurt func(s *stage)) []scene {
	return []scene{
		{name + ": found", checks(script, nth, false, want, hurt)},
		{name + ": mended", checks(script, nth, true, kinds.ReplaceAllStringFunc(want, strings.ToUpper), hurt)},
	}
}

// sound is a queue with something in every place, and without damage.
func sound(s *stage) {
	s.ready("r")
	s.push(s.keys.Bell, 1)
	s.delayed(time.Minute, "d")
	s.owns("w1", s.us(-time.Second), "a")
	s.hset(s.keys.Worker("w1"), "#c0", "1:"+s.us(-time.Second))
	s.hset(s.keys.Ledger, "r", "ledger-r")
	s.buried("t", "exhausted", -time.Minute, "l")
	s.hooked("t", time.Minute, "l")
	s.hset(s.keys.Stats, "enqueued", 4, "token", s.us(-time.Second))
}

func init() {
	looks := func(name, script string, nth int) scene { return scene{name, checks(script, nth, false, "", sound)} }
	old := -time.Second

	scenes["check_ids"] = []scene{
		{"the first part of the hash, which is all of it", checks("check_ids", 0, false, "", func(s *stage) { s.owns("w1", s.us(old), "a") })},
		{"there is no such hash", checks("check_ids", 0, false, "", func(*stage) {})},
	}

	scenes["check_look"] = []scene{
		looks("a window of ready", "check_look", 0),
		looks("ids that are delayed", "check_look", 1),
		looks("ids that a worker owns", "check_look", 2),
		{"ready is empty", checks("check_look", 0, false, "", func(*stage) {})},
		{"in ready twice, in ready and delayed, without a payload", checks("check_look", 0, false, "m:a m:b x:c", func(s *stage) {
			s.ready("a", "a", "b")
			s.delayed(time.Minute, "b")
			s.push(s.keys.Ready, "c")
		})},
		{"owned by two", checks("check_look", 1, false, "m:a", func(s *stage) {
			s.owns("w1", s.us(2*old), "a")
			s.owns("w2", s.us(old), "a")
		})},
		{"in no place, with a payload", checks("check_look", 1, false, "o:a", func(s *stage) { s.payloads("a") })},
		{"in no place, without a payload", checks("check_look", 1, false, "l:a", func(s *stage) {
			s.hset(s.keys.Ledger, "a", "ledger-a")
		})},
	}

	scenes["check_moves"] = []scene{
		looks("jobs have not come back to ready", "check_moves", 0),
		{"each counter of a way back counts", checks("check_moves", 0, false, "", func(s *stage) {
			s.hset(s.keys.Stats, "retried", 1, "snoozed", 10, "crashed", 100, "interrupted", 1000,
				"released", 10_000, "requeued", 100_000, "mended", 1_000_000, "enqueued", 7)
		})},
		{"a counter that is no number", checks("check_moves", 0, false, "c:retried", func(s *stage) {
			s.hset(s.keys.Stats, "retried", "many")
		})},
	}

	mend := func(name, want string, hurt func(s *stage)) []scene { return both(name, "check_mend", 0, want, hurt) }
	scenes["check_mend"] = slices.Concat(
		mend("a payload in no place", "o:a o:b", func(s *stage) {
			sound(s)
			s.payloads("b")
			s.set(func(ctx context.Context, p redis.Pipeliner) { p.HDel(ctx, s.keys.Worker("w1"), "a") })
		}),
		mend("in several places of ready: the first stays", "m:a", func(s *stage) {
			s.ready("a", "b", "a")
		}),
		mend("ready and delayed: the delay stays", "m:a", func(s *stage) {
			s.ready("b", "a", "c")
			s.delayed(time.Minute, "a")
		}),
		mend("owned by two, and ready, and delayed: the last claim stays", "m:a", func(s *stage) {
			s.ready("a", "b")
			s.delayed(time.Minute, "a")
			s.owns("w1", s.us(old), "a")
			s.owns("w2", s.us(2*old), "a")
		}),
		mend("no payload, waiting", "x:a x:b", func(s *stage) {
			s.push(s.keys.Ready, "a", "a", "c")
			s.payloads("c")
			s.zadd(s.keys.Delayed, s.ms(time.Minute), "b")
			s.hset(s.keys.Ledger, "a", "ledger-a")
		}),
		mend("no payload, with a worker whose lease has lapsed", "x:a", func(s *stage) {
			s.lease(-time.Millisecond, "w1")
			s.hset(s.keys.Worker("w1"), "a", s.us(old))
		}),
		[]scene{{"no payload, with a live worker: it is left to the worker", checks("check_mend", 0, true, "x:a", func(s *stage) {
			s.lease(0, "w1")
			s.hset(s.keys.Worker("w1"), "a", s.us(old))
		})}},
		mend("only a ledger", "l:a", func(s *stage) { s.hset(s.keys.Ledger, "a", "ledger-a") }),
		[]scene{
			{"jobs have come back to ready since it was read: it is walked", func(s *stage) {
				s.ready("b", "a")
				s.hset(s.keys.Stats, "retried", 4)
				s.mends("3", "a")
			}},
			{"a worker came meanwhile: the answer is to list them anew", func(s *stage) {
				s.payloads("a")
				s.owns("w1", s.us(old), "b")
				s.mends("", "a")
			}},
			{"sent again: the answer of the first time", func(s *stage) {
				s.ready("a", "a")
				s.memo("5/7:M")
				s.mends("", "a")
			}},
			{"a later call of the checker was here", func(s *stage) {
				s.ready("a", "a")
				s.memo("6/7:M")
				s.mends("", "a")
			}},
			{"500 jobs", checks("check_mend", 0, true, "M:"+strings.Join(ids(500), " M:"), func(s *stage) {
				s.ready(ids(500)...)
				s.delayed(time.Minute, ids(500)...)
			})},
		},
	)

	owner := func(name, want string, hurt func(s *stage)) []scene { return both(name, "check_owner", 0, want, hurt) }
	scenes["check_owner"] = slices.Concat(
		[]scene{looks("a worker with a lease", "check_owner", 0)},
		owner("an owner without a lease", "g:w2", func(s *stage) {
			sound(s)
			s.zadd(s.keys.Owners, 0, "w2")
			s.payloads("b")
			s.hset(s.keys.Worker("w2"), "b", s.us(old), "#c0", "1:"+s.us(old))
		}),
		[]scene{
			{"a lapsed lease is a lease", checks("check_owner", 0, true, "", func(s *stage) {
				s.owns("w1", s.us(old), "a")
				s.lease(-time.Minute, "w1")
			})},
			{"an owner that owns nothing is forgotten", checks("check_owner", 0, true, "", func(s *stage) {
				s.zadd(s.keys.Owners, 0, "w1")
				s.hset(s.keys.Worker("w1"), "#c1", "1:"+s.us(old), "#s1", "call-1:")
			})},
			{"an owner that owns nothing, and nothing is mended", checks("check_owner", 0, false, "", func(s *stage) {
				s.zadd(s.keys.Owners, 0, "w1")
				s.hset(s.keys.Worker("w1"), "#c1", "1:"+s.us(old))
			})},
		},
	)

	rest := func(name, want string, hurt func(s *stage)) []scene { return both(name, "check_rest", 0, want, hurt) }
	scenes["check_rest"] = slices.Concat(
		[]scene{looks("nothing is wrong", "check_rest", 0)},
		rest("the bell is too long", "b:bell", func(s *stage) { s.push(s.keys.Bell, 1, 1, 1) }),
		rest("counters that are no numbers", "c:retried c:snoozed c:token", func(s *stage) {
			s.hset(s.keys.Stats, "enqueued", 5, "retried", "many", "snoozed", "1e3", "died", "-1", "token", "12345678901234567890")
		}),
		rest("jobs that are due after all time: as the envelope says, or now", "d:late d:x", func(s *stage) {
			s.delayed(time.Minute, "d")
			s.payloads("late", "x")
			s.zadd(s.keys.Delayed, 253402300800000, "late")
			s.zadd(s.keys.Delayed, 253402300800001, "x")
		}),
	)

	letter := func(name, want string, hurt func(s *stage)) []scene { return both(name, "check_letter", 0, want, hurt) }
	indexed := func(s *stage, died time.Duration, keys ...string) {
		s.hset(s.keys.Letters, "a", "letter-a")
		for _, key := range keys {
			s.zadd(key, s.ms(died), "a")
		}
	}
	scenes["check_letter"] = slices.Concat(
		[]scene{looks("a letter that is where it belongs", "check_letter", 0)},
		letter("a letter that is in no index", "i:a", func(s *stage) { indexed(s, 0) }),
		letter("a letter of another reason, and at another time", "i:a", func(s *stage) {
			k := &s.keys
			indexed(s, old, k.Dead, k.DeadTask("t"), k.Why("permanent"))
			s.zadd(k.Why("exhausted"), s.ms(2*old), "a")
			s.zadd(k.DeadTasks, 0, "t")
		}),
		letter("an entry that nobody can read stays with its task", "i:a", func(s *stage) {
			k := &s.keys
			indexed(s, old, k.Dead, k.DeadTask("u"))
			s.hset(k.Letters, "a", "unreadable")
			s.zadd(k.DeadTasks, 0, "u")
		}),
		both("indexes, a review and a hook without an entry", "check_letter", 1, "n:a", func(s *stage) {
			k := &s.keys
			s.buried("t", "exhausted", old, "b")
			s.hset(k.Reviews, "a", fmt.Sprintf("%d:token", s.ms(time.Minute)))
			s.zadd(k.Dead, s.ms(old), "a")
			s.zadd(k.DeadTask("t"), s.ms(old), "a")
			s.hooked("t", time.Minute, "a", "b")
		}),
		[]scene{{"a job, too: it is left", checks("check_letter", 0, true, "j:a", func(s *stage) {
			s.buried("t", "exhausted", old, "a")
			s.ready("a")
		})}},
	)

	task := func(name, want string, hurt func(s *stage)) []scene { return both(name, "check_task", 0, want, hurt) }
	scenes["check_task"] = slices.Concat(
		[]scene{looks("a task that is listed as it should be, and its hooks", "check_task", 0)},
		task("a task that has no letters", "t:t", func(s *stage) { s.zadd(s.keys.DeadTasks, 0, "t") }),
		task("hooks that are due sooner than their task says", "t:t", func(s *stage) {
			s.buried("t", "exhausted", old, "a")
			s.hooked("t", time.Second, "a")
			s.zadd(s.keys.Hooks, s.ms(time.Minute), "t")
		}),
		task("a hook that waits for what is no letter", "h:b", func(s *stage) {
			s.buried("t", "exhausted", old, "a")
			s.hooked("t", time.Second, "a")
			s.zadd(s.keys.TaskHooks("t"), s.ms(time.Minute), "b")
		}),
	)
}

// memo has the checker's last call remembered.
func (s *stage) memo(text string) {
	s.set(func(ctx context.Context, p redis.Pipeliner) { p.Set(ctx, s.keys.Memo("checker"), text, 10*time.Minute) })
}

// mends has one job judged, and mended, by the fifth call of the checker, which knows
// of no owners and has read ready when it had moved so often.
func (s *stage) mends(moved, id string) {
	k, sum := &s.keys, sha1.Sum([]byte("payload-"+id))
	s.raw("check_mend", []string{
		k.Memo("checker"), k.Stats, k.Jobs, k.Ready, k.Delayed, k.Ledger, k.Workers, k.Owners, k.Bell,
	}, 5, 600_000, 1, moved, 0, id, hex.EncodeToString(sum[:]))
}
