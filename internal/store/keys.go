package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// DefaultPrefix starts every key unless the user names another.
const DefaultPrefix = "redrive"

// MaxBatch bounds the jobs of one script call (I14): Lua's unpack fails at
// about 8,000 values, after earlier writes were made.
const MaxBatch = 500

// maxName is the length of the longest name.
const maxName = 128

// CheckName reports why s is no valid name of the kind given. Names hold no
// braces, so the hash tag of a key is always the queue's name alone.
func CheckName(kind, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%s is empty: give it a name", kind)
	case len(s) > maxName || !nameBytesOnly(s):
		return fmt.Errorf("%s %.140q is not a valid name: use 1 to 128 of A-Z a-z 0-9 _ . : -", kind, s)
	}
	return nil
}

// nameBytesOnly is on the path of every enqueue: a regular expression took 4 % of it.
func nameBytesOnly(s string) bool {
	for i := range len(s) {
		if strings.IndexByte(nameBytes, s[i]) < 0 {
			return false
		}
	}
	return true
}

// Keys names every key of one queue. They share the hash tag {queue}, so a
// queue is one slot of a cluster.
type Keys struct {
	Ready, Jobs, Ledger, Delayed string
	Workers, Owners, Bell, Stats string
	Dead, Letters, Hooks         string
	DeadTasks, Reviews           string
	// Channel hears the ids of jobs whose end a receipt may wait for.
	Channel string

	base string
}

// NewKeys returns the keys of a queue. Both names are valid by [CheckName].
func NewKeys(prefix, queue string) Keys {
	base := prefix + ":{" + queue + "}:"
	return Keys{
		Ready: base + "ready", Jobs: base + "jobs", Ledger: base + "ledger", Delayed: base + "delayed",
		Workers: base + "workers", Owners: base + "owners", Bell: base + "bell", Stats: base + "stats",
		Dead: base + "dead", Letters: base + "letters", Hooks: base + "hooks",
		DeadTasks: base + "deadtasks", Reviews: base + "reviews",
		Channel: base + "ended",
		base:    base,
	}
}

// Worker is the hash of what a worker owns: id → token.
func (k *Keys) Worker(worker string) string { return k.base + "w:" + worker }

// Lane remembers the last call of one producer lane.
func (k *Keys) Lane(lane string) string { return k.base + "p:" + lane }

// Result is a finished job's result.
func (k *Keys) Result(id string) string { return k.base + "r:" + id }

// DeadTask is the index of one task's dead letters, by time of death.
func (k *Keys) DeadTask(task string) string { return k.base + "dead:" + task }

// Why is the index of the dead letters of one reason, by time of death.
func (k *Keys) Why(reason string) string { return k.base + "why:" + reason }

// TaskHooks holds the dead letters of one task that a hook must hear of, by when
// it is due.
func (k *Keys) TaskHooks(task string) string { return k.base + "hooks:" + task }

// Memo remembers the last call of one caller, and its answer.
func (k *Keys) Memo(caller string) string { return k.base + "m:" + caller }

// lockKeys names the keys of one lock.
type lockKeys struct{ holders, details, fence string }

// newLockKeys gives a lock a slot of its own. Scope and name may be any text, and no
// two pairs share keys: both are escaped into the bytes of valid names and %XX, with
// a slash between them; what is too long for a key is replaced by its digest, behind
// a sign that nothing escaped has.
func newLockKeys(prefix, scope, name string) lockKeys {
	tag := escape(scope) + "/" + escape(name)
	if len(tag) > 256 {
		sum := sha256.Sum256([]byte(tag))
		tag = "~" + hex.EncodeToString(sum[:])
	}
	base := prefix + ":lock:{" + tag + "}:"
	return lockKeys{holders: base + "holders", details: base + "details", fence: base + "fence"}
}

// idempotencyKey names the record of one effect, in a slot of its own. A key is
// any text, so its digest stands for it; a digest has a fixed length and a task's
// name has no braces, so no two effects share a record.
func idempotencyKey(prefix, task, key string) string {
	sum := sha256.Sum256([]byte(key))
	return prefix + ":idem:{" + task + ":" + hex.EncodeToString(sum[:]) + "}"
}

// escape writes every byte that a valid name has not as %XX.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; strings.IndexByte(nameBytes, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

const nameBytes = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:-"
