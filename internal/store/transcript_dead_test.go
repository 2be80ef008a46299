package store_test

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/store"
)

// caller is one that is about to make the call of that number.
func caller(number int) *store.Caller {
	c := store.NewCaller("operator")
	for range number {
		c.Next()
	}
	return c
}

func (s *stage) operatorSaid(text string) {
	s.t.Helper()
	s.set(func(ctx context.Context, p redis.Pipeliner) {
		p.Set(ctx, s.keys.Memo("operator"), text, 10*time.Minute)
	})
}

func (s *stage) operatorTook(words ...any) {
	s.t.Helper()
	s.push(s.keys.Memo("operator"), words...)
	s.set(func(ctx context.Context, p redis.Pipeliner) { p.Expire(ctx, s.keys.Memo("operator"), 10*time.Minute) })
}

func init() {
	pages := func(s *stage, x store.LetterIndex, after store.LetterCursor, limit int) store.Page {
		s.t.Helper()
		return call(s, func(ctx context.Context) (store.Page, error) { return s.Letters(ctx, x, after, limit) })
	}
	three := func(s *stage) {
		s.buried("t", "exhausted", -3*time.Second, "a")
		s.buried("u", "permanent", -2*time.Second, "b")
		s.buried("t", "permanent", -time.Second, "c")
	}
	scenes["dead_page"] = []scene{
		{"there are none", func(s *stage) { require.False(s.t, pages(s, store.LetterIndex{}, store.LetterCursor{}, 10).More) }},
		{"the oldest first", func(s *stage) {
			three(s)
			pages(s, store.LetterIndex{}, store.LetterCursor{}, 10)
		}},
		{"a full page", func(s *stage) {
			three(s)
			require.True(s.t, pages(s, store.LetterIndex{}, store.LetterCursor{}, 2).More)
		}},
		{"of a task", func(s *stage) {
			three(s)
			pages(s, store.LetterIndex{Task: "t"}, store.LetterCursor{}, 10)
		}},
		{"of a reason, between two times that count", func(s *stage) {
			three(s)
			s.buried("t", "permanent", 0, "d")
			pages(s, store.LetterIndex{Reason: "permanent", Since: s.ms(-2 * time.Second), Until: s.ms(-time.Second)}, store.LetterCursor{}, 10)
		}},
		{"after a letter, of several that died in one millisecond", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, "a", "b", "d", "e")
			pages(s, store.LetterIndex{}, store.LetterCursor{Died: s.ms(-time.Second), ID: "b"}, 10)
		}},
		{"after a letter that is gone by now", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, "a", "b", "d", "e")
			pages(s, store.LetterIndex{}, store.LetterCursor{Died: s.ms(-time.Second), ID: "c"}, 10)
		}},
		{"no more bytes than asked for, and one letter in any case", func(s *stage) {
			three(s)
			s.raw("dead_page", []string{s.keys.Dead, s.keys.Letters}, 0, "", "+inf", 10, 3)
		}},
		{"an index that names a letter without an entry", func(s *stage) {
			s.zadd(s.keys.Dead, s.ms(-time.Second), "a")
			pages(s, store.LetterIndex{}, store.LetterCursor{}, 10)
		}},
	}

	takes := func(s *stage, n int, after store.LetterCursor) store.Page {
		s.t.Helper()
		return call(s, func(ctx context.Context) (store.Page, error) {
			return s.TakeLetters(ctx, caller(3), "t", "review-1", time.Minute, n, after)
		})
	}
	scenes["dead_take"] = []scene{
		{"there are none", func(s *stage) { require.Empty(s.t, takes(s, 10, store.LetterCursor{}).Letters) }},
		{"the oldest are under review", func(s *stage) {
			s.buried("t", "exhausted", -2*time.Second, "a", "b")
			s.buried("t", "exhausted", -time.Second, "c")
			require.True(s.t, takes(s, 2, store.LetterCursor{}).More)
		}},
		{"all that there are", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, "a", "b")
			require.False(s.t, takes(s, 2, store.LetterCursor{}).More)
		}},
		{"after a letter", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, "a", "b", "c")
			takes(s, 10, store.LetterCursor{Died: s.ms(-time.Second), ID: "a"})
		}},
		{"what others review is left; what they reviewed for too long is taken", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, "a", "b", "c")
			s.hset(s.keys.Reviews, "a", itoa(s.ms(0))+":review-0", "b", itoa(s.ms(-time.Millisecond))+":review-0")
			require.Equal(s.t, []string{"b", "c"}, letterIDs(takes(s, 10, store.LetterCursor{}).Letters))
		}},
		{"sent again: the letters of the first time, without those that are gone", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, "b", "c")
			s.operatorTook(3, 1, s.ms(-time.Second), "b", "a", s.ms(-time.Second), "b", s.ms(-time.Second))
			takes(s, 2, store.LetterCursor{})
		}},
		{"a later call was here", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, "a")
			s.operatorTook(4, 0, 0, "")
			require.Empty(s.t, takes(s, 2, store.LetterCursor{}).Letters)
		}},
		{"no more bytes than asked for, and one letter in any case", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, "a", "b")
			k := &s.keys
			s.raw("dead_take", []string{k.Memo("operator"), k.DeadTask("t"), k.Letters, k.Reviews}, 1, 600000, "review-1", 60000, 10, 3, 0, "")
		}},
		{"500 that others review: there may be more behind them", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, ids(501)...)
			for _, id := range ids(500) {
				s.hset(s.keys.Reviews, id, itoa(s.ms(time.Second))+":review-0")
			}
			p := takes(s, 10, store.LetterCursor{})
			require.Empty(s.t, p.Letters)
			require.True(s.t, p.More)
			require.Equal(s.t, "j500", p.Next.ID)
		}},
	}

	releases := func(s *stage, ids ...string) int {
		s.t.Helper()
		return call(s, func(ctx context.Context) (int, error) { return s.ReleaseLetters(ctx, "review-1", ids) })
	}
	scenes["dead_release"] = []scene{
		{"letters under this review, under another, under none", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, "a", "b", "c")
			s.hset(s.keys.Reviews, "a", itoa(s.ms(time.Second))+":review-1", "b", itoa(s.ms(time.Second))+":review-2")
			require.Equal(s.t, 1, releases(s, "a", "b", "c"))
		}},
		{"a review that has lapsed", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, "a")
			s.hset(s.keys.Reviews, "a", itoa(s.ms(-time.Second))+":review-1")
			releases(s, "a")
		}},
	}

	ends := func(s *stage, counter store.Counter, want string, list ...store.LetterEnd) {
		s.t.Helper()
		got := call(s, func(ctx context.Context) ([]store.LetterFate, error) {
			return s.EndLetters(ctx, caller(3), counter, list)
		})
		require.Equal(s.t, []store.LetterFate(want), got)
	}
	requeue := func(id string) store.LetterEnd {
		return store.LetterEnd{ID: id, Task: "t", Envelope: []byte("payload-" + id), Ledger: []byte("ledger-" + id)}
	}
	sum := func(entry string) string { return (&store.Letter{Entry: entry}).Sum() }
	scenes["dead_settle"] = []scene{
		{"requeued: the letters become jobs", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, "a", "b", "c")
			s.hooked("t", time.Second, "a")
			ends(s, store.Requeued, "++", requeue("a"), requeue("b"))
		}},
		{"deleted: the last letter of its task, and one that leaves another", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, "a")
			s.buried("u", "exhausted", -time.Second, "b", "c")
			s.hooked("t", time.Second, "a")
			s.hooked("u", time.Second, "b", "c")
			s.zadd(s.keys.TaskHooks("u"), s.ms(time.Minute), "c")
			ends(s, store.Deleted, "++", store.LetterEnd{ID: "a", Task: "t"}, store.LetterEnd{ID: "b", Task: "u"})
		}},
		{"drained: under this review, under another, under one that is lost", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, "a", "b", "c")
			s.hset(s.keys.Reviews, "a", itoa(s.ms(-time.Second))+":review-1", "b", itoa(s.ms(time.Second))+":review-2")
			mine := func(id string) store.LetterEnd { return store.LetterEnd{ID: id, Task: "t", Token: "review-1"} }
			ends(s, store.Drained, "+lll", mine("a"), mine("b"), mine("c"), mine("gone"))
		}},
		{"who has no review meets one that holds, and one that has lapsed", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, "a", "b")
			s.hset(s.keys.Reviews, "a", itoa(s.ms(0))+":review-1", "b", itoa(s.ms(-time.Millisecond))+":review-1")
			ends(s, store.Deleted, "r+", store.LetterEnd{ID: "a", Task: "t"}, store.LetterEnd{ID: "b", Task: "t"})
		}},
		{"gone, of another entry, of another task, and a job has the id", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, "b", "c", "d", "e")
			s.ready("d")
			b, c, e := requeue("b"), requeue("c"), requeue("e")
			b.Sum, c.Task, e.Sum = sum("another"), "u", sum("letter-e")
			ends(s, store.Requeued, "-cct+", requeue("a"), b, c, requeue("d"), e)
		}},
		{"an id that comes twice", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, "a")
			ends(s, store.Deleted, "+-", store.LetterEnd{ID: "a", Task: "t"}, store.LetterEnd{ID: "a", Task: "t"})
		}},
		{"sent again: the answer of the first time, and nothing more", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, "a")
			s.operatorSaid("3:-")
			ends(s, store.Deleted, "-", store.LetterEnd{ID: "a", Task: "t"})
		}},
		{"a later call was here", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, "a")
			s.operatorSaid("4:+")
			_, err := s.EndLetters(s.t.Context(), caller(3), store.Deleted, []store.LetterEnd{{ID: "a", Task: "t"}})
			require.ErrorIs(s.t, err, store.ErrOvertaken)
		}},
		{"500 letters", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, ids(500)...)
			var list []store.LetterEnd
			for _, id := range ids(500) {
				list = append(list, requeue(id))
			}
			got := call(s, func(ctx context.Context) ([]store.LetterFate, error) {
				return s.EndLetters(ctx, caller(3), store.Requeued, list)
			})
			require.Len(s.t, got, 500)
		}},
	}

	trims := func(s *stage, count int, age time.Duration) int {
		s.t.Helper()
		return call(s, func(ctx context.Context) (int, error) {
			dropped, _, err := s.TrimLetters(ctx, caller(3), "t", count, age)
			return dropped, err
		})
	}
	scenes["dead_trim"] = []scene{
		{"over the count", func(s *stage) {
			three(s)
			s.hooked("t", time.Second, "a", "c")
			require.Equal(s.t, 1, trims(s, 1, -1))
		}},
		{"over the age", func(s *stage) {
			s.buried("t", "exhausted", -10*time.Second-time.Millisecond, "a")
			s.buried("t", "exhausted", -10*time.Second, "b")
			require.Equal(s.t, 1, trims(s, -1, 10*time.Second))
		}},
		{"over both, down to none", func(s *stage) {
			three(s)
			s.hset(s.keys.Reviews, "a", itoa(s.ms(time.Second))+":review-1")
			require.Equal(s.t, 2, trims(s, 0, time.Minute))
		}},
		{"nothing is over", func(s *stage) {
			three(s)
			require.Equal(s.t, 0, trims(s, 2, time.Minute))
		}},
		{"no limits", func(s *stage) {
			three(s)
			require.Equal(s.t, 0, trims(s, -1, -1))
		}},
		{"sent again: the answer of the first time, and nothing more", func(s *stage) {
			three(s)
			s.operatorSaid("3:7,2")
			require.Equal(s.t, 7, trims(s, 0, -1))
		}},
		{"a later call was here", func(s *stage) {
			three(s)
			s.operatorSaid("4:0,0")
			_, _, err := s.TrimLetters(s.t.Context(), caller(3), "t", 0, -1)
			require.ErrorIs(s.t, err, store.ErrOvertaken)
		}},
		{"more than one call may drop", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, ids(502)...)
			require.Equal(s.t, 500, trims(s, 0, -1))
		}},
	}

	hooks := func(s *stage, n int) store.HookLetters {
		s.t.Helper()
		return call(s, func(ctx context.Context) (store.HookLetters, error) {
			return s.TakeHooks(ctx, caller(3), "t", n, 30*time.Second)
		})
	}
	scenes["dead_hooks"] = []scene{
		{"letters whose hook is due, and one that is not", func(s *stage) {
			s.buried("t", "exhausted", -time.Minute, "a", "b", "c")
			s.hooked("t", time.Second, "c")
			s.hooked("t", 0, "a", "b")
			require.Len(s.t, hooks(s, 10).Letters, 2)
		}},
		{"no more than asked for", func(s *stage) {
			s.buried("t", "exhausted", -time.Minute, "a", "b")
			s.hooked("t", -time.Second, "a", "b")
			require.Len(s.t, hooks(s, 1).Letters, 1)
		}},
		{"none is due", func(s *stage) {
			s.buried("t", "exhausted", -time.Minute, "a")
			s.hooked("t", time.Millisecond, "a")
			require.Empty(s.t, hooks(s, 10).Letters)
		}},
		{"a letter that is gone needs no hook", func(s *stage) {
			s.hooked("t", -time.Second, "a")
			require.Empty(s.t, hooks(s, 10).Letters)
		}},
		{"sent again: the letters of the first time, without those that are gone", func(s *stage) {
			s.buried("t", "exhausted", -time.Minute, "a", "c")
			s.hooked("t", 20*time.Second, "a")
			s.hooked("t", -time.Second, "c")
			s.operatorTook(3, s.ms(20*time.Second), "a", "b")
			require.Len(s.t, hooks(s, 10).Letters, 1)
		}},
		{"a later call was here", func(s *stage) {
			s.buried("t", "exhausted", -time.Minute, "a")
			s.hooked("t", -time.Second, "a")
			s.operatorTook(4, s.ms(time.Second))
			require.Empty(s.t, hooks(s, 10).Letters)
		}},
	}

	hears := func(s *stage, died, deadline time.Duration, heard bool) {
		s.t.Helper()
		require.NoError(s.t, s.EndHook(s.t.Context(), "t", store.Letter{ID: "a", Died: s.ms(died)}, s.ms(deadline), heard))
	}
	lease := 30 * time.Second
	scenes["dead_heard"] = []scene{
		{"the hook heard of it", func(s *stage) {
			s.buried("t", "exhausted", -time.Minute, "a", "b")
			s.hooked("t", time.Minute, "b")
			s.zadd(s.keys.TaskHooks("t"), s.ms(lease), "a")
			hears(s, -time.Minute, lease, true)
		}},
		{"the hook heard of the last", func(s *stage) {
			s.buried("t", "exhausted", -time.Minute, "a")
			s.hooked("t", lease, "a")
			hears(s, -time.Minute, lease, true)
		}},
		{"it failed: it is called again after as long as the letter has been dead", func(s *stage) {
			s.buried("t", "exhausted", -time.Minute, "a")
			s.hooked("t", lease, "a")
			hears(s, -time.Minute, lease, false)
		}},
		{"it failed at once: it is called again after the shortest wait", func(s *stage) {
			s.buried("t", "exhausted", 0, "a")
			s.hooked("t", lease, "a")
			hears(s, 0, lease, false)
		}},
		{"it fails for long: it is called again after the longest wait", func(s *stage) {
			s.buried("t", "exhausted", -time.Hour, "a")
			s.hooked("t", lease, "a")
			hears(s, -time.Hour, lease, false)
		}},
		{"it failed, and another has taken the letter since", func(s *stage) {
			s.buried("t", "exhausted", -time.Minute, "a")
			s.hooked("t", lease, "a")
			hears(s, -time.Minute, -time.Second, false)
		}},
		{"it heard of it, too late: another has taken the letter since", func(s *stage) {
			s.buried("t", "exhausted", -time.Minute, "a")
			s.hooked("t", lease, "a")
			hears(s, -time.Minute, -time.Second, true)
		}},
		{"the letter has died again since", func(s *stage) {
			s.buried("t", "exhausted", -time.Second, "a")
			s.hooked("t", lease, "a")
			hears(s, -time.Minute, lease, true)
		}},
	}
}
