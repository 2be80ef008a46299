package store_test

import (
	"context"
	"errors"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/store"
)

// checkCalls are the calls of a check. What a script says of each suspect stands in a
// string, one character for each.
func checkCalls() []answered {
	open := func(rdb redis.UniversalClient) *store.Queue { return store.Open(rdb, "p", "q") }
	isCodes := func(kinds string, n int) func(v any) bool {
		return func(v any) bool {
			s, ok := v.(string)
			return ok && len(s) == n && strings.Trim(s, kinds) == ""
		}
	}
	isMoves := func(v any) bool {
		s, _ := v.(string)
		n, ok := new(big.Int).SetString(s, 10)
		return v == "" || ok && n.IsInt64() && n.String() == s
	}
	isCursor := func(v any) bool {
		s, _ := v.(string)
		_, err := strconv.ParseUint(s, 10, 64)
		return err == nil
	}
	isLook := func(v any, n int) bool {
		if !isRecord(v, func(v any) bool { return isList(v, n, isText) }, isText, isTexts) {
			return false
		}
		list := v.([]any)
		return isCodes(".xmog", len(list[0].([]any)))(list[1]) && strings.Count(list[1].(string), "o") == len(list[2].([]any))
	}
	return []answered{
		{"check_ids", list(list("0", list("a", "b"), int64(7)), list("0", list(), int64(0))),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				_, err := open(rdb).CheckIDs(ctx)
				if errors.Is(err, errAskedAgain) { // the cursor says that there is more
					return nil
				}
				return err
			},
			func(v any) bool { return isRecord(v, isCursor, isTexts, isCount) }},
		{"check_look ids", list(list(list("a", "b", "c"), ".xm", list()), list(list("a", "b", "c"), "oog", list("s", "t"))),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				ids, codes, sums, err := open(rdb).CheckLook(ctx, "ids", "a", "b", "c")
				if err == nil && (len(ids) != 3 || len(codes) != 3 || len(sums) > 3) {
					return wrong("%q %q %q", ids, codes, sums)
				}
				return err
			},
			func(v any) bool {
				return isLook(v, 3) && slices.Equal(v.([]any)[0].([]any), list("a", "b", "c"))
			}},
		{"check_look ready", list(list(list("a", "b"), ".x", list()), list(list(), "", list())),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				_, _, _, err := open(rdb).CheckLook(ctx, "ready", "0", "499")
				return err
			},
			func(v any) bool { return isLook(v, -1) }},
		{"check_moves", list("0", "17", "-3", "", "overtaken"),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				_, err := open(rdb).CheckMoves(ctx)
				return err
			},
			func(v any) bool { return v == "overtaken" || isMoves(v) }},
		{"check_mend", list("0:.xo", "12:XML", ":...", "owners", "overtaken"),
			func(ctx context.Context, rdb redis.UniversalClient) error {
				var bad error
				moved, n, err := open(rdb).CheckVerdict(ctx, func(d store.Damage, id string, _ bool) {
					if !strings.ContainsRune("xoml", rune(d)) || !strings.Contains("abc", id) {
						bad = wrong("%c of %q", d, id)
					}
				}, "a", "b", "c")
				if err == nil && (n < 0 || n > 3 || moved != "owners" && !isMoves(moved)) {
					bad = wrong("%q, %d", moved, n)
				}
				return errors.Join(bad, err)
			},
			func(v any) bool {
				s, _ := v.(string)
				moved, codes, ok := strings.Cut(s, ":")
				return v == "owners" || v == "overtaken" || ok && isMoves(moved) && isCodes(".xomlXOML", 3)(codes)
			}},
	}
}

// TestAnswersThatACheckCannotTrustAreErrors: what is almost an answer.
func TestAnswersThatACheckCannotTrustAreErrors(t *testing.T) {
	t.Parallel()
	almost := map[string][]any{
		"check_ids": {
			list("0", list("a", nil), int64(7)), list("0", list("a"), "7"), list("", list("a"), int64(7)),
			list("-1", list("a"), int64(7)), list("0", "a", int64(7)), list("0", list("a")),
		},
		"check_look ids": {
			list(list("a", "b", "c"), ".z.", list()), list(list("b", "a", "c"), "...", list()),
			list(list("a", "b", "c"), "o..", list()), list(list("a", "b", "c"), "o..", list(int64(1))),
			list(list("a", "b", "c"), "..", list()), list(list(), "", list()),
		},
		"check_look ready": {list(list("a", int64(1)), "..", list()), list(list("a"), "", list())},
		"check_moves":      {"many", "1.5", "01", "-0", "99999999999999999999", " 1", int64(1), nil},
		"check_mend":       {"0:...x", "0:.z.", "0:..g", "...", "x:...", "01:...", "0:..\x0e", "Owners", int64(0)},
	}
	a := newAnswering(t)
	for _, c := range checkCalls() {
		require.NotEmpty(t, almost[c.name])
		for _, reply := range almost[c.name] {
			require.False(t, c.says(reply), "%s: %#v", c.name, reply)
			require.True(t, a.check(t, c, reply), "%s accepts %#v", c.name, reply)
		}
	}
}
