package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive/internal/store"
)

// An answered call is one of the store's operations, which gets any reply.
type answered struct {
	name string
	// replies are what the script returns.
	replies []any
	// call performs the operation and says what is wrong with what it took for good.
	call func(ctx context.Context, rdb redis.UniversalClient) error
	// says is what the header of the script says of its reply, in the plainest words.
	says func(reply any) bool
}

// errWrong: an operation returned what cannot be.
var errWrong = errors.New("accepted")

func wrong(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errWrong, fmt.Sprintf(format, args...))
}

func isInt(v any, from, to int64) bool {
	n, ok := v.(int64)
	return ok && n >= from && n <= to
}

func isTime(v any) bool { return isInt(v, 0, 1<<53-1) }
func isDue(v any) bool  { return isInt(v, -1, 1<<53-1) }

func isText(v any) bool {
	_, ok := v.(string)
	return ok
}

func isDigits(v any) bool {
	s, _ := v.(string)
	return s == "0" || s != "" && strings.Trim(s, "0123456789") == "" && s[0] != '0' && len(s) < 19
}

func isToken(v any) bool { return isDigits(v) && v != "0" }

// isScore: a number of ms in any notation that Redis may choose.
func isScore(v any) bool {
	s, _ := v.(string)
	f, err := strconv.ParseFloat(s, 64)
	return err == nil && f >= 0 && f < 1<<53
}

// isList: v is a list of n, or of any length for n < 0, all of which are of a kind.
func isList(v any, n int, kind func(any) bool) bool {
	list, ok := v.([]any)
	return ok && (n < 0 || len(list) == n) && !slices.ContainsFunc(list, func(e any) bool { return !kind(e) })
}

func orNil(kind func(any) bool) func(any) bool {
	return func(v any) bool { return v == nil || kind(v) }
}

// isRecord: v is a list whose elements are of these kinds.
func isRecord(v any, kinds ...func(any) bool) bool {
	list, ok := v.([]any)
	if !ok || len(list) != len(kinds) {
		return false
	}
	for i, kind := range kinds {
		if !kind(list[i]) {
			return false
		}
	}
	return true
}

func is(want any) func(any) bool { return func(v any) bool { return v == want } }

func flag01(v any) bool  { return isInt(v, 0, 1) }
func isCount(v any) bool { return isInt(v, 0, 1<<53-1) }

func isTexts(v any) bool { return isList(v, -1, isText) }

// isIndexes: v lists isScores from first to last, rising, each with a comma behind.
func isIndexes(v any, first, last int) bool {
	s, ok := v.(string)
	if !ok {
		return false
	}
	for i := first; i <= last; i++ {
		s = strings.TrimPrefix(s, strconv.Itoa(i)+",")
	}
	return s == ""
}

// columns: the lists from one place on have one length.
func columns(v any, at, n int) bool {
	list := v.([]any)
	for i := at; i < at+n; i++ {
		if len(list[i].([]any)) != len(list[at].([]any)) {
			return false
		}
	}
	return true
}

func inRange(indexes []int, n int) error {
	for i, at := range indexes {
		if at < 0 || at >= n || i > 0 && at <= indexes[i-1] {
			return wrong("indexes %v of %d", indexes, n)
		}
	}
	return nil
}

// soundClaim says what cannot be in the answer to a claim.
func soundClaim(c store.Claimed) error {
	switch c.State {
	case store.ClaimOK, store.ClaimPaused, store.ClaimLapsed, store.ClaimStale:
	default:
		return wrong("state %q", c.State)
	}
	if c.Now.IsZero() || len(c.Jobs) > 0 && c.State != store.ClaimOK {
		return wrong("%+v", c)
	}
	for _, j := range c.Jobs {
		if j.ID == "" || !isToken(j.Token) {
			return wrong("job %+v", j)
		}
	}
	return nil
}

const soon = 1_800_000_000_000

// anyClaim is a reply of claim.lua with two jobs.
func anyClaim() []any {
	return []any{"ok", int64(soon), int64(-1), "7", int64(2), "a", "b", "e", nil, nil, "ledger"}
}

func list(v ...any) []any { return v }

func answeredCalls() []answered {
	key := func(rdb redis.UniversalClient) *store.Queue { return store.Open(rdb, "p", "q") }
	jobs := make([]store.Done, 3)
	lock := func(rdb redis.UniversalClient) *store.Lock { return store.OpenLock(rdb, "p", "s", "n") }
	fenced := func(f func(*store.Idempotency, context.Context) (bool, error)) func(context.Context, redis.UniversalClient) error {
		return func(ctx context.Context, rdb redis.UniversalClient) error {
			_, err := f(store.OpenIdempotency(rdb), ctx)
			return err
		}
	}
	return []answered{
		{"enqueue", list("1,3,", "", nil),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				taken, err := key(rdb).Enqueue(ctx, "lane", 1, false, make([]store.NewJob, 3))
				return errors.Join(err, inRange(taken, 3))
			},
			func(v any) bool {
				return v == nil || isIndexes(v, 1, 3)
			}},
		{"claim", list(anyClaim(), list("paused", int64(soon), int64(-1)), list("lapsed", int64(soon), int64(-1))),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				c, err := key(rdb).Claim(ctx, store.ClaimCall{Worker: "w", N: 2})
				return errors.Join(err, soundIf(err, c))
			}, nil},
		{"finish", list(list("0,2,"), list("")),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				got, err := key(rdb).Finish(ctx, store.Settler{Worker: "w"}, store.Succeeded, jobs)
				return errors.Join(err, inRange(got.Refused, 3))
			},
			func(v any) bool {
				return isRecord(v, func(v any) bool { return v == nil || isIndexes(v, 0, 2) })
			}},
		{"finish and claim", list(append(anyClaim(), "1,"), list("stale", int64(soon), int64(-1), "")),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				got, err := key(rdb).Finish(ctx, store.Settler{Worker: "w", Next: &store.ClaimCall{Worker: "w", N: 2}}, store.Succeeded, jobs)
				return errors.Join(err, inRange(got.Refused, 3), soundIf(err, got.Claimed))
			}, nil},
		{"beat", list(list(int64(soon), int64(1), int64(2), int64(3), int64(soon), int64(-1), list("w2", "w3"))),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				_, err := key(rdb).Beat(ctx, "w", time.Minute)
				return err
			},
			func(v any) bool { return isRecord(v, isTime, flag01, isCount, isCount, isDue, isDue, isTexts) }},
		{"expired", list(list(list("a", "b"), list("7", "8"), list("e", nil), list(nil, "l"))),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				_, err := key(rdb).Expired(ctx, "w")
				return err
			},
			func(v any) bool {
				column := func(v any) bool { return isList(v, -1, orNil(isText)) }
				return isRecord(v, isTexts, isTexts, column, column) && columns(v, 0, 4)
			}},
		{"leave", list(list(int64(3), int64(0))),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				_, err := key(rdb).Leave(ctx, "w")
				return err
			},
			func(v any) bool { return isRecord(v, isCount, is(int64(0))) }},
		{"stats", list(list(int64(1), int64(2), int64(3), int64(4), int64(5), list("enqueued", "7", "paused", "1", "token", "9"))),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				s, err := key(rdb).Stats(ctx)
				if s.Ready < 0 || s.Active < 0 {
					return wrong("%+v", s)
				}
				return err
			},
			func(v any) bool {
				pairs := func(v any) bool { return isTexts(v) && len(v.([]any))%2 == 0 }
				return isRecord(v, isCount, isCount, isCount, isCount, isCount, pairs)
			}},
		{"fate", list(list(int64(1), nil, nil), list(int64(0), "letter", nil), list(int64(0), nil, "result")),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				_, err := key(rdb).Fate(ctx, "a")
				return err
			},
			func(v any) bool { return isRecord(v, flag01, orNil(isText), orNil(isText)) }},
		{"dead_page", list(list(int64(soon), int64(1), list("a", "b"), list("5", "6"), list("x", "y"))),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				_, err := key(rdb).Letters(ctx, store.LetterIndex{}, store.LetterCursor{}, 10)
				return err
			},
			func(v any) bool { return isRecord(v, isTime, flag01, isTexts, isScores, isTexts) && columns(v, 2, 3) }},
		{"dead_take", list(list(int64(soon), int64(0), list("a"), list("5"), list("x"), "5", "a")),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				_, err := key(rdb).TakeLetters(ctx, store.NewCaller("c"), "t", "token", time.Minute, 10, store.LetterCursor{})
				return err
			},
			func(v any) bool {
				return isRecord(v, isTime, flag01, isTexts, isScores, isTexts, isScore, isText) && columns(v, 2, 3)
			}},
		{"dead_release", list(int64(2)),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				_, err := key(rdb).ReleaseLetters(ctx, "token", []string{"a", "b", "c"})
				return err
			},
			func(v any) bool { return isInt(v, 0, 3) }},
		{"dead_settle", list("+-c", "rlt", "overtaken"),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				_, err := key(rdb).EndLetters(ctx, store.NewCaller("c"), store.Deleted, make([]store.LetterEnd, 3))
				return err
			},
			func(v any) bool {
				s, ok := v.(string)
				return ok && (s == "overtaken" || len(s) == 3 && strings.Trim(s, "+-crlt") == "")
			}},
		{"dead_trim", list("3,4", "0,0", "overtaken"),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				_, _, err := key(rdb).TrimLetters(ctx, store.NewCaller("c"), "t", 1, 0)
				return err
			},
			func(v any) bool {
				s, _ := v.(string)
				one, two, _ := strings.Cut(s, ",")
				return v == "overtaken" || isDigits(one) && isDigits(two)
			}},
		{"dead_hooks", list(list(int64(soon), list("a"), list("5"), list("x"))),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				_, err := key(rdb).TakeHooks(ctx, store.NewCaller("c"), "t", 10, time.Minute)
				return err
			},
			func(v any) bool { return isRecord(v, isTime, isTexts, isScores, isTexts) && columns(v, 1, 3) }},
		{"lock_acquire", list(list(int64(1), "7", int64(soon)), list(int64(0), "host", int64(soon), int64(5)), list(int64(-1))),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				token, held, err := lock(rdb).Acquire(ctx, "o", "l", time.Minute, 1)
				if err == nil && (held == nil) == (token == 0) {
					return wrong("token %d, held %v", token, held)
				}
				return err
			},
			func(v any) bool {
				return isRecord(v, is(int64(1)), isToken, isTime) || isRecord(v, is(int64(0)), isText, isTime, isCount) ||
					isRecord(v, is(int64(-1)))
			}},
		{"lock_renew", list(int64(1), int64(0)),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				_, err := lock(rdb).Renew(ctx, "o", time.Minute)
				return err
			}, flag01},
		{"lock_release", list(int64(1), int64(0)),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				_, err := lock(rdb).Release(ctx, "o", time.Minute)
				return err
			}, flag01},
		{"idem_claim", list(list("claimed", "7"), list("done", "result"), list("bare", "why"), list("busy"), list("reused"), list("overtaken")),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				_, _, _, err := store.OpenIdempotency(rdb).Claim(ctx, &store.EffectClaim{})
				return err
			},
			func(v any) bool {
				word := func(v any) bool { return v == "busy" || v == "reused" || v == "overtaken" }
				end := func(v any) bool { return v == "done" || v == "bare" }
				return isRecord(v, is("claimed"), isToken) || isRecord(v, end, isText) || isRecord(v, word)
			}},
		{"idem_extend", list(int64(1), int64(0)), fenced(func(s *store.Idempotency, ctx context.Context) (bool, error) {
			return s.Extend(ctx, &store.EffectClaim{})
		}), flag01},
		{"idem_complete", list(int64(1), int64(0)), fenced(func(s *store.Idempotency, ctx context.Context) (bool, error) {
			return s.Complete(ctx, &store.EffectClaim{}, nil, "")
		}), flag01},
		{"idem_release", list(int64(1), int64(0)), fenced(func(s *store.Idempotency, ctx context.Context) (bool, error) {
			return false, s.Release(ctx, &store.EffectClaim{})
		}), flag01},
	}
}

func isScores(v any) bool { return isList(v, -1, isScore) }

func soundIf(err error, c store.Claimed) error {
	if err != nil {
		return nil
	}
	return soundClaim(c)
}

// An answering hook gives every call the same reply, and never asks Redis.
type answering struct {
	rdb   *redis.Client
	reply any
	calls int
}

func newAnswering(t testing.TB) *answering {
	a := &answering{rdb: redis.NewClient(&redis.Options{})}
	a.rdb.AddHook(a)
	t.Cleanup(func() { _ = a.rdb.Close() })
	return a
}

func (a *answering) DialHook(next redis.DialHook) redis.DialHook { return next }

func (a *answering) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (a *answering) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error {
		if a.calls++; a.calls > 1 {
			cmd.SetErr(errAskedAgain)
			return errAskedAgain
		}
		return give(cmd, a.reply)
	}
}

// give answers a call as go-redis does.
func give(cmd redis.Cmder, reply any) error {
	switch cmd := cmd.(type) {
	case *redis.StringSliceCmd:
		flat, err := flatten(reply)
		cmd.SetVal(flat)
		cmd.SetErr(err)
	case *redis.Cmd:
		if reply == nil {
			cmd.SetErr(redis.Nil)
		}
		cmd.SetVal(reply)
	}
	return cmd.Err()
}

// flatten reads a reply as go-redis does for a list of strings.
func flatten(reply any) ([]string, error) {
	list, ok := reply.([]any)
	if !ok {
		return nil, fmt.Errorf("%#v is no list", reply)
	}
	out := make([]string, len(list))
	for i, v := range list {
		switch v := v.(type) {
		case nil:
		case string:
			out[i] = v
		case int64:
			out[i] = strconv.FormatInt(v, 10)
		default:
			return nil, fmt.Errorf("%#v is no string", v)
		}
	}
	return out, nil
}

var errAskedAgain = errors.New("asked again")

// TestRepliesOfScriptsAreAccepted: the replies that the fuzzing starts from.
func TestRepliesOfScriptsAreAccepted(t *testing.T) {
	t.Parallel()
	a := newAnswering(t)
	for _, c := range slices.Concat(answeredCalls(), checkCalls()) {
		for _, reply := range c.replies {
			if a.check(t, c, reply) {
				t.Errorf("%s refuses %#v", c.name, reply)
			}
		}
	}
}

// FuzzReplies: no reply makes a decoder panic; what a script does not say is an
// error and never a guess, and what it does say is none.
func FuzzReplies(f *testing.F) {
	calls := slices.Concat(answeredCalls(), checkCalls())
	for i := range calls {
		for j := range calls[i].replies {
			f.Add(byte(i), byte(j), []byte{}, "")
			f.Add(byte(i), byte(j), []byte{1, 5}, "0")
			f.Add(byte(i), byte(j), []byte{2, 8}, "")
			f.Add(byte(i), byte(j), []byte{3, 0, 0, 11}, "4,")
		}
	}
	a := newAnswering(f)
	f.Fuzz(func(t *testing.T, op, base byte, program []byte, text string) {
		c := calls[int(op)%len(calls)]
		a.check(t, c, bend(c.replies[int(base)%len(c.replies)], program[:min(len(program), 8)], text))
	})
}

func (a *answering) check(t *testing.T, c answered, reply any) (refused bool) {
	t.Helper()
	a.reply, a.calls = reply, 0
	err := c.call(t.Context(), a.rdb)
	refused = err != nil && !errors.Is(err, store.ErrOvertaken) && !errors.Is(err, store.ErrReleased)
	switch {
	case errors.Is(err, errWrong):
		t.Errorf("%s of the reply %#v: %v", c.name, reply, err)
	case c.says == nil: // what it took is checked instead
	case refused == c.says(reply):
		t.Errorf("%s of the reply %#v, which is right: %v; got %v", c.name, reply, c.says(reply), err)
	}
	return refused
}
