package store_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
)

// grave is a queue that jobs are buried in.
type grave struct {
	*store.Queue
	t     *testing.T
	b     *redistest.Backend
	rdb   redis.UniversalClient
	calls int64
}

func newGrave(t *testing.T, b *redistest.Backend, rdb redis.UniversalClient) *grave {
	return &grave{Queue: store.Open(rdb, b.Prefix, "q"), t: t, b: b, rdb: rdb}
}

func (g *grave) key(name string) string { return g.b.Prefix + ":{q}:" + name }

// bury makes dead letters of a task, up to a batch.
func (g *grave) bury(task string, hook bool, ids ...string) {
	g.t.Helper()
	ctx := g.t.Context()
	g.calls++
	jobs := make([]store.NewJob, len(ids))
	for i, id := range ids {
		jobs[i] = store.NewJob{ID: id, Envelope: []byte("envelope of " + id)}
	}
	_, err := g.Enqueue(ctx, "lane", g.calls, true, jobs)
	require.NoError(g.t, err)
	g.buryReady(task, hook)
}

// buryReady makes dead letters of all jobs that wait.
func (g *grave) buryReady(task string, hook bool) {
	g.t.Helper()
	ctx := g.t.Context()
	_, err := g.Beat(ctx, "w", time.Minute)
	require.NoError(g.t, err)
	g.calls++
	c, err := g.Claim(ctx, store.ClaimCall{Worker: "w", Call: g.calls, N: store.MaxBatch})
	require.NoError(g.t, err)
	burials := make([]store.Burial, len(c.Jobs))
	for i, j := range c.Jobs {
		burials[i] = store.Burial{
			Owned: store.Owned{ID: j.ID, Token: j.Token}, Task: task, Reason: "exhausted",
			Entry: fmt.Appendf(nil, "letter %d of %s", g.calls, j.ID), Hook: hook,
		}
	}
	refused, err := g.Bury(ctx, store.Settler{Worker: "w", Call: fmt.Sprint(g.calls)}, burials)
	require.NoError(g.t, err)
	require.Empty(g.t, refused.Refused)
}

// dump reads everything under the prefix but what the memos keep.
func (g *grave) dump() map[string]any {
	g.t.Helper()
	ctx, out := g.t.Context(), make(map[string]any)
	for _, key := range g.b.Keys() {
		switch typ := g.rdb.Type(ctx, key).Val(); typ {
		case "hash":
			out[key] = g.rdb.HGetAll(ctx, key).Val()
		case "zset":
			out[key] = g.rdb.ZRangeWithScores(ctx, key, 0, -1).Val()
		case "list":
			out[key] = g.rdb.LRange(ctx, key, 0, -1).Val()
		case "string":
			out[key] = g.rdb.Get(ctx, key).Val()
		default:
			g.t.Fatalf("%s is a %s", key, typ)
		}
	}
	return out
}

// twice makes a call twice with the same arguments: the second changes nothing and
// has the same answer.
func twice[T any](g *grave, call func(context.Context) (T, error)) T {
	g.t.Helper()
	first, err := call(g.t.Context())
	require.NoError(g.t, err)
	after := g.dump()
	again, err := call(g.t.Context())
	require.NoError(g.t, err)
	require.Equal(g.t, after, g.dump(), "the second call wrote")
	require.Equal(g.t, first, again, "the second call has another answer")
	g.b.Audit()
	return first
}

func letterIDs(letters []store.Letter) []string {
	ids := []string{}
	for _, l := range letters {
		ids = append(ids, l.ID)
	}
	return ids
}

// page is the part of a Page that a second call repeats.
func page(p store.Page, err error) (store.Page, error) {
	p.Now = time.Time{}
	return p, err
}

func TestI6_EveryDeadLetterScriptRunsTwiceAndHasTheEffectOfOne(t *testing.T) {
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		g := newGrave(t, b, b.Client())
		by := store.NewCaller("test")
		g.bury("t", false, "a", "b", "c", "d", "e", "f", "g", "h")

		by.Next()
		taken := twice(g, func(ctx context.Context) (store.Page, error) {
			return page(g.TakeLetters(ctx, store.NewCaller("review"), "t", "mine", time.Minute, 3, store.LetterCursor{}))
		})
		require.Equal(t, []string{"a", "b", "c"}, letterIDs(taken.Letters))
		require.True(t, taken.More)

		end := func(counter store.Counter, want string, ends ...store.LetterEnd) {
			t.Helper()
			by.Next()
			got := twice(g, func(ctx context.Context) ([]store.LetterFate, error) { return g.EndLetters(ctx, by, counter, ends) })
			require.Equal(t, want, string(got))
		}
		end(store.Drained, "+l-r",
			store.LetterEnd{ID: "a", Task: "t", Token: "mine"},
			store.LetterEnd{ID: "d", Task: "t", Token: "mine"},
			store.LetterEnd{ID: "nobody", Task: "t"},
			store.LetterEnd{ID: "b", Task: "t"})
		end(store.Requeued, "+c+", // b leaves by its review, c has another entry, d becomes a job
			store.LetterEnd{ID: "b", Task: "t", Token: "mine", Envelope: []byte("again"), Ledger: []byte("l")},
			store.LetterEnd{ID: "e", Task: "t", Sum: "0000", Envelope: []byte("again"), Ledger: []byte("l")},
			store.LetterEnd{ID: "d", Task: "t", Envelope: []byte("again"), Ledger: []byte("l")})
		require.Equal(t, []string{"b", "d"}, g.rdb.LRange(t.Context(), g.key("ready"), 0, -1).Val())

		require.Equal(t, 1, func() int {
			n, err := g.ReleaseLetters(t.Context(), "mine", []string{"c", "e"})
			require.NoError(t, err)
			return n
		}(), "e is not under this review")
		before := g.dump()
		n, err := g.ReleaseLetters(t.Context(), "mine", []string{"c", "e"})
		require.NoError(t, err)
		require.Zero(t, n)
		require.Equal(t, before, g.dump())

		type trimmed struct{ dropped, left int }
		by.Next()
		require.Equal(t, trimmed{3, 0}, twice(g, func(ctx context.Context) (tr trimmed, err error) {
			tr.dropped, tr.left, err = g.TrimLetters(ctx, by, "t", 2, -1)
			return tr, err
		}))
		require.EqualValues(t, 2, g.rdb.ZCard(t.Context(), g.key("dead")).Val())

		g.buryReady("other", true)
		hooks := store.NewCaller("hooks")
		hooks.Next()
		h := twice(g, func(ctx context.Context) (store.HookLetters, error) {
			return g.TakeHooks(ctx, hooks, "other", 1, time.Minute)
		})
		require.Equal(t, []string{"b"}, letterIDs(h.Letters))
		hooks.Next()
		second := twice(g, func(ctx context.Context) (store.HookLetters, error) {
			return g.TakeHooks(ctx, hooks, "other", 5, time.Minute)
		})
		require.Equal(t, []string{"d"}, letterIDs(second.Letters))
		for _, heard := range []bool{false, true} {
			twice(g, func(ctx context.Context) (bool, error) {
				return true, g.EndHook(ctx, "other", h.Letters[0], h.Deadline, heard)
			})
		}
		require.Equal(t, []string{"d"}, g.rdb.ZRange(t.Context(), g.key("hooks:other"), 0, -1).Val())

		// A call that arrives after a later one of its caller does nothing.
		late := *by
		by.Next()
		_, err = g.EndLetters(t.Context(), by, store.Deleted, []store.LetterEnd{{ID: "g", Task: "t"}})
		require.NoError(t, err)
		before = g.dump()
		_, err = g.EndLetters(t.Context(), &late, store.Deleted, []store.LetterEnd{{ID: "h", Task: "t"}})
		require.ErrorIs(t, err, store.ErrOvertaken)
		require.Equal(t, before, g.dump())
	})
}

func TestALetterThatDiedAgainIsAnother(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		g := newGrave(t, b, b.Client())
		ctx, by := t.Context(), store.NewCaller("test")
		g.bury("t", true, "a")
		old, err := g.LettersByID(ctx, []string{"a"})
		require.NoError(t, err)
		hooks := store.NewCaller("hooks")
		hooks.Next()
		h, err := g.TakeHooks(ctx, hooks, "t", 1, time.Minute)
		require.NoError(t, err)
		end := store.LetterEnd{ID: "a", Task: "t", Sum: old[0].Sum(), Envelope: []byte("again"), Ledger: []byte("l")}
		by.Next()
		fates, err := g.EndLetters(ctx, by, store.Requeued, []store.LetterEnd{end})
		require.NoError(t, err)
		require.Equal(t, "+", string(fates))
		time.Sleep(2 * time.Millisecond)
		g.buryReady("t", true)

		fates, err = g.EndLetters(ctx, store.NewCaller("late"), store.Requeued, []store.LetterEnd{end})
		require.NoError(t, err)
		require.Equal(t, "c", string(fates), "what was read is not what is there")
		require.NoError(t, g.EndHook(ctx, "t", h.Letters[0], h.Deadline, true))
		hooks.Next()
		h, err = g.TakeHooks(ctx, hooks, "t", 1, time.Minute)
		require.NoError(t, err)
		require.Len(t, h.Letters, 1, "the call for the first death has ended the hook of the second")
	})
}

// TestPagesShowEveryLetterOnceThoughManyDieAtOnceAndSomeGo pages through more
// letters than a page holds that died in one millisecond, under ids that sort by
// bytes and not by any locale, while the letters behind and at the cursor go.
func TestPagesShowEveryLetterOnceThoughManyDieAtOnceAndSomeGo(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		g := newGrave(t, b, b.Client())
		ctx := t.Context()
		var want []string
		for i := range 4 {
			ids := make([]string, 300)
			for j := range ids {
				ids[j] = fmt.Sprintf("%c%c%d", "aB_Z"[j%4], "-.:_x"[j%5], 1000*i+j)
			}
			g.bury("t", false, ids...)
			want = append(want, ids...)
		}
		for _, index := range []string{"dead", "dead:t", "why:exhausted"} {
			for _, id := range want {
				require.NoError(t, g.rdb.ZAdd(ctx, g.key(index), redis.Z{Score: 1_700_000_000_000, Member: id}).Err())
			}
		}
		slices.Sort(want)
		var got []string
		by, cursor := store.NewCaller("test"), store.LetterCursor{}
		for {
			p, err := g.Letters(ctx, store.LetterIndex{Task: "t"}, cursor, 170)
			require.NoError(t, err)
			got = append(got, letterIDs(p.Letters)...)
			cursor = p.Next
			if !p.More {
				break
			}
			by.Next()
			_, err = g.EndLetters(ctx, by, store.Deleted, []store.LetterEnd{
				{ID: p.Letters[0].ID, Task: "t"}, {ID: p.Letters[len(p.Letters)-1].ID, Task: "t"},
			})
			require.NoError(t, err)
		}
		require.Equal(t, want, got)
		// Until is a bound, and so is what a reply may hold.
		p, err := g.Letters(ctx, store.LetterIndex{Until: 1_699_999_999_999}, store.LetterCursor{}, 500)
		require.NoError(t, err)
		require.Empty(t, p.Letters)
		for _, id := range want[100:104] { // these were not deleted
			require.NoError(t, g.rdb.HSet(ctx, g.key("letters"), id, strings.Repeat("x", store.PageBytes*2/3)).Err())
		}
		p, err = g.Letters(ctx, store.LetterIndex{}, store.LetterCursor{Died: 1_700_000_000_000, ID: want[99]}, 500)
		require.NoError(t, err)
		require.Equal(t, want[100:101], letterIDs(p.Letters))
		require.True(t, p.More)
		taken, err := g.TakeLetters(ctx, store.NewCaller("r"), "t", "r", time.Minute, 10, store.LetterCursor{Died: 1_700_000_000_000, ID: want[99]})
		require.NoError(t, err)
		require.Equal(t, want[100:101], letterIDs(taken.Letters))
		require.True(t, taken.More)
	})
}

// TestDeadLettersCanBeReducedOnAFullRedis: what drains is not refused (I14).
func TestDeadLettersCanBeReducedOnAFullRedis(t *testing.T) {
	s := redistest.StartServer(t)
	rdb := s.Client()
	g := &grave{Queue: store.Open(rdb, "p", "q"), t: t, rdb: rdb}
	ctx, by := t.Context(), store.NewCaller("test")
	g.bury("t", true, "a", "b", "c", "d", "e", "f")
	require.NoError(t, rdb.ConfigSet(ctx, "maxmemory", "1").Err())
	require.ErrorContains(t, rdb.Set(ctx, "x", 1, 0).Err(), "OOM")

	hooks := store.NewCaller("hooks")
	hooks.Next()
	h, err := g.TakeHooks(ctx, hooks, "t", 2, time.Minute)
	require.NoError(t, err)
	require.Len(t, h.Letters, 2)
	require.NoError(t, g.EndHook(ctx, "t", h.Letters[0], h.Deadline, true))
	require.NoError(t, g.EndHook(ctx, "t", h.Letters[1], h.Deadline, false))
	by.Next()
	p, err := g.TakeLetters(ctx, store.NewCaller("r"), "t", "mine", time.Minute, 2, store.LetterCursor{})
	require.NoError(t, err)
	require.Len(t, p.Letters, 2)
	fates, err := g.EndLetters(ctx, by, store.Drained, []store.LetterEnd{
		{ID: "a", Task: "t", Token: "mine"}, {ID: "c", Task: "t"}, {ID: "d", Task: "t", Envelope: []byte("x"), Ledger: []byte("y")},
	})
	require.NoError(t, err)
	require.Equal(t, "+++", string(fates))
	by.Next()
	fates, err = g.EndLetters(ctx, by, store.Drained, []store.LetterEnd{{ID: "b", Task: "t"}})
	require.NoError(t, err, "nothing to do is no error either")
	require.Equal(t, "r", string(fates))
	_, err = g.ReleaseLetters(ctx, "mine", []string{"b"})
	require.NoError(t, err)
	by.Next()
	dropped, left, err := g.TrimLetters(ctx, by, "t", 1, -1)
	require.NoError(t, err)
	require.Equal(t, []int{2, 0}, []int{dropped, left})
	require.NoError(t, rdb.ConfigSet(ctx, "maxmemory", "0").Err())
	problems, err := store.Audit(ctx, rdb, "p")
	require.NoError(t, err)
	require.Empty(t, problems)
}
