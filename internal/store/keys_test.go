package store

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestCheckName(t *testing.T) {
	t.Parallel()
	for _, ok := range []string{"a", "A-Z_0.9:x", strings.Repeat("x", 128)} {
		require.NoError(t, CheckName("name", ok))
	}
	for _, bad := range []string{"", "a b", "a{b}", "ä", "a/b", "a\x00", strings.Repeat("x", 129), " a", "a\n"} {
		require.ErrorContains(t, CheckName("name", bad), "name")
	}
}

// TestKeysOfDifferentInputsDiffer: two different inputs never give one key, and all
// keys of a queue share its hash tag.
func TestKeysOfDifferentInputsDiffer(t *testing.T) {
	t.Parallel()
	name := rapid.StringMatching(`[A-Za-z0-9_.:-]{1,12}`)
	keys := func(prefix, queue, suffix string) []string {
		k := NewKeys(prefix, queue)
		return []string{k.Ready, k.Jobs, k.Ledger, k.Delayed, k.Workers, k.Bell, k.Stats, k.Dead, k.Letters, k.Hooks, k.DeadTasks, k.Reviews, k.Channel,
			k.Worker(suffix), k.Lane(suffix), k.Result(suffix), k.DeadTask(suffix), k.Why(suffix), k.TaskHooks(suffix), k.Memo(suffix)}
	}
	rapid.Check(t, func(t *rapid.T) {
		p, q, s := name.Draw(t, "prefix"), name.Draw(t, "queue"), name.Draw(t, "suffix")
		p2, q2, s2 := name.Draw(t, "prefix2"), name.Draw(t, "queue2"), name.Draw(t, "suffix2")
		seen := make(map[string]bool)
		for _, key := range keys(p, q, s) {
			if seen[key] {
				t.Fatalf("%s is there twice", key)
			}
			seen[key] = true
			if !strings.Contains(key, ":{"+q+"}:") {
				t.Fatalf("%s has not the tag of %s", key, q)
			}
		}
		if p == p2 && q == q2 {
			return
		}
		for _, key := range keys(p2, q2, s2) {
			if seen[key] {
				t.Fatalf("%s belongs to %s/%s and to %s/%s", key, p, q, p2, q2)
			}
		}
	})
}
