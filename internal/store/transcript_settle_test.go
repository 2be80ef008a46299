package store_test

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/store"
)

// A settle ends jobs of worker w1 with one of the three scripts. Each job of the
// scene names is ended in the script's plainest way.
type settle func(s *stage, by store.Settler, jobs ...store.Owned) store.Settled

func finish(s *stage, by store.Settler, jobs ...store.Owned) store.Settled {
	s.t.Helper()
	done := make([]store.Done, len(jobs))
	for i, j := range jobs {
		done[i] = store.Done{Owned: j}
	}
	return call(s, func(ctx context.Context) (store.Settled, error) { return s.Finish(ctx, by, store.Succeeded, done) })
}

func putback(s *stage, by store.Settler, jobs ...store.Owned) store.Settled {
	s.t.Helper()
	back := make([]store.Putback, len(jobs))
	for i, j := range jobs {
		back[i] = store.Putback{Owned: j, Delay: time.Minute, Ledger: []byte("ledger-" + j.ID), Counter: store.Retried}
	}
	return s.putsBack(by, back...)
}

func (s *stage) putsBack(by store.Settler, jobs ...store.Putback) store.Settled {
	s.t.Helper()
	return call(s, func(ctx context.Context) (store.Settled, error) { return s.Putback(ctx, by, jobs) })
}

func bury(s *stage, by store.Settler, jobs ...store.Owned) store.Settled {
	s.t.Helper()
	burials := make([]store.Burial, len(jobs))
	for i, j := range jobs {
		burials[i] = burial(j, "t", "exhausted", false)
	}
	return s.buries(by, burials...)
}

func burial(j store.Owned, task, reason string, hook bool) store.Burial {
	return store.Burial{Owned: j, Task: task, Reason: reason, Entry: []byte("letter-" + j.ID), Hook: hook}
}

func (s *stage) buries(by store.Settler, jobs ...store.Burial) store.Settled {
	s.t.Helper()
	return call(s, func(ctx context.Context) (store.Settled, error) { return s.Bury(ctx, by, jobs) })
}

var w1 = store.Settler{Worker: "w1", Call: "call-9"}

// fenced are the scenes that the fence of every settling script has.
func fenced(f settle) []scene {
	old := -time.Second
	return []scene{
		{"jobs that the worker owns; a ledger is there", func(s *stage) {
			s.owns("w1", s.us(old), "a", "b", "c")
			s.hset(s.keys.Ledger, "a", "old ledger", "c", "ledger-c")
			require.Empty(s.t, f(s, w1, owned(s.us(old), "a", "b")...).Refused)
		}},
		{"a token that is not current is refused, and so is a job that is gone", func(s *stage) {
			s.owns("w1", s.us(old), "a", "b", "c")
			jobs := append(owned(s.us(2*old), "b"), owned(s.us(old), "a", "gone")...)
			require.Equal(s.t, []int{0, 2}, f(s, w1, jobs...).Refused)
		}},
		{"a job of another worker is refused", func(s *stage) {
			s.owns("w2", s.us(old), "a")
			s.lease(30*time.Second, "w1")
			require.Equal(s.t, []int{0}, f(s, w1, owned(s.us(old), "a")...).Refused)
		}},
		{"sent again: the answer of the first time", func(s *stage) {
			s.owns("w1", s.us(old), "c")
			s.hset(s.keys.Worker("w1"), "#s0", "call-9:1,")
			require.Equal(s.t, []int{1}, f(s, w1, owned(s.us(old), "a", "b")...).Refused)
		}},
		{"the lane remembers its last call only; the other lane has its own memory", func(s *stage) {
			s.owns("w1", s.us(old), "a")
			s.hset(s.keys.Worker("w1"), "#s0", "call-7:", "#s1", "call-8:")
			by := w1
			by.Lane = 1
			f(s, by, owned(s.us(old), "a")...)
		}},
		{"the lease of the worker does not matter to itself", func(s *stage) {
			s.owns("w1", s.us(old), "a")
			s.lease(old, "w1")
			require.Empty(s.t, f(s, w1, owned(s.us(old), "a")...).Refused)
		}},
		{"a worker that neither list names is refused", func(s *stage) {
			s.payloads("a")
			s.hset(s.keys.Worker("w1"), "a", s.us(old))
			require.Equal(s.t, []int{0}, f(s, w1, owned(s.us(old), "a")...).Refused)
		}},
		{"a worker whose lease was lost, and that is listed as an owner", func(s *stage) {
			s.zadd(s.keys.Owners, 0, "w1")
			s.payloads("a")
			s.hset(s.keys.Worker("w1"), "a", s.us(old))
			require.Empty(s.t, f(s, w1, owned(s.us(old), "a")...).Refused)
		}},
		{"another reaps, and the lease was lost", func(s *stage) {
			s.zadd(s.keys.Owners, 0, "w1")
			s.payloads("a")
			s.hset(s.keys.Worker("w1"), "a", s.us(old))
			by := w1
			by.Reap = true
			require.Equal(s.t, []int{0}, f(s, by, owned(s.us(old), "a")...).Refused)
		}},
		{"another reaps, and the lease has lapsed", func(s *stage) {
			s.owns("w1", s.us(old), "a", "b")
			s.lease(-time.Millisecond, "w1")
			by := w1
			by.Reap = true
			require.Empty(s.t, f(s, by, owned(s.us(old), "a", "b")...).Refused)
		}},
		{"another reaps, and the lease holds after all", func(s *stage) {
			s.owns("w1", s.us(old), "a", "b")
			s.lease(0, "w1")
			by := w1
			by.Reap = true
			require.Equal(s.t, []int{0, 1}, f(s, by, owned(s.us(old), "a", "b")...).Refused)
		}},
		{"a job without a payload", func(s *stage) {
			s.lease(30*time.Second, "w1")
			s.hset(s.keys.Worker("w1"), "a", s.us(old))
			require.Empty(s.t, f(s, w1, owned(s.us(old), "a")...).Refused)
		}},
		{"500 jobs", func(s *stage) {
			s.owns("w1", s.us(old), ids(500)...)
			require.Empty(s.t, f(s, w1, owned(s.us(old), ids(500)...)...).Refused)
		}},
	}
}

// andClaim are the scenes in which the same call claims.
func andClaim(f settle) []scene {
	old := -time.Second
	next := func(n int) store.Settler {
		by := w1
		by.Lane, by.Next = 1, &store.ClaimCall{Worker: "w1", Lane: 1, Call: 4, N: n}
		return by
	}
	return []scene{
		{"a job ends, the next ones begin", func(s *stage) {
			s.owns("w1", s.us(old), "a")
			s.ready("b", "c", "d")
			require.Len(s.t, f(s, next(2), owned(s.us(old), "a")...).Claimed.Jobs, 2)
		}},
		{"nothing waits", func(s *stage) {
			s.owns("w1", s.us(old), "a", "x")
			require.Empty(s.t, f(s, next(1), owned(s.us(old), "a")...).Claimed.Jobs)
		}},
		{"the job is refused, the next one begins", func(s *stage) {
			s.owns("w1", s.us(old), "a")
			s.ready("b")
			got := f(s, next(1), owned(s.us(2*old), "a")...)
			require.Equal(s.t, []int{0}, got.Refused)
			require.Len(s.t, got.Claimed.Jobs, 1)
		}},
		{"one of the next jobs has a ledger", func(s *stage) {
			s.owns("w1", s.us(old), "a")
			s.ready("b", "c")
			s.hset(s.keys.Ledger, "a", "old ledger", "c", "ledger-c")
			require.Equal(s.t, "ledger-c", f(s, next(2), owned(s.us(old), "a")...).Claimed.Jobs[1].Ledger)
		}},
		{"the job that ends has the only ledger", func(s *stage) {
			s.owns("w1", s.us(old), "a")
			s.ready("b")
			s.hset(s.keys.Ledger, "a", "old ledger")
			require.Len(s.t, f(s, next(1), owned(s.us(old), "a")...).Claimed.Jobs, 1)
		}},
		{"the queue is paused: the job ends all the same", func(s *stage) {
			s.owns("w1", s.us(old), "a")
			s.ready("b")
			s.hset(s.keys.Stats, "paused", 1)
			require.Equal(s.t, store.ClaimPaused, f(s, next(1), owned(s.us(old), "a")...).Claimed.State)
		}},
		{"the lease has lapsed: the job ends, none begins", func(s *stage) {
			s.owns("w1", s.us(old), "a")
			s.ready("b")
			s.lease(old, "w1")
			require.Equal(s.t, store.ClaimLapsed, f(s, next(1), owned(s.us(old), "a")...).Claimed.State)
		}},
		{"sent again: both answers of the first time", func(s *stage) {
			s.owns("w1", s.us(old), "b")
			s.ready("c")
			s.hset(s.keys.Worker("w1"), "#s1", "call-9:", "#c1", "4:"+s.us(old))
			require.Len(s.t, f(s, next(1), owned(s.us(2*old), "a")...).Claimed.Jobs, 1)
		}},
	}
}

func init() {
	old := -time.Second
	scenes["finish"] = append(fenced(finish),
		scene{"results are kept for a while, and published", func(s *stage) {
			s.owns("w1", s.us(old), "a", "b", "c")
			jobs := []store.Done{
				{Owned: store.Owned{ID: "a", Token: s.us(old)}, Result: []byte("result-a"), TTL: time.Minute},
				{Owned: store.Owned{ID: "b", Token: s.us(old)}},
				{Owned: store.Owned{ID: "c", Token: s.us(old)}, Result: []byte{}, TTL: time.Hour},
				{Owned: store.Owned{ID: "d", Token: s.us(old)}, Result: []byte("refused"), TTL: time.Hour},
			}
			call(s, func(ctx context.Context) (store.Settled, error) { return s.Finish(ctx, w1, store.Discarded, jobs) })
		}},
		scene{"of a job whose token is refused, no result is kept", func(s *stage) {
			s.owns("w1", s.us(old), "a", "b")
			jobs := []store.Done{
				{Owned: store.Owned{ID: "a", Token: s.us(2 * old)}, Result: []byte("refused"), TTL: time.Hour},
				{Owned: store.Owned{ID: "b", Token: s.us(old)}, Result: []byte("result-b"), TTL: time.Minute},
			}
			call(s, func(ctx context.Context) (store.Settled, error) { return s.Finish(ctx, w1, store.Succeeded, jobs) })
		}})
	scenes["finish_and_claim"] = append(andClaim(finish),
		scene{"a result is kept", func(s *stage) {
			s.owns("w1", s.us(old), "a")
			s.ready("b")
			by := w1
			by.Next = &store.ClaimCall{Worker: "w1", Call: 4, N: 1}
			jobs := []store.Done{{Owned: store.Owned{ID: "a", Token: s.us(old)}, Result: []byte("result-a"), TTL: time.Minute}}
			call(s, func(ctx context.Context) (store.Settled, error) { return s.Finish(ctx, by, store.Succeeded, jobs) })
		}})

	job := func(s *stage, id string) store.Owned { return store.Owned{ID: id, Token: s.us(old)} }
	scenes["putback"] = append(fenced(putback),
		scene{"to the front, to the end, and later, each with its counter", func(s *stage) {
			s.ready("x")
			s.owns("w1", s.us(old), "a", "b", "c", "d", "e", "f")
			s.hset(s.keys.Ledger, "a", "old ledger", "b", "old ledger")
			s.putsBack(w1,
				store.Putback{Owned: job(s, "a"), Front: true, Counter: store.Interrupted},
				store.Putback{Owned: job(s, "b"), Front: true, Counter: store.Interrupted, Ledger: []byte("ledger-b")},
				store.Putback{Owned: job(s, "c"), Counter: store.Retried, Ledger: []byte("ledger-c")},
				store.Putback{Owned: job(s, "d"), Delay: -time.Second, Counter: store.Crashed, Ledger: []byte("ledger-d")},
				store.Putback{Owned: job(s, "e"), Delay: time.Nanosecond, Counter: store.Snoozed, Ledger: []byte("ledger-e")},
				store.Putback{Owned: job(s, "f"), Delay: time.Hour, Counter: store.Retried})
		}},
		scene{"a delayed job that is not the next rings no bell", func(s *stage) {
			s.delayed(time.Second, "x")
			s.owns("w1", s.us(old), "a")
			putback(s, w1, job(s, "a"))
		}},
		scene{"the bell rings already", func(s *stage) {
			s.push(s.keys.Bell, 1)
			s.owns("w1", s.us(old), "a")
			s.putsBack(w1, store.Putback{Owned: job(s, "a"), Front: true, Counter: store.Released})
		}})
	scenes["putback_and_claim"] = append(andClaim(putback),
		scene{"a job that is put to the front begins again", func(s *stage) {
			s.owns("w1", s.us(old), "a")
			by := w1
			by.Next = &store.ClaimCall{Worker: "w1", Call: 4, N: 1}
			s.putsBack(by, store.Putback{Owned: job(s, "a"), Front: true, Counter: store.Interrupted})
		}})

	scenes["bury"] = append(fenced(bury),
		scene{"of several tasks and reasons", func(s *stage) {
			s.owns("w1", s.us(old), "a", "b", "c")
			s.buried("t", "permanent", -time.Minute, "x")
			s.buries(w1,
				burial(job(s, "a"), "t", "exhausted", false),
				burial(job(s, "b"), "u", "malformed", false),
				burial(job(s, "c"), "t", "malformed", false))
		}},
		scene{"a hook must hear of it", func(s *stage) {
			s.owns("w1", s.us(old), "a", "b")
			s.buries(w1, burial(job(s, "a"), "t", "exhausted", true), burial(job(s, "b"), "t", "exhausted", false))
		}},
		scene{"hooks of the task wait already, one for now and one for later", func(s *stage) {
			s.buried("t", "exhausted", -time.Minute, "x")
			s.hooked("t", 10*time.Second, "x")
			s.buried("u", "exhausted", -time.Minute, "y")
			s.hooked("u", -10*time.Second, "y")
			s.owns("w1", s.us(old), "a", "b")
			s.buries(w1, burial(job(s, "a"), "t", "exhausted", true), burial(job(s, "b"), "u", "exhausted", true))
		}})
	scenes["bury_and_claim"] = andClaim(bury)
}
