package redrive

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/redrive-go/redrive/internal/store"
	"github.com/redrive-go/redrive/internal/wire"
)

// Damage is a kind of structural damage. None comes from redrive's own doing: keys
// that Redis evicted, edits by hand, other producers, a restored backup.
type Damage string

// The kinds of damage, what [Client.Check] does about each, and what is left undone.
const (
	// DamageNoPayload: a job waits or runs and has no envelope. There is nothing to
	// run: it is removed. One that a live worker runs is left to that worker, which has
	// the payload in memory.
	DamageNoPayload Damage = "no payload"
	// DamageNotIndexed: a job has an envelope, and neither waits nor has an owner: it
	// goes to the tail of its queue. No counter of the job moves.
	DamageNotIndexed Damage = "not indexed"
	// DamageSeveralPlaces: a job is in more than one place, and would run more than
	// once. The most advanced stays: the owner that claimed it last, else the delay,
	// else the place nearest to the head. What another owner does with it is refused.
	DamageSeveralPlaces Damage = "several places"
	// DamageStrayLedger: counters and history of a job that is gone are deleted.
	DamageStrayLedger Damage = "stray ledger"
	// DamageOwnerGone: a worker owns jobs and has no lease, not even a lapsed one, so
	// nobody would ever take them over. The id is the worker's name. It gets a lease of
	// 30 seconds: it renews it if it lives; else other workers put its jobs to the
	// front, with one more crash, as they do for any worker that died.
	DamageOwnerGone Damage = "owner gone"
	// DamageNeverDue: a delayed job is due after the year 9999, as when its time was
	// given in microseconds. It is due when its envelope says, or now.
	DamageNeverDue Damage = "never due"
	// DamageBadCounter: a counter of the queue is no number, and scripts that raise it
	// fail. The id is its name. It starts over.
	DamageBadCounter Damage = "bad counter"
	// DamageBell: the list that wakes workers has more than one element: it is cut.
	// That it has none while jobs wait is no damage.
	DamageBell Damage = "bell too long"
	// DamageNoLetter: an index of dead letters, or a review, names one that has no
	// entry. It is removed from them.
	DamageNoLetter Damage = "no letter"
	// DamageLetterMisfiled: a dead letter is not in the indexes of all, of its task and
	// of its reason, and in no other. It is filed as its entry says; one that cannot be
	// read stays where it is, or goes under the task "unknown".
	DamageLetterMisfiled Damage = "letter misfiled"
	// DamageLetterAlive: a job that waits or runs is a dead letter, too. It is left:
	// both may be wanted, and the end of the job mends it. Delete the letter, or let
	// the job end.
	DamageLetterAlive Damage = "letter of a live job"
	// DamageTaskMislisted: a task is not listed as its dead letters and their hooks
	// are. The id is the task's name. It is listed anew.
	DamageTaskMislisted Damage = "task mislisted"
	// DamageStrayHook: a hook waits for what is no dead letter of its task. It does no
	// longer.
	DamageStrayHook Damage = "stray hook"
)

var damages = map[store.Damage]Damage{
	store.NoPayload: DamageNoPayload, store.NotIndexed: DamageNotIndexed, store.SeveralPlaces: DamageSeveralPlaces,
	store.StrayLedger: DamageStrayLedger, store.OwnerGone: DamageOwnerGone, store.NeverDue: DamageNeverDue,
	store.BadCounter: DamageBadCounter, store.BellTooLong: DamageBell, store.NoLetter: DamageNoLetter,
	store.LetterMisfiled: DamageLetterMisfiled, store.LetterAlive: DamageLetterAlive,
	store.TaskMislisted: DamageTaskMislisted, store.StrayHook: DamageStrayHook,
}

// MaxCheckIDs bounds [CheckFinding.IDs].
const MaxCheckIDs = 10

// A CheckFinding is all damage of one kind.
type CheckFinding struct {
	Damage Damage
	// Found is how often there was such damage; Mended of them were mended.
	Found, Mended int
	// IDs name the first, up to [MaxCheckIDs], in no order.
	IDs []string
}

// A CheckReport says what a check found and did. It holds ids and no payloads.
type CheckReport struct {
	// Queue is the queue's name. Repair is true if the check was asked to mend.
	Queue  string
	Repair bool
	// Findings has an element per kind of damage that there was, in order of name.
	Findings []CheckFinding
	// Elapsed is how long it took.
	Elapsed time.Duration
}

// Sound reports whether nothing was found.
func (r CheckReport) Sound() bool { return len(r.Findings) == 0 }

// Finding returns what was found of one kind; zeros if that is nothing.
func (r CheckReport) Finding(d Damage) CheckFinding {
	for _, f := range r.Findings {
		if f.Damage == d {
			return f
		}
	}
	return CheckFinding{Damage: d}
}

// String says it in a line per kind.
func (r CheckReport) String() string {
	if r.Sound() {
		return fmt.Sprintf("queue %s is sound", r.Queue)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "queue %s is damaged", r.Queue)
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "\n%s: %d found, %d mended: %s", f.Damage, f.Found, f.Mended, strings.Join(f.IDs, " "))
		if f.Found > len(f.IDs) {
			b.WriteString(" …")
		}
	}
	return b.String()
}

// LogValue gives log/slog the counts per kind.
func (r CheckReport) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("queue", r.Queue), slog.Bool("repair", r.Repair), slog.Duration("elapsed", r.Elapsed)}
	for _, f := range r.Findings {
		attrs = append(attrs, slog.Group(string(f.Damage), slog.Int("found", f.Found), slog.Int("mended", f.Mended)))
	}
	return slog.GroupValue(attrs...)
}

// Check looks a queue through for structural damage, and mends it with repair. It
// needs no maintenance window: jobs that move while it looks are no damage, for each
// finding is confirmed, and mended, by a script that sees all places of a job at one
// instant. It may be called again at any time, from several places at once.
//
// It reads all of the queue, in steps of at most 500 jobs, and keeps some 40 bytes of
// memory per waiting job. One step costs more: no index says whether a job is ready,
// so confirming a finding may walk that list, by a million elements a step, some 15 ms
// of Redis's time.
//
// With an error, the report has what was found before it.
func (c *Client) Check(ctx context.Context, queue string, repair bool) (CheckReport, error) {
	r := CheckReport{Queue: queue, Repair: repair}
	if err := store.CheckName("queue name", queue); err != nil {
		return r, fmt.Errorf("redrive: Check: %w", err)
	}
	began, found := time.Now(), make(map[Damage]*CheckFinding)
	err := c.queue(queue).store.Check(ctx, store.Check{
		By: newCaller(), Mend: repair, Due: envelopeDue, Letter: letterFacts,
		Found: func(kind store.Damage, id string, mended bool) {
			d := damages[kind]
			f := found[d]
			if f == nil {
				f = &CheckFinding{Damage: d}
				found[d] = f
			}
			f.Found++
			if mended {
				f.Mended++
			}
			if len(f.IDs) < MaxCheckIDs {
				f.IDs = append(f.IDs, id)
			}
		},
	})
	for _, d := range slices.Sorted(maps.Keys(found)) {
		r.Findings = append(r.Findings, *found[d])
	}
	r.Elapsed = time.Since(began)
	if err == nil {
		return r, nil
	}
	if ctx.Err() == nil && store.Transient(err) {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return r, fmt.Errorf("redrive: %w", err)
}

// envelopeDue is when the job of an envelope is due, ms; 0 if that says nothing.
func envelopeDue(envelope string) int64 {
	env, err := wire.ParseEnvelope([]byte(envelope))
	if err != nil {
		return 0
	}
	return env.RunAt
}

// letterFacts says where a dead letter belongs.
func letterFacts(entry string) (task, reason string, died int64, ok bool) {
	d, err := wire.ParseDeadLetter([]byte(entry))
	if err != nil || d.TaskName == "" {
		return "", "", 0, false
	}
	return d.TaskName, d.Reason, wire.Millis(d.Timestamp), true
}
