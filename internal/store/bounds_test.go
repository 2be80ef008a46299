package store_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
)

// auditor checks I5 after every command of the client that it hooks into: whoever
// dies between two commands leaves what it sees.
type auditor struct {
	t       *testing.T
	b       *redistest.Backend
	audited atomic.Int64
}

func (a *auditor) DialHook(next redis.DialHook) redis.DialHook { return next }

func (a *auditor) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if before := a.t.Failed(); !before {
			a.b.Audit()
			if a.t.Failed() {
				a.t.Errorf("after %.60q", fmt.Sprint(cmd.Args()))
			}
		}
		a.audited.Add(1)
		return err
	}
}

func (a *auditor) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// TestI5_AfterEveryCommandAJobIsInOnePlace takes jobs through all the states, and
// looks after each command and not only after each operation.
func TestI5_AfterEveryCommandAJobIsInOnePlace(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		rdb := b.Client()
		a := &auditor{t: t, b: b}
		rdb.AddHook(a)
		p := newProtocol(t, b, rdb)
		_, err := p.Enqueue(p.ctx, "lane", p.next(), false, []store.NewJob{{ID: "later", Envelope: []byte("e"), Delay: time.Hour}})
		require.NoError(t, err)
		p.enqueue("done", "again", "later-again", "front", "dead", "requeued", "reaped", "left")
		mine := make(map[string]store.Owned)
		for _, j := range p.claim("w", 8) {
			mine[j.ID] = ownedBy(j)
		}
		require.Len(t, mine, 8)
		ok := func(s store.Settled, err error) {
			t.Helper()
			require.NoError(t, err)
			require.Empty(t, s.Refused)
		}
		ok(p.Putback(p.ctx, p.settler("w"), []store.Putback{
			{Owned: mine["again"], Ledger: []byte("l"), Counter: store.Retried},
			{Owned: mine["later-again"], Delay: time.Hour, Ledger: []byte("l"), Counter: store.Retried},
			{Owned: mine["front"], Front: true, Counter: store.Released},
		}))
		var twoDead []store.Burial
		for _, id := range []string{"dead", "requeued"} {
			twoDead = append(twoDead, store.Burial{Owned: mine[id], Task: "t", Reason: "exhausted", Entry: []byte(id), Hook: true})
		}
		ok(p.Bury(p.ctx, p.settler("w"), twoDead))
		ok(p.Finish(p.ctx, p.settler("w"), store.Succeeded, []store.Done{{Owned: mine["done"], Result: []byte("r"), TTL: time.Minute}}))
		by := store.NewCaller("test")
		by.Next()
		fates, err := p.EndLetters(p.ctx, by, store.Requeued, []store.LetterEnd{
			{ID: "requeued", Task: "t", Envelope: []byte("e"), Ledger: []byte("l")},
		})
		require.NoError(t, err)
		require.Equal(t, "+", string(fates))

		p.lapse("w")
		s := p.settler("w")
		s.Reap = true
		ok(p.Putback(p.ctx, s, []store.Putback{{Owned: mine["reaped"], Front: true, Ledger: []byte("l"), Counter: store.Crashed}}))
		n, err := p.Leave(p.ctx, "w")
		require.NoError(t, err)
		require.Equal(t, 1, n)
		var done []store.Done
		for _, j := range p.claim("w", 100) {
			done = append(done, store.Done{Owned: ownedBy(j)})
		}
		require.Len(t, done, 5, "again, front, requeued, reaped and left")
		ok(p.Finish(p.ctx, p.settler("w"), store.Succeeded, done))
		_, err = p.Leave(p.ctx, "w")
		require.NoError(t, err)
		stats, err := p.Stats(p.ctx)
		require.NoError(t, err)
		require.Equal(t, []int64{0, 2, 0, 1}, []int64{stats.Ready, stats.Delayed, stats.Active, stats.Dead})
		require.Greater(t, a.audited.Load(), int64(15))
	})
}

// TestI14_ACallThatCannotReadHasWrittenNothing gives each key that a script reads the
// wrong type: a call that fails at it must fail before it has changed anything.
func TestI14_ACallThatCannotReadHasWrittenNothing(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		p := newProtocol(t, b, b.Client())
		p.enqueue("a", "b", "c")
		// A job whose time has come, and one that has a ledger.
		require.NoError(t, p.rdb.ZAdd(p.ctx, p.key("delayed"), redis.Z{Score: 1, Member: "due"}).Err())
		require.NoError(t, p.rdb.HSet(p.ctx, p.key("jobs"), "due", "e").Err())
		require.NoError(t, p.rdb.HSet(p.ctx, p.key("ledger"), "due", "l").Err())
		mine := ownedBy(p.claim("w", 1)[0])
		calls := p.ends(p.settler("w"), mine)
		calls["claim"] = func(ctx context.Context) (store.Settled, error) {
			_, err := p.Claim(ctx, store.ClaimCall{Worker: "w", Call: p.next(), N: 10})
			return store.Settled{}, err
		}
		calls["enqueue"] = func(ctx context.Context) (store.Settled, error) {
			later := job("new")
			later.Delay = time.Hour // one for now does not look at the delayed
			_, err := p.Enqueue(ctx, "lane", p.next(), true, []store.NewJob{later})
			return store.Settled{}, err
		}
		reads := map[string][]string{
			"claim":    {"jobs", "ledger", "delayed", "ready", "w:w", "workers", "stats"},
			"enqueue":  {"jobs", "delayed", "letters", "p:lane"},
			"finish":   {"w:w"},
			"put back": {"w:w", "delayed"},
			"bury":     {"w:w"},
		}
		for name, call := range calls {
			for _, part := range reads[name] {
				key, keep := p.key(part), p.key("kept")
				_, err := p.rdb.Rename(p.ctx, key, keep).Result()
				missing := err != nil
				wrong := p.rdb.RPush(p.ctx, key, "wrong")
				if part == "ready" {
					require.NoError(t, p.rdb.Del(p.ctx, key).Err())
					require.NoError(t, p.rdb.HSet(p.ctx, key, "wrong", 1).Err())
				}
				require.NoError(t, wrong.Err())
				before := p.dump()
				_, err = call(p.ctx)
				require.ErrorContains(t, err, "WRONGTYPE", "%s, %s", name, part)
				require.Equal(t, before, p.dump(), "%s could not read %s, and wrote", name, part)
				require.NoError(t, p.rdb.Del(p.ctx, key).Err())
				if !missing {
					require.NoError(t, p.rdb.Rename(p.ctx, keep, key).Err())
				}
			}
		}
		require.Len(t, p.claim("w", 10), 3, "all is still there")
	})
}

// TestI14_MoreJobsThanAScriptCanUnpack: Lua's unpack raises at about 8,000 values,
// after what was written before it. No number of jobs gets there.
func TestI14_MoreJobsThanAScriptCanUnpack(t *testing.T) {
	t.Parallel()
	b := redistest.Redis(t)
	p := newProtocol(t, b, b.Client())
	const jobs = 9000
	for n := 0; n < jobs; n += store.MaxBatch {
		batch := make([]store.NewJob, min(store.MaxBatch, jobs-n))
		for i := range batch {
			batch[i] = job(fmt.Sprint(n + i))
		}
		_, err := p.Enqueue(p.ctx, "lane", p.next(), false, batch)
		require.NoError(t, err)
	}
	claimed := 0
	for {
		got := p.claim("w", jobs) // asks for more than a call gives
		if len(got) == 0 {
			break
		}
		require.LessOrEqual(t, len(got), 500)
		claimed += len(got)
	}
	require.Equal(t, jobs, claimed)
	p.lapse("w")
	expired, err := p.Expired(p.ctx, "w")
	require.NoError(t, err)
	require.Len(t, expired, 500)
	n, err := p.Leave(p.ctx, "w")
	require.NoError(t, err)
	require.Equal(t, jobs, n)
	stats, err := p.Stats(p.ctx)
	require.NoError(t, err)
	require.EqualValues(t, jobs, stats.Ready)
}

// TestI14_AFullRedisRefusesAnEnqueueAsAWholeAndNoEnd fills a server: producers are
// told, and everything that a worker has to write goes through.
func TestI14_AFullRedisRefusesAnEnqueueAsAWholeAndNoEnd(t *testing.T) {
	t.Parallel()
	s := redistest.StartServer(t)
	rdb := s.Client()
	p := &protocol{grave: &grave{Queue: store.Open(rdb, "p", "q"), t: t, rdb: rdb}, ctx: t.Context()}
	p.enqueue("a", "b", "c", "d", "e")
	_, err := p.Enqueue(p.ctx, "lane", p.next(), false, []store.NewJob{{ID: "due", Delay: time.Millisecond}})
	require.NoError(t, err)
	_, err = p.Beat(p.ctx, "w", time.Hour)
	require.NoError(t, err)
	time.Sleep(2 * time.Millisecond) // until it is due
	require.NoError(t, rdb.ConfigSet(p.ctx, "maxmemory", "1").Err())

	_, err = p.Enqueue(p.ctx, "lane", p.next(), false, []store.NewJob{job("x"), {ID: "y", Delay: time.Hour}})
	require.ErrorIs(t, err, store.ErrFull)
	stats, err := p.Stats(p.ctx)
	require.NoError(t, err)
	require.Equal(t, []int64{5, 1}, []int64{stats.Ready, stats.Delayed}, "a refused enqueue wrote")
	require.EqualValues(t, 6, stats.Counters[store.Enqueued])

	jobs := p.claim("w", 6)
	require.Equal(t, "a b c d e due", strings.Join(idsOf(jobs), " "))
	for i, end := range []string{"finish", "put back", "bury"} {
		settled, err := p.ends(p.settler("w"), ownedBy(jobs[i]))[end](p.ctx)
		require.NoError(t, err, end)
		require.Empty(t, settled.Refused, end)
	}
	n, err := p.Leave(p.ctx, "w")
	require.NoError(t, err)
	require.Equal(t, 3, n)
}

// TestI16_WhatIsLeftEndsByItself takes jobs to each of their ends, and looks at what
// keys there are when the worker has left: each has a time to live, but the figures
// and the bell, of which there is one for a queue.
func TestI16_WhatIsLeftEndsByItself(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		p := newProtocol(t, b, b.Client())
		p.enqueue("finish", "put back", "bury")
		for _, j := range p.claim("w", 3) {
			settled, err := p.ends(p.settler("w"), ownedBy(j))[j.ID](p.ctx)
			require.NoError(t, err)
			require.Empty(t, settled.Refused)
		}
		require.NoError(t, p.rdb.ZAdd(p.ctx, p.key("delayed"), redis.Z{Score: 1, Member: "put back"}).Err()) // due
		again := p.claim("w", 1)
		require.Equal(t, "l", again[0].Ledger)
		_, err := p.Finish(p.ctx, p.settler("w"), store.Succeeded, []store.Done{{Owned: ownedBy(again[0])}})
		require.NoError(t, err)
		by := store.NewCaller("test")
		by.Next()
		fates, err := p.EndLetters(p.ctx, by, store.Deleted, []store.LetterEnd{{ID: "bury", Task: "t"}})
		require.NoError(t, err)
		require.Equal(t, "+", string(fates))
		_, err = p.Leave(p.ctx, "w")
		require.NoError(t, err)

		lives := 0
		for _, key := range b.Keys() {
			switch ttl := p.rdb.PTTL(p.ctx, key).Val(); {
			case ttl > 0:
				lives++
			case key != p.key("stats") && key != p.key("bell"):
				t.Errorf("%s stays for ever", key)
			}
		}
		require.Equal(t, 3, lives, "a result, the last enqueue, the last end of letters")
	})
}
