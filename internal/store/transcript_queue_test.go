package store_test

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/store"
)

// newJobs are jobs to enqueue at once.
func newJobs(ids ...string) []store.NewJob {
	jobs := make([]store.NewJob, len(ids))
	for i, id := range ids {
		jobs[i] = store.NewJob{ID: id, Envelope: []byte("payload-" + id)}
	}
	return jobs
}

func (s *stage) enqueues(number int64, lookDead bool, jobs ...store.NewJob) []int {
	s.t.Helper()
	return call(s, func(ctx context.Context) ([]int, error) {
		return s.Enqueue(ctx, "lane", number, lookDead, jobs)
	})
}

func (s *stage) laneSaid(text string) {
	s.set(func(ctx context.Context, p redis.Pipeliner) { p.Set(ctx, s.keys.Lane("lane"), text, time.Hour) })
}

func init() {
	scenes["enqueue"] = []scene{
		{"jobs wait in their order, and the bell rings", func(s *stage) { s.enqueues(1, false, newJobs("a", "b")...) }},
		{"behind those that wait; the bell that rings already does not ring twice", func(s *stage) {
			s.ready("x")
			s.push(s.keys.Bell, 1)
			s.laneSaid("1:")
			s.enqueues(2, false, newJobs("a")...)
		}},
		{"delayed from now, until a time, and until a time that is past", func(s *stage) {
			s.enqueues(1, false,
				store.NewJob{ID: "a", Envelope: []byte("payload-a"), Delay: time.Minute},
				store.NewJob{ID: "b", Envelope: []byte("payload-b"), RunAt: s.ms(10 * time.Second)},
				store.NewJob{ID: "c", Envelope: []byte("payload-c"), RunAt: s.ms(-time.Second)},
				store.NewJob{ID: "d", Envelope: []byte("payload-d"), RunAt: s.ms(0)})
		}},
		{"a delayed job that is not the next rings no bell", func(s *stage) {
			s.delayed(10*time.Second, "x")
			s.enqueues(1, false, store.NewJob{ID: "a", Envelope: []byte("payload-a"), Delay: time.Minute})
		}},
		{"a delayed job that becomes the next rings the bell", func(s *stage) {
			s.delayed(10*time.Second, "x")
			s.enqueues(1, false, store.NewJob{ID: "a", Envelope: []byte("payload-a"), Delay: time.Second})
		}},
		{"ids that wait, that run, or that come twice are taken", func(s *stage) {
			s.ready("a")
			s.owns("w1", s.us(-time.Second), "b")
			require.Equal(s.t, []int{0, 1, 3}, s.enqueues(1, false, newJobs("a", "b", "c", "c")...))
		}},
		{"all ids are taken: only the lane's memory changes", func(s *stage) {
			s.ready("a")
			s.enqueues(1, false, newJobs("a")...)
		}},
		{"the id of a dead letter is taken, if one looks", func(s *stage) {
			s.buried("t", "exhausted", -time.Minute, "a")
			require.Equal(s.t, []int{0}, s.enqueues(1, true, newJobs("a", "b")...))
		}},
		{"who made the id does not look among the dead letters", func(s *stage) {
			s.buried("t", "exhausted", -time.Minute, "a")
			s.enqueues(1, false, newJobs("b")...)
		}},
		{"sent again when the jobs have run: the answer of the first time, and nothing more", func(s *stage) {
			s.laneSaid("7:2,")
			require.Equal(s.t, []int{1}, s.enqueues(7, false, newJobs("a", "b")...))
		}},
		{"a call that a later one of its lane has overtaken", func(s *stage) {
			s.laneSaid("8:")
			_, err := s.Enqueue(s.t.Context(), "lane", 7, false, newJobs("a"))
			require.ErrorIs(s.t, err, store.ErrOvertaken)
		}},
		{"500 jobs", func(s *stage) { s.enqueues(1, false, newJobs(ids(500)...)...) }},
	}

	claim := func(s *stage, n int) store.Claimed {
		s.t.Helper()
		return call(s, func(ctx context.Context) (store.Claimed, error) {
			return s.Claim(ctx, store.ClaimCall{Worker: "w1", Call: 4, N: n})
		})
	}
	state := func(want store.ClaimState, prepare func(s *stage)) func(*stage) {
		return func(s *stage) {
			prepare(s)
			require.Equal(s.t, want, claim(s, 10).State)
		}
	}
	lease := 30 * time.Second
	scenes["claim"] = []scene{
		{"the oldest jobs go to the worker, under one token, and the next worker is woken", func(s *stage) {
			s.ready("a", "b", "c")
			s.lease(lease, "w1")
			claim(s, 2)
		}},
		{"fewer jobs than asked for", func(s *stage) {
			s.ready("a")
			s.lease(lease, "w1")
			s.hset(s.keys.Worker("w1"), "#c0", "3:"+s.us(-time.Second), "x", s.us(-time.Second))
			s.payloads("x")
			claim(s, 10)
		}},
		{"nothing to claim", state(store.ClaimOK, func(s *stage) { s.lease(lease, "w1") })},
		{"nothing is due yet: the answer says when", state(store.ClaimOK, func(s *stage) {
			s.lease(lease, "w1")
			s.delayed(time.Millisecond, "a")
			s.delayed(time.Minute, "b")
		})},
		{"delayed jobs that are due come after those that are ready", func(s *stage) {
			s.ready("a")
			s.delayed(-time.Second, "b")
			s.delayed(0, "c")
			s.delayed(time.Millisecond, "d")
			s.lease(lease, "w1")
			claim(s, 10)
		}},
		{"what is due and was not asked for becomes ready", func(s *stage) {
			s.ready("a")
			s.delayed(-time.Second, "b", "c")
			s.lease(lease, "w1")
			claim(s, 2)
		}},
		{"a delayed job that is left wakes the next worker, to wait for it", func(s *stage) {
			s.ready("a")
			s.delayed(time.Minute, "b")
			s.lease(lease, "w1")
			claim(s, 1)
		}},
		{"ledgers come along", func(s *stage) {
			s.ready("a", "b")
			s.hset(s.keys.Ledger, "b", "ledger-b", "x", "ledger-x")
			s.lease(lease, "w1")
			claim(s, 10)
		}},
		{"an id without a payload is a job without an envelope", func(s *stage) {
			s.push(s.keys.Ready, "a", "b")
			s.payloads("b")
			s.lease(lease, "w1")
			require.Empty(s.t, claim(s, 10).Jobs[0].Envelope)
		}},
		{"an empty envelope", func(s *stage) {
			s.ready("a")
			s.hset(s.keys.Jobs, "a", "")
			s.lease(lease, "w1")
			claim(s, 10)
		}},
		{"the last token is ahead of the clock: tokens do not go back", func(s *stage) {
			s.ready("a")
			s.lease(lease, "w1")
			s.hset(s.keys.Stats, "token", s.us(time.Hour), "enqueued", 1)
			claim(s, 10)
		}},
		{"a paused queue", state(store.ClaimPaused, func(s *stage) {
			s.ready("a")
			s.lease(lease, "w1")
			s.hset(s.keys.Stats, "paused", 1)
		})},
		{"sent again while the queue is paused: the same jobs", state(store.ClaimOK, func(s *stage) {
			s.owns("w1", s.us(-time.Second), "a", "b")
			s.hset(s.keys.Worker("w1"), "#c0", "4:"+s.us(-time.Second), "x", s.us(-time.Minute))
			s.payloads("x")
			s.hset(s.keys.Stats, "paused", 1)
		})},
		{"the lease ends with this millisecond", state(store.ClaimOK, func(s *stage) {
			s.ready("a")
			s.lease(0, "w1")
		})},
		{"the lease has lapsed", state(store.ClaimLapsed, func(s *stage) {
			s.ready("a")
			s.lease(-time.Millisecond, "w1")
		})},
		{"there is no lease", state(store.ClaimLapsed, func(s *stage) { s.ready("a") })},
		{"a later claim of the lane was here", state(store.ClaimStale, func(s *stage) {
			s.ready("a")
			s.lease(lease, "w1")
			s.hset(s.keys.Worker("w1"), "#c0", "5:"+s.us(-time.Second))
		})},
		{"another lane of the worker counts on its own", state(store.ClaimOK, func(s *stage) {
			s.ready("a")
			s.lease(lease, "w1")
			s.hset(s.keys.Worker("w1"), "#c1", "5:"+s.us(-time.Second))
		})},
		{"a probe writes in any case", func(s *stage) {
			s.lease(lease, "w1")
			call(s, func(ctx context.Context) (store.Claimed, error) {
				return s.Claim(ctx, store.ClaimCall{Worker: "w1", Lane: 1, Call: 1, N: 1, Probe: true})
			})
		}},
		{"500 jobs", func(s *stage) {
			s.ready(ids(501)...)
			s.lease(lease, "w1")
			s.once = true // the jobs come in the order of the hash then
			require.Len(s.t, claim(s, 501).Jobs, 500)
		}},
	}

	beat := func(s *stage) store.Beat {
		s.t.Helper()
		return call(s, func(ctx context.Context) (store.Beat, error) { return s.Beat(ctx, "w1", lease) })
	}
	scenes["beat"] = []scene{
		{"the first beat of a worker", func(s *stage) { require.False(s.t, beat(s).Held) }},
		{"a lease is renewed; the answer counts what is owned, ready and delayed", func(s *stage) {
			s.owns("w1", s.us(-time.Second), "a", "b")
			s.lease(10*time.Second, "w1")
			s.hset(s.keys.Worker("w1"), "#c0", "1:"+s.us(-time.Second), "#s1", "call:")
			s.ready("c")
			s.delayed(time.Minute, "d")
			require.Equal(s.t, 2, beat(s).Owned)
		}},
		{"the lease had lapsed", func(s *stage) {
			s.lease(-time.Millisecond, "w1")
			require.False(s.t, beat(s).Held)
		}},
		{"the lease is gone, and the worker is listed as an owner: it keeps its jobs", func(s *stage) {
			s.zadd(s.keys.Owners, 0, "w1")
			s.hset(s.keys.Worker("w1"), "a", s.us(-time.Second))
			s.payloads("a")
			require.Equal(s.t, 1, beat(s).Owned)
		}},
		{"a worker that is in no list owns nothing: its jobs may run again", func(s *stage) {
			s.hset(s.keys.Worker("w1"), "a", s.us(-time.Second), "#c0", "1:"+s.us(-time.Second))
			s.ready("a")
			require.Zero(s.t, beat(s).Owned)
		}},
		{"when the lease of another lapses next", func(s *stage) {
			s.lease(10*time.Second, "w1")
			s.lease(20*time.Second, "w2")
			s.lease(30*time.Second, "w3")
			beat(s)
		}},
		{"others whose lease has lapsed, at most 16", func(s *stage) {
			s.lease(-time.Second, "w1")
			s.lease(-time.Second, expand("01", "20", "x#")...)
			s.lease(0, "y")
			require.Len(s.t, beat(s).Expired, 16)
		}},
	}

	scenes["expired"] = []scene{
		{"a worker whose lease holds", func(s *stage) {
			s.owns("w2", s.us(-time.Second), "a")
			s.lease(0, "w2")
			require.Empty(s.t, s.expires())
		}},
		{"what a worker whose lease has lapsed owns", func(s *stage) {
			s.owns("w2", s.us(-time.Minute), "a", "b")
			s.lease(-time.Millisecond, "w2")
			s.hset(s.keys.Ledger, "b", "ledger-b")
			s.hset(s.keys.Worker("w2"), "#c0", "1:"+s.us(-time.Minute))
			s.expires()
		}},
		{"a worker without a lease, a job without a payload", func(s *stage) {
			s.hset(s.keys.Worker("w2"), "a", s.us(-time.Minute))
			s.expires()
		}},
		{"a worker that owns nothing is forgotten", func(s *stage) {
			s.lease(-time.Millisecond, "w2")
			s.hset(s.keys.Worker("w2"), "#c0", "1:"+s.us(-time.Minute), "#s0", "call:")
			s.expires()
		}},
		{"more than fit in a reply", func(s *stage) {
			s.owns("w2", s.us(-time.Minute), "a", "b", "c")
			s.lease(-time.Millisecond, "w2")
			k := &s.keys
			s.raw("expired", []string{k.Workers, k.Worker("w2"), k.Jobs, k.Ledger, k.Owners}, "w2", 2)
		}},
	}

	leave := func(s *stage) int {
		s.t.Helper()
		return call(s, func(ctx context.Context) (int, error) { return s.Leave(ctx, "w1") })
	}
	scenes["leave"] = []scene{
		{"what the worker owns goes to the front", func(s *stage) {
			s.ready("x")
			s.owns("w1", s.us(-time.Second), "a", "b")
			s.hset(s.keys.Worker("w1"), "#c0", "1:"+s.us(-time.Second))
			require.Equal(s.t, 2, leave(s))
		}},
		{"a worker that owns nothing rings for the others", func(s *stage) {
			s.ready("x")
			s.lease(lease, "w1", "w2")
			leave(s)
		}},
		{"an empty queue", func(s *stage) {
			s.lease(lease, "w1")
			leave(s)
		}},
		{"the bell rings already", func(s *stage) {
			s.owns("w1", s.us(-time.Second), "a")
			s.push(s.keys.Bell, 1)
			leave(s)
		}},
		{"more than one call may move: the worker stays until the last", func(s *stage) {
			s.more = true
			s.owns("w1", s.us(-time.Second), "a", "b", "c", "d", "e")
			k := &s.keys
			s.raw("leave", []string{k.Workers, k.Worker("w1"), k.Ready, k.Bell, k.Stats, k.Owners, k.Delayed}, "w1", 2)
		}},
	}

	scenes["ring"] = []scene{
		{"one worker is woken", func(s *stage) { require.NoError(s.t, s.Ring(s.t.Context())) }},
		{"the bell rings already", func(s *stage) {
			s.push(s.keys.Bell, 1)
			require.NoError(s.t, s.Ring(s.t.Context()))
		}},
		{"a bell that is too long is cut", func(s *stage) {
			s.push(s.keys.Bell, 1, 1, 1)
			require.NoError(s.t, s.Ring(s.t.Context()))
		}},
	}
	scenes["clock"] = []scene{
		{"the time of the server that has the key", func(s *stage) {
			require.Equal(s.t, s.ms(0), call(s, s.Now).UnixMilli())
		}},
	}

	scenes["stats"] = []scene{
		{"an empty queue", func(s *stage) { call(s, s.Stats) }},
		{"a queue in use", func(s *stage) {
			s.ready("a", "b")
			s.delayed(time.Minute, "c")
			s.owns("w1", s.us(-time.Second), "d")
			s.buried("t", "exhausted", -time.Minute, "e", "f")
			s.hset(s.keys.Stats, "enqueued", 9)
			require.EqualValues(s.t, 1, call(s, s.Stats).Active)
		}},
		{"a paused queue", func(s *stage) {
			s.hset(s.keys.Stats, "paused", 1)
			require.True(s.t, call(s, s.Stats).Paused)
		}},
	}

	fate := func(s *stage) store.Fate {
		s.t.Helper()
		return call(s, func(ctx context.Context) (store.Fate, error) { return s.Fate(ctx, "a") })
	}
	scenes["fate"] = []scene{
		{"a job that waits", func(s *stage) {
			s.ready("a")
			require.True(s.t, fate(s).Pending)
		}},
		{"a job that left a result", func(s *stage) {
			s.set(func(ctx context.Context, p redis.Pipeliner) { p.Set(ctx, s.keys.Result("a"), "result-a", time.Minute) })
			require.True(s.t, fate(s).HasResult)
		}},
		{"a dead letter", func(s *stage) {
			s.buried("t", "exhausted", -time.Minute, "a")
			require.Equal(s.t, "letter-a", fate(s).Letter)
		}},
		{"a job that nobody knows", func(s *stage) { require.Zero(s.t, fmt.Sprint(fate(s).Letter)) }},
	}
}

func (s *stage) expires() []store.ClaimedJob {
	s.t.Helper()
	return call(s, func(ctx context.Context) ([]store.ClaimedJob, error) { return s.Expired(ctx, "w2") })
}
