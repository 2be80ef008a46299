package store

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// No two locks share a key, and a lock's keys are in one slot of a cluster.
func TestLockKeysAreInjective(t *testing.T) {
	text := rapid.OneOf(
		rapid.StringOfN(rapid.RuneFrom([]rune(`ab:/%2F{}~`)), 0, 8, -1),
		rapid.StringOfN(rapid.Just('ä'), 0, 200, -1),
		rapid.String(),
	)
	rapid.Check(t, func(t *rapid.T) {
		a, b := text.Draw(t, "a"), text.Draw(t, "b")
		c, d := text.Draw(t, "c"), text.Draw(t, "d")
		one, two := newLockKeys("p", a, b), newLockKeys("p", c, d)
		if (one == two) != (a == c && b == d) {
			t.Fatalf("%q %q and %q %q: %v %v", a, b, c, d, one, two)
		}
		for _, k := range []string{one.holders, one.details, one.fence} {
			if strings.Count(k, "{") != 1 || strings.Count(k, "}") != 1 || !strings.HasPrefix(k, "p:lock:{") {
				t.Fatalf("key %q", k)
			}
		}
	})
	require.Equal(t, "redrive:lock:{report/ann%40example.com}:fence", newLockKeys("redrive", "report", "ann@example.com").fence)
	require.NotEqual(t, newLockKeys("p", "a", "b/c"), newLockKeys("p", "a/b", "c"))
}
