package store

import (
	"strings"
	"testing"
)

// hashTag is the part of a key that decides its slot in a cluster, as the
// specification of Redis Cluster has it.
func hashTag(key string) string {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			return tag
		}
	}
	return key
}

// A named key belongs to what its name says, and shares a slot with its group.
type namedKey struct{ key, name, group string }

// allKeys are the keys that come of one input: a prefix, a valid name for what must
// have one, and any text for the rest.
func allKeys(prefix, queue, text string) (keys []namedKey) {
	add := func(group, key string, name ...string) {
		keys = append(keys, namedKey{key, strings.Join(name, "\x00"), group})
	}
	k := NewKeys(prefix, queue)
	for name, key := range map[string]string{
		"ready": k.Ready, "jobs": k.Jobs, "ledger": k.Ledger, "delayed": k.Delayed, "workers": k.Workers, "bell": k.Bell,
		"stats": k.Stats, "dead": k.Dead, "letters": k.Letters, "hooks": k.Hooks, "deadtasks": k.DeadTasks,
		"reviews": k.Reviews, "channel": k.Channel,
	} {
		add("queue", key, name, prefix, queue)
	}
	for name, key := range map[string]func(string) string{
		"worker": k.Worker, "lane": k.Lane, "result": k.Result, "dead of": k.DeadTask, "why": k.Why,
		"hooks of": k.TaskHooks, "memo": k.Memo,
	} {
		add("queue", key(text), name, prefix, queue, text)
	}
	lock := newLockKeys(prefix, queue, text)
	add("lock", lock.holders, "holders", prefix, queue, text)
	add("lock", lock.details, "details", prefix, queue, text)
	add("lock", lock.fence, "fence", prefix, queue, text)
	add("other lock", newLockKeys(prefix, text, queue).holders, "holders", prefix, text, queue)
	add("effect", idempotencyKey(prefix, queue, text), "effect", prefix, queue, text)
	return keys
}

// FuzzKeys: two different things never have one key, and what one script touches is
// in one slot of a cluster.
func FuzzKeys(f *testing.F) {
	f.Add("redrive", "mail", "ann", "redrive", "mail", "bob")
	f.Add("redrive", "mail", "a/b", "redrive:lock", "mail", "a%2Fb")
	f.Add("p", "q", "{x}", "p", "q", "}{")
	f.Add("p:", "q", "w:a", "p", ":q", "a")
	f.Add("p", "dead", "dead", "p", "dead:t", "t")
	f.Add("p", "q", strings.Repeat("ä", 200), "p", "q", strings.Repeat("ä", 199))
	f.Add("p", "q", "\x00", "p", "q", "")
	f.Fuzz(func(t *testing.T, prefix, queue, text, prefix2, queue2, text2 string) {
		for _, name := range []string{prefix, queue, prefix2, queue2} {
			if CheckName("name", name) != nil {
				return // never gets here
			}
		}
		owner := make(map[string]string)
		slot := make(map[string]string)
		for i, all := range [][]namedKey{allKeys(prefix, queue, text), allKeys(prefix2, queue2, text2)} {
			clear(slot)
			for _, k := range all {
				if other, ok := owner[k.key]; ok && other != k.name {
					t.Fatalf("%q is the key of %q and of %q", k.key, other, k.name)
				}
				owner[k.key] = k.name
				tag := hashTag(k.key)
				if first, ok := slot[k.group]; ok && first != tag {
					t.Fatalf("%q is not in the slot of %q", k.key, first)
				}
				slot[k.group] = tag
			}
			if want := []string{queue, queue2}[i]; slot["queue"] != want {
				t.Fatalf("a queue's tag is %q and not its name, %q", slot["queue"], want)
			}
		}
	})
}
