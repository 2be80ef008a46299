package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
)

// protocol makes the calls of a queue one by one: what the invariants ask of each
// script shows without a worker.
type protocol struct {
	*grave
	ctx context.Context
}

func newProtocol(t *testing.T, b *redistest.Backend, rdb redis.UniversalClient) *protocol {
	return &protocol{grave: newGrave(t, b, rdb), ctx: t.Context()}
}

// next numbers calls: any lane sees its numbers rise.
func (p *protocol) next() int64 {
	p.calls++
	return p.calls
}

func (p *protocol) settler(worker string) store.Settler {
	return store.Settler{Worker: worker, Call: fmt.Sprint(p.next())}
}

func job(id string) store.NewJob { return store.NewJob{ID: id, Envelope: []byte("envelope of " + id)} }

// enqueue adds jobs that are ready at once.
func (p *protocol) enqueue(ids ...string) {
	p.t.Helper()
	jobs := make([]store.NewJob, len(ids))
	for i, id := range ids {
		jobs[i] = job(id)
	}
	taken, err := p.Enqueue(p.ctx, "lane", p.next(), false, jobs)
	require.NoError(p.t, err)
	require.Empty(p.t, taken)
}

// claim gives a worker with a long lease up to n jobs.
func (p *protocol) claim(worker string, n int) []store.ClaimedJob {
	p.t.Helper()
	_, err := p.Beat(p.ctx, worker, time.Hour)
	require.NoError(p.t, err)
	c, err := p.Claim(p.ctx, store.ClaimCall{Worker: worker, Call: p.next(), N: n})
	require.NoError(p.t, err)
	require.Equal(p.t, store.ClaimOK, c.State)
	return c.Jobs
}

// lapse ends a worker's lease.
func (p *protocol) lapse(worker string) {
	p.t.Helper()
	require.NoError(p.t, p.rdb.ZAdd(p.ctx, p.key("workers"), redis.Z{Score: 1, Member: worker}).Err())
}

func idsOf(jobs []store.ClaimedJob) []string {
	ids := []string{}
	for _, j := range jobs {
		ids = append(ids, j.ID)
	}
	return ids
}

func ownedBy(j store.ClaimedJob) store.Owned { return store.Owned{ID: j.ID, Token: j.Token} }

// ends are the three ways to end a claimed job.
func (p *protocol) ends(s store.Settler, o store.Owned) map[string]func(context.Context) (store.Settled, error) {
	return map[string]func(context.Context) (store.Settled, error){
		"finish": func(ctx context.Context) (store.Settled, error) {
			return p.Finish(ctx, s, store.Succeeded, []store.Done{{Owned: o, Result: []byte("r"), TTL: time.Minute}})
		},
		"put back": func(ctx context.Context) (store.Settled, error) {
			return p.Putback(ctx, s, []store.Putback{{Owned: o, Delay: time.Hour, Ledger: []byte("l"), Counter: store.Retried}})
		},
		"bury": func(ctx context.Context) (store.Settled, error) {
			return p.Bury(ctx, s, []store.Burial{{Owned: o, Task: "t", Reason: "exhausted", Entry: []byte("e"), Hook: true}})
		},
	}
}

// TestI1_WhatIsDueAndDoesNotFitIntoAClaimWaits: a claim takes what is due off the
// delayed jobs, more than it has places for.
func TestI1_WhatIsDueAndDoesNotFitIntoAClaimWaits(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		p := newProtocol(t, b, b.Client())
		p.enqueue("a", "b", "c", "d")
		for i, id := range []string{"c", "d"} {
			require.NoError(t, p.rdb.LRem(p.ctx, p.key("ready"), 1, id).Err())
			require.NoError(t, p.rdb.ZAdd(p.ctx, p.key("delayed"), redis.Z{Score: float64(1 + i), Member: id}).Err())
		}
		require.Equal(t, []string{"a", "b"}, idsOf(p.claim("w", 2)))
		require.Equal(t, []string{"c", "d"}, idsOf(p.claim("w", 2)))
	})
}

func TestI2_AJobHasItsOwnPayloadAndATakenIDKeepsTheFirst(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		p := newProtocol(t, b, b.Client())
		p.enqueue("a", "b", "c")
		taken, err := p.Enqueue(p.ctx, "other", 1, false, []store.NewJob{
			{ID: "b", Envelope: []byte("another")}, job("d"), {ID: "d", Envelope: []byte("another")},
		})
		require.NoError(t, err)
		require.Equal(t, []int{0, 2}, taken)
		taken, err = p.Enqueue(p.ctx, "other", 2, false, []store.NewJob{
			job("e"), {ID: "e", Envelope: []byte("another")}, job("f"),
		})
		require.NoError(t, err)
		require.Equal(t, []int{1}, taken)
		jobs := p.claim("w", 10)
		require.Equal(t, []string{"a", "b", "c", "d", "e", "f"}, idsOf(jobs))
		for _, j := range jobs {
			require.Equal(t, "envelope of "+j.ID, j.Envelope)
		}
	})
}

func TestI3_ALivingWorkersJobsAreNotTaken(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		p := newProtocol(t, b, b.Client())
		p.enqueue("a")
		mine := p.claim("w", 1)[0]
		jobs, err := p.Expired(p.ctx, "w")
		require.NoError(t, err)
		require.Empty(t, jobs)
		// It was seen dead, and was back before its jobs were taken.
		s := p.settler("w")
		s.Reap = true
		for name, end := range p.ends(s, ownedBy(mine)) {
			before := p.dump()
			settled, err := end(p.ctx)
			require.NoError(t, err)
			require.Equal(t, []int{0}, settled.Refused, name)
			require.Equal(t, before, p.dump(), name)
		}
	})
}

// TestI4_NothingEndsWithoutTheCurrentToken ends jobs with every token but the one
// that counts.
func TestI4_NothingEndsWithoutTheCurrentToken(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		p := newProtocol(t, b, b.Client())
		p.enqueue("a")
		old := p.claim("w", 1)[0]
		_, err := p.Putback(p.ctx, p.settler("w"), []store.Putback{{Owned: ownedBy(old), Front: true, Counter: store.Released}})
		require.NoError(t, err)
		current := p.claim("w", 1)[0]
		require.Greater(t, current.Token, old.Token)
		for _, o := range []store.Owned{ownedBy(old), {ID: "a"}, {ID: "a", Token: "0"}, {ID: "b", Token: current.Token}} {
			for name, end := range p.ends(p.settler("w"), o) {
				before := p.dump()
				settled, err := end(p.ctx)
				require.NoError(t, err)
				require.Equal(t, []int{0}, settled.Refused, "%s with %v", name, o)
				require.Equal(t, before, p.dump(), "%s with %v", name, o)
			}
		}
		for name, end := range p.ends(p.settler("z"), ownedBy(current)) {
			settled, err := end(p.ctx)
			require.NoError(t, err)
			require.Equal(t, []int{0}, settled.Refused, "%s by another worker", name)
		}
	})
}

// TestI4_JobsOfSeveralClaimsEndInOneCall: each has its own token, and one that is not
// current holds up no other.
func TestI4_JobsOfSeveralClaimsEndInOneCall(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		p := newProtocol(t, b, b.Client())
		p.enqueue("a", "b", "c")
		var done []store.Done
		for range 3 {
			done = append(done, store.Done{Owned: ownedBy(p.claim("w", 1)[0])})
		}
		done[1].Token = done[0].Token
		settled, err := p.Finish(p.ctx, p.settler("w"), store.Succeeded, done)
		require.NoError(t, err)
		require.Equal(t, []int{1}, settled.Refused)
		owned, err := p.Owned(p.ctx, "w")
		require.NoError(t, err)
		require.Len(t, owned, 1)
		require.Contains(t, owned, "b")
	})
}

func TestI4_TokensDoNotGoBackWhenTheCounterIsLost(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		p := newProtocol(t, b, b.Client())
		p.enqueue("a", "b", "c")
		first, second := p.claim("w", 1)[0], p.claim("w", 1)[0]
		require.NoError(t, p.rdb.Del(p.ctx, p.key("stats")).Err())
		third := p.claim("w", 1)[0]
		require.Less(t, first.Token, second.Token)
		require.Less(t, second.Token, third.Token)
	})
}

// TestI6_EveryQueueScriptTwiceHasTheEffectOfOne sends every call again, and once more
// after the next one of its lane, as a slow network may.
func TestI6_EveryQueueScriptTwiceHasTheEffectOfOne(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		p := newProtocol(t, b, b.Client())
		for _, end := range []string{"finish", "put back", "bury"} {
			enqueue := func(call int64, id string) func(context.Context) ([]int, error) {
				return func(ctx context.Context) ([]int, error) {
					return p.Enqueue(ctx, "lane", call, false, []store.NewJob{job(id)})
				}
			}
			id := "job-" + end[:3]
			late := p.next()
			require.Empty(t, twice(p.grave, enqueue(late, id)))
			require.Equal(t, []int{0}, twice(p.grave, func(ctx context.Context) ([]int, error) {
				return p.Enqueue(ctx, "other", late, false, []store.NewJob{job(id)})
			}), "taken")
			claimed := p.claim("w", 10)
			require.Equal(t, []string{id}, idsOf(claimed))
			settle := p.ends(p.settler("w"), ownedBy(claimed[0]))[end]
			require.Empty(t, twice(p.grave, settle).Refused, end)
			ended := p.dump()
			taken, err := enqueue(late, id)(p.ctx)
			require.NoError(t, err)
			require.Empty(t, taken, "%s: the answer of the first time", end)
			require.Equal(t, ended, p.dump(), "%s: an enqueue sent again when its job has ended", end)
			require.Empty(t, twice(p.grave, enqueue(p.next(), "next"+id)))
			next := p.claim("w", 10)
			require.Equal(t, []string{"next" + id}, idsOf(next))
			require.Empty(t, twice(p.grave, p.ends(p.settler("w"), ownedBy(next[0]))["finish"]).Refused)
			before := p.dump()
			_, err = enqueue(late, id)(p.ctx)
			require.ErrorIs(t, err, store.ErrOvertaken, "%s: a late copy", end)
			require.Equal(t, before, p.dump(), "%s: a late copy", end)
		}
	})
}

func TestI7_AClaimSentAgainGetsTheSameJobs(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		p := newProtocol(t, b, b.Client())
		p.enqueue("a", "b", "c", "d")
		p.claim("w", 1)
		call := store.ClaimCall{Worker: "w", Call: p.next(), N: 2}
		claim := func(ctx context.Context) ([]store.ClaimedJob, error) {
			c, err := p.Claim(ctx, call)
			require.Equal(t, store.ClaimOK, c.State)
			return c.Jobs, err
		}
		first := twice(p.grave, func(ctx context.Context) (map[string]store.ClaimedJob, error) {
			jobs, err := claim(ctx)
			byID := make(map[string]store.ClaimedJob)
			for _, j := range jobs {
				byID[j.ID] = j
			}
			return byID, err
		})
		require.Len(t, first, 2)
		require.Contains(t, first, "b")
		require.Contains(t, first, "c")
		p.claim("w", 1)
		c, err := p.Claim(p.ctx, call)
		require.NoError(t, err)
		require.Equal(t, store.ClaimStale, c.State, "a later claim was here")
	})
}

func TestI9_AWorkerWithoutALeaseGetsNoJobs(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		p := newProtocol(t, b, b.Client())
		p.enqueue("a")
		claim := func() store.ClaimState {
			c, err := p.Claim(p.ctx, store.ClaimCall{Worker: "w", Call: p.next(), N: 1})
			require.NoError(t, err)
			require.Empty(t, c.Jobs)
			return c.State
		}
		require.Equal(t, store.ClaimLapsed, claim(), "nobody would reap it")
		p.lapse("w")
		require.Equal(t, store.ClaimLapsed, claim())
		require.Equal(t, []string{"a"}, idsOf(p.claim("w", 1)))
		p.lapse("w")
		jobs, err := p.Expired(p.ctx, "w")
		require.NoError(t, err)
		require.Equal(t, []string{"a"}, idsOf(jobs), "what it owned is there to be taken")
	})
}

// TestI12_AClaimLeavesWhatIsNotDue has one job due with others close behind it.
func TestI12_AClaimLeavesWhatIsNotDue(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		p := newProtocol(t, b, b.Client())
		now, err := p.rdb.Time(p.ctx).Result()
		require.NoError(t, err)
		at := func(id string, due time.Time) store.NewJob {
			j := job(id)
			j.RunAt = due.UnixMilli()
			return j
		}
		soon := now.Add(time.Minute)
		_, err = p.Enqueue(p.ctx, "lane", p.next(), false, []store.NewJob{at("due", now.Add(-time.Second)), at("soon", soon)})
		require.NoError(t, err)
		// Put there as a job is whose time has come while it waits.
		require.NoError(t, p.rdb.LRem(p.ctx, p.key("ready"), 1, "due").Err())
		require.NoError(t, p.rdb.ZAdd(p.ctx, p.key("delayed"), redis.Z{Score: float64(now.UnixMilli() - 1), Member: "due"}).Err())
		require.Equal(t, []string{"due"}, idsOf(p.claim("w", 10)))
		c, err := p.Claim(p.ctx, store.ClaimCall{Worker: "w", Call: p.next(), N: 10})
		require.NoError(t, err)
		require.Empty(t, c.Jobs)
		require.Equal(t, soon.UnixMilli(), c.NextDue.UnixMilli())
	})
}

// TestI15_WhatIsReleasedIsNext: a shutdown puts back what it has claimed to where it
// was: before all that waits.
func TestI15_WhatIsReleasedIsNext(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		p := newProtocol(t, b, b.Client())
		p.enqueue("a", "b", "c", "d")
		first := p.claim("w", 2)
		var back []store.Putback
		for _, j := range first {
			back = append(back, store.Putback{Owned: ownedBy(j), Front: true, Counter: store.Interrupted})
		}
		settled, err := p.Putback(p.ctx, p.settler("w"), back)
		require.NoError(t, err)
		require.Empty(t, settled.Refused)
		require.Equal(t, []string{"a", "b"}, idsOf(p.claim("w", 2)), "released")
		n, err := p.Leave(p.ctx, "w")
		require.NoError(t, err)
		require.Equal(t, 2, n)
		require.ElementsMatch(t, []string{"a", "b"}, idsOf(p.claim("z", 2)), "left")
		require.Equal(t, []string{"c", "d"}, idsOf(p.claim("z", 2)))
	})
}

// TestABellRingsForWhatAnIdleWorkerCannotKnow: whatever makes a job ready, or one due
// sooner than all others, wakes one worker.
func TestABellRingsForWhatAnIdleWorkerCannotKnow(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		p := newProtocol(t, b, b.Client())
		rings := func(what string, want bool) {
			t.Helper()
			n, err := p.rdb.Del(p.ctx, p.key("bell")).Result()
			require.NoError(t, err)
			require.Equal(t, want, n == 1, what)
		}
		rings("nothing", false)
		p.enqueue("a")
		rings("an enqueue", true)
		delayed := func(id string, d time.Duration) {
			_, err := p.Enqueue(p.ctx, "lane", p.next(), false, []store.NewJob{{ID: id, Delay: d}})
			require.NoError(t, err)
		}
		delayed("later", time.Hour)
		rings("the first due", true)
		delayed("latest", 2*time.Hour)
		rings("one due after it", false)
		mine := p.claim("w", 10)
		rings("a claim of all", false)
		_, err := p.Putback(p.ctx, p.settler("w"), []store.Putback{{Owned: ownedBy(mine[0]), Counter: store.Retried}})
		require.NoError(t, err)
		rings("a retry at once", true)
		p.enqueue("b", "c")
		rings("an enqueue of two", true)
		p.claim("w", 1)
		rings("a claim that leaves some", true)
	})
}
