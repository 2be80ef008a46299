package store_test

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/store"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func (s *stage) lockKey(name string) string { return s.b.Prefix + ":lock:{report/ann}:" + name }

// holds has an owner hold the lock since then and until then.
func (s *stage) holds(owner string, since, until time.Duration) {
	s.t.Helper()
	s.zadd(s.lockKey("holders"), s.ms(until), owner)
	s.hset(s.lockKey("details"), owner, fmt.Sprintf("%s %d label of %s", s.us(since), s.ms(since), owner))
	s.set(func(ctx context.Context, p redis.Pipeliner) {
		p.Set(ctx, s.lockKey("fence"), s.us(since), time.Hour)
		p.Expire(ctx, s.lockKey("holders"), time.Minute)
		p.Expire(ctx, s.lockKey("details"), time.Minute)
	})
}

func init() {
	lock := func(s *stage) *store.Lock { return store.OpenLock(s.rdb, s.b.Prefix, "report", "ann") }
	acquires := func(s *stage, limit int) *store.Held {
		s.t.Helper()
		return call(s, func(ctx context.Context) (*store.Held, error) {
			_, held, err := lock(s).Acquire(ctx, "me", "host-1", 10*time.Second, limit)
			return held, err
		})
	}
	sec := time.Second
	scenes["lock_acquire"] = []scene{
		{"a lock that nobody has", func(s *stage) { require.Nil(s.t, acquires(s, 1)) }},
		{"another holds it", func(s *stage) {
			s.holds("other", -sec, 5*sec)
			require.Equal(s.t, "label of other", acquires(s, 1).Holder)
		}},
		{"the hold of another has lapsed", func(s *stage) {
			s.holds("other", -5*sec, 0)
			require.Nil(s.t, acquires(s, 1))
		}},
		{"the owner holds it: the same token, for longer", func(s *stage) {
			s.holds("me", -sec, 5*sec)
			require.Nil(s.t, acquires(s, 1))
		}},
		{"the owner's hold has lapsed: another token", func(s *stage) {
			s.holds("me", -20*sec, -sec)
			require.Nil(s.t, acquires(s, 1))
		}},
		{"the owner has released it: a late copy of the call gets nothing", func(s *stage) {
			s.hset(s.lockKey("details"), "#gone", "other=1 me=0 ")
			_, _, err := lock(s).Acquire(s.t.Context(), "me", "host-1", 10*sec, 1)
			require.ErrorIs(s.t, err, store.ErrReleased)
		}},
		{"a place is left for one of two", func(s *stage) {
			s.holds("other", -sec, 5*sec)
			require.Nil(s.t, acquires(s, 2))
		}},
		{"no place is left: the answer names who has it longest, and when the first lapses", func(s *stage) {
			s.holds("new", -sec, 2*sec)
			s.holds("old", -3*sec, 5*sec)
			require.Equal(s.t, "label of old", acquires(s, 2).Holder)
		}},
		{"a holder without details", func(s *stage) {
			s.zadd(s.lockKey("holders"), s.ms(sec), "other")
			require.Empty(s.t, acquires(s, 1).Holder)
		}},
		{"the last token is ahead of the clock: tokens do not go back", func(s *stage) {
			s.set(func(ctx context.Context, p redis.Pipeliner) { p.Set(ctx, s.lockKey("fence"), s.us(10*sec), time.Hour) })
			require.Nil(s.t, acquires(s, 1))
		}},
	}

	renews := func(s *stage, want bool) {
		s.t.Helper()
		require.Equal(s.t, want, call(s, func(ctx context.Context) (bool, error) { return lock(s).Renew(ctx, "me", 80*sec) }))
	}
	scenes["lock_renew"] = []scene{
		{"the owner holds it", func(s *stage) {
			s.holds("me", -sec, 5*sec)
			renews(s, true)
		}},
		{"a lapsed hold is not revived", func(s *stage) {
			s.holds("me", -20*sec, 0)
			renews(s, false)
		}},
		{"another has it", func(s *stage) {
			s.holds("other", -sec, 5*sec)
			renews(s, false)
		}},
	}

	releases := func(s *stage, want bool) {
		s.t.Helper()
		require.Equal(s.t, want, call(s, func(ctx context.Context) (bool, error) { return lock(s).Release(ctx, "me", 80*sec) }))
	}
	scenes["lock_release"] = []scene{
		{"the owner holds it", func(s *stage) {
			s.holds("me", -sec, 5*sec)
			releases(s, true)
		}},
		{"the hold has lapsed", func(s *stage) {
			s.holds("me", -20*sec, 0)
			releases(s, false)
		}},
		{"another has it", func(s *stage) {
			s.holds("other", -sec, 5*sec)
			releases(s, false)
		}},
		{"the owner has released it: the answer of the first time", func(s *stage) {
			s.holds("other", -sec, 5*sec)
			s.hset(s.lockKey("details"), "#gone", "me=1 ")
			releases(s, true)
		}},
		{"the last eight owners are remembered", func(s *stage) {
			s.holds("me", -sec, 5*sec)
			s.hset(s.lockKey("details"), "#gone", "a1=1 b2=1 c3=0 d4=1 e5=1 f6=1 g7=1 h8=1 ")
			releases(s, true)
		}},
	}

	effect := func(s *stage) (*store.Idempotency, *store.EffectClaim) {
		return store.OpenIdempotency(s.rdb), &store.EffectClaim{
			Prefix: s.b.Prefix, Task: "pay", Key: "order 7", Owner: "q/a", Attempt: 10, Fingerprint: "print",
			Fence: int64(s.clock) - 1e6, Lease: 30 * sec, TTL: 60 * sec,
		}
	}
	// record has the effect's record be that of the claim, with what fields change.
	record := func(s *stage, lease time.Duration, fields ...any) {
		s.t.Helper()
		key := store.IdempotencyKey(s.b.Prefix, "pay", "order 7")
		s.hset(key, "state", "running", "owner", "q/a", "attempt", 10, "fence", s.us(-sec), "lease", s.ms(lease), "print", "print")
		if len(fields) > 0 {
			s.hset(key, fields...)
		}
		s.set(func(ctx context.Context, p redis.Pipeliner) { p.Expire(ctx, key, 50*sec) })
	}
	done := func(s *stage, fields ...any) {
		s.t.Helper()
		record(s, 0, append([]any{"state", "done", "result", "result-a"}, fields...)...)
		s.set(func(ctx context.Context, p redis.Pipeliner) {
			p.HDel(ctx, store.IdempotencyKey(s.b.Prefix, "pay", "order 7"), "lease")
		})
	}
	claims := func(want store.EffectState, before func(s *stage)) func(s *stage) {
		return func(s *stage) {
			before(s)
			i, c := effect(s)
			require.Equal(s.t, want, call(s, func(ctx context.Context) (store.EffectState, error) {
				state, _, _, err := i.Claim(ctx, c)
				return state, err
			}))
		}
	}
	scenes["idem_claim"] = []scene{
		{"an effect that nobody knows", claims(store.EffectClaimed, func(*stage) {})},
		{"sent again, or the lease of the same attempt has lapsed: the claim holds", claims(store.EffectClaimed, func(s *stage) { record(s, -sec) })},
		{"an earlier attempt of the same job holds it: taken over", claims(store.EffectClaimed, func(s *stage) { record(s, sec, "attempt", 9) })},
		{"a later attempt of the same job holds it", claims(store.EffectOvertaken, func(s *stage) { record(s, sec, "attempt", 11) })},
		{"another job holds it", claims(store.EffectBusy, func(s *stage) { record(s, 0, "owner", "q/b") })},
		{"another job held it too long", claims(store.EffectClaimed, func(s *stage) { record(s, -time.Millisecond, "owner", "q/b") })},
		{"the last fence is ahead of the clock: fences do not go back", claims(store.EffectClaimed, func(s *stage) {
			record(s, -sec, "owner", "q/b", "fence", s.us(time.Minute))
		})},
		{"it is done", claims(store.EffectDone, func(s *stage) { done(s, "owner", "q/b") })},
		{"it is done, and no result is kept", claims(store.EffectDoneBare, func(s *stage) { done(s, "state", "bare", "result", "too large") })},
		{"it is done with other arguments", claims(store.EffectReused, func(s *stage) { done(s, "print", "another") })},
		{"another job runs it with other arguments", claims(store.EffectReused, func(s *stage) {
			record(s, sec, "owner", "q/b", "print", "another")
		})},
		{"the same job ran it with other arguments: a new version of its code", claims(store.EffectClaimed, func(s *stage) {
			record(s, sec, "attempt", 9, "print", "another")
		})},
	}

	type step = func(*store.Idempotency, context.Context, *store.EffectClaim) (bool, error)
	fenced := func(f step, want bool, before func(s *stage)) func(s *stage) {
		return func(s *stage) {
			before(s)
			i, c := effect(s)
			require.Equal(s.t, want, call(s, func(ctx context.Context) (bool, error) { return f(i, ctx, c) }))
		}
	}
	// held is what f says of a claim that is the record's, done what it says of one
	// that is done.
	steps := func(f step, held, whenDone bool) []scene {
		return []scene{
			{"the claim is the record's", fenced(f, held, func(s *stage) { record(s, sec) })},
			{"its lease has lapsed, and nobody took it over", fenced(f, held, func(s *stage) { record(s, -sec) })},
			{"there is no record", fenced(f, false, func(*stage) {})},
			{"another job has it", fenced(f, false, func(s *stage) { record(s, sec, "owner", "q/b") })},
			{"a later attempt has it", fenced(f, false, func(s *stage) { record(s, sec, "attempt", 11) })},
			{"a later claim has it", fenced(f, false, func(s *stage) { record(s, sec, "fence", s.us(0)) })},
			{"it is done", fenced(f, whenDone, func(s *stage) { done(s) })},
		}
	}
	complete := func(result []byte, why string) step {
		return func(i *store.Idempotency, ctx context.Context, c *store.EffectClaim) (bool, error) {
			return i.Complete(ctx, c, result, why)
		}
	}
	release := func(i *store.Idempotency, ctx context.Context, c *store.EffectClaim) (bool, error) {
		return false, i.Release(ctx, c) // it does not say
	}
	scenes["idem_extend"] = steps((*store.Idempotency).Extend, true, false)
	scenes["idem_complete"] = append(steps(complete([]byte("result-a"), ""), true, true),
		scene{"without a result", fenced(complete(nil, "too large"), true, func(s *stage) { record(s, sec) })})
	scenes["idem_release"] = steps(release, false, false)
}
