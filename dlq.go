package redrive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/redrive-go/redrive/internal/store"
	"github.com/redrive-go/redrive/internal/wire"
)

// Errors about one dead letter. The text of what is returned names it.
var (
	// ErrNoDeadLetter: no dead letter has this id, or no longer.
	ErrNoDeadLetter = errors.New("no such dead letter")
	// ErrUnderReview: a reviewer has the letter, see [DeadLetters.Review].
	ErrUnderReview = errors.New("dead letter is under review")
	// ErrReviewLost: the lease of the review has lapsed and the letter was taken by
	// another, or dropped.
	ErrReviewLost = errors.New("review is lost")
	// ErrRedacted: the letter does not hold the arguments of its job, so the job
	// cannot run again. Edit the arguments, or delete the letter.
	ErrRedacted = errors.New("arguments are redacted")
	// ErrIDTaken: a job that waits or runs has the letter's id; only a producer other
	// than [Client] brings that about.
	ErrIDTaken = errors.New("a job has this id")
)

// DeadLetters are the dead letters of one queue. It holds no state and may be used
// by many goroutines.
//
// Every operation reads and writes in batches of at most 500 letters, and goes on trying for [ClientOptions.EnqueueTimeout] while Redis does not
// answer; letters that come and go meanwhile disturb none.
type DeadLetters struct {
	client *Client
	queue  string
	bound  time.Duration // how long to try; 0 = as long as the context allows
}

// DeadLetters returns the dead letters of a queue. Its methods return an error if
// the name is invalid.
func (c *Client) DeadLetters(queue string) *DeadLetters {
	return &DeadLetters{client: c, queue: queue, bound: c.opts.EnqueueTimeout}
}

// DeadLetterEntry is one dead letter: the job, why it died, and all that is known of
// its attempts.
type DeadLetterEntry struct {
	// TaskName and TaskID name the job. TaskName is "unknown" for a job that could
	// not be decoded.
	TaskName string `json:"task_name"`
	TaskID   string `json:"task_id"`
	// Args is the encoded arguments; null where they are in Data, Raw, or redacted.
	Args json.RawMessage `json:"args"`
	// Error is the text of the last error.
	Error string `json:"error"`
	// Retries counts the failures that were retried.
	Retries int `json:"retries"`
	// Timestamp is when the job died, by the clock of the worker that buried it.
	Timestamp time.Time `json:"timestamp"`
	// Reason is why no other attempt follows.
	Reason Reason `json:"reason"`
	// Queue is the queue that it belongs to.
	Queue string `json:"queue"`
	// Data is the encoded arguments if the task's codec is not JSON.
	Data []byte `json:"data,omitempty"`
	// Raw is the whole job, if it could not be decoded.
	Raw []byte `json:"raw,omitempty"`
	// Redacted says that Args is not what was enqueued; see [DeadLetterOptions.Redact].
	Redacted bool `json:"redacted,omitempty"`

	// EnqueuedAt, RunAt and FirstStartedAt are those of the [Message]; zero where the
	// job has none.
	EnqueuedAt     time.Time `json:"enqueued_at,omitzero"`
	RunAt          time.Time `json:"run_at,omitzero"`
	FirstStartedAt time.Time `json:"first_started_at,omitzero"`
	// Headers and IdempotencyKey are what the job was enqueued with.
	Headers        map[string]string `json:"headers,omitempty"`
	IdempotencyKey string            `json:"idempotency_key,omitempty"`
	// Worker buried the job.
	Worker string `json:"worker,omitempty"`

	// Starts counts all attempts of this generation; Crashes, Snoozes and Interrupts
	// those that ended so. Generation counts how often the job was requeued before.
	Starts     int `json:"starts,omitempty"`
	Crashes    int `json:"crashes,omitempty"`
	Snoozes    int `json:"snoozes,omitempty"`
	Interrupts int `json:"interrupts,omitempty"`
	Generation int `json:"generation,omitempty"`
	// Errors is the history over all generations: the first three records and the last
	// seven; ErrorsDropped counts those between.
	Errors        []ErrorRecord `json:"errors,omitempty"`
	ErrorsDropped int           `json:"errors_dropped,omitempty"`

	letter  wire.DeadLetter // as stored
	id      string
	indexed string // the task whose index has it
	sum     string // of the stored entry
	died    int64
	damaged error // the stored entry cannot be decoded
}

// letterEntry decodes a stored letter. Of one that does not decode, the entry has
// what the indexes tell, the error, and the stored bytes in Raw. task may be empty
// where it is not known.
func letterEntry(queue, task string, l store.Letter) *DeadLetterEntry {
	d, err := wire.ParseDeadLetter([]byte(l.Entry))
	e := &DeadLetterEntry{letter: d, id: l.ID, indexed: task, sum: l.Sum(), died: l.Died}
	if err != nil {
		e.damaged = fmt.Errorf("dead letter %s: %w", l.ID, err)
		e.TaskName, e.TaskID, e.Queue, e.Args = task, l.ID, queue, json.RawMessage("null")
		e.Error, e.Raw, e.Timestamp, e.Reason = e.damaged.Error(), []byte(l.Entry), time.UnixMilli(l.Died), ReasonMalformed
		return e
	}
	if task == "" {
		e.indexed = d.TaskName
	}
	e.TaskName, e.TaskID, e.Queue = d.TaskName, l.ID, queue
	e.Args, e.Data, e.Raw, e.Redacted = bytes.Clone(d.Args), bytes.Clone(d.Data), bytes.Clone(d.Raw), d.Redacted
	e.Error, e.Reason, e.Timestamp, e.Worker = d.Error, Reason(d.Reason), d.Timestamp, d.Worker
	e.EnqueuedAt, e.RunAt, e.FirstStartedAt = d.EnqueuedAt, d.RunAt, d.FirstStartedAt
	e.IdempotencyKey = d.IdempotencyKey
	if d.Headers != nil {
		e.Headers = make(map[string]string, len(d.Headers))
		for k, v := range d.Headers { // the caller may edit it
			e.Headers[k] = v
		}
	}
	e.Retries, e.Starts, e.Crashes, e.Snoozes, e.Interrupts = d.Retries, d.Starts, d.Crashes, d.Snoozes, d.Interrupts
	e.Generation, e.Errors, e.ErrorsDropped = d.Generation, errorRecords(d.Errors), d.ErrorsDropped
	return e
}

// Cursor is the entry's place among all letters, for [DeadLetterFilter.After]. It
// stays good when the letter is gone.
func (e *DeadLetterEntry) Cursor() string { return strconv.FormatInt(e.died, 10) + "-" + e.id }

// DeadLetterFilter selects dead letters; the zero value selects all.
type DeadLetterFilter struct {
	// Task is the name of a task. Defaults to all.
	Task string
	// Reason is why they died. Defaults to any.
	Reason Reason
	// ErrorContains is a part of the last error's text. Defaults to any text.
	ErrorContains string
	// Since and Until bound when they died, by the clock of Redis, both included, to
	// the millisecond. Default to no bound.
	Since, Until time.Time
	// Limit is how many at most. Defaults to no limit.
	Limit int
	// After goes on behind the entry with this [DeadLetterEntry.Cursor].
	// Defaults to the oldest.
	After string
}

// index returns what the indexes can tell, and where to begin.
func (f *DeadLetterFilter) index() (x store.LetterIndex, after store.LetterCursor, err error) {
	var errs []error
	if f.Task != "" {
		errs = append(errs, store.CheckName("DeadLetterFilter.Task", f.Task))
	}
	if f.Reason != "" && !slices.Contains(store.Reasons(), string(f.Reason)) {
		errs = append(errs, fmt.Errorf("DeadLetterFilter.Reason %q is not a reason of dead letters", f.Reason))
	}
	if f.Limit < 0 {
		errs = append(errs, fmt.Errorf("DeadLetterFilter.Limit is %d: use a positive number, or 0 for no limit", f.Limit))
	}
	x = store.LetterIndex{Task: f.Task, Reason: string(f.Reason)}
	if !f.Since.IsZero() {
		x.Since = max(f.Since.Add(time.Millisecond-1).UnixMilli(), 0)
	}
	if !f.Until.IsZero() {
		x.Until = max(f.Until.UnixMilli(), 1)
	}
	if f.After != "" {
		died, id, ok := strings.Cut(f.After, "-")
		after.ID = id
		if after.Died, err = strconv.ParseInt(died, 10, 64); err != nil || !ok || after.Died < 0 {
			errs = append(errs, fmt.Errorf("DeadLetterFilter.After %q is no cursor of an entry", f.After))
		}
	}
	return x, after, errors.Join(errs...)
}

func (f *DeadLetterFilter) match(e *DeadLetterEntry) bool {
	return (f.Reason == "" || e.Reason == f.Reason) && strings.Contains(e.Error, f.ErrorContains)
}

// All lists the letters that the filter selects, oldest first. It pages through the
// index of the task, or else of the reason, or else of all; so the cost of Task and
// of Reason alone is that of what they select, and every other condition is looked at
// letter by letter. Letters added or removed meanwhile may be seen or not; every
// other one is seen exactly once.
//
// For a letter that cannot be decoded it yields an entry with what is known, and an
// error; the next one follows. Any other error ends the sequence, with a nil entry.
func (d *DeadLetters) All(ctx context.Context, f DeadLetterFilter) iter.Seq2[*DeadLetterEntry, error] {
	return func(yield func(*DeadLetterEntry, error) bool) {
		for page, err := range d.pages(ctx, "list", f) {
			if err != nil {
				yield(nil, err)
				return
			}
			for _, e := range page.entries {
				var err error
				if e.damaged != nil {
					err = fmt.Errorf("redrive: list: %w", e.damaged)
				}
				if !yield(e, err) {
					return
				}
			}
		}
	}
}

// entryPage is what a page of an index has of a filter's entries.
type entryPage struct {
	now     time.Time
	entries []*DeadLetterEntry
}

// pages pages through what a filter selects. A page may be empty.
func (d *DeadLetters) pages(ctx context.Context, op string, f DeadLetterFilter) iter.Seq2[entryPage, error] {
	return func(yield func(entryPage, error) bool) {
		x, after, err := f.index()
		if err = errors.Join(d.check(), err); err != nil {
			yield(entryPage{}, fmt.Errorf("redrive: %s: %w", op, err))
			return
		}
		left := f.Limit
		for more := true; more; {
			limit := store.MaxBatch
			if left > 0 && f.ErrorContains == "" && (f.Reason == "" || f.Task == "") {
				limit = min(limit, left) // each counts
			}
			var p store.Page
			if err := d.do(ctx, op, func(ctx context.Context, q *store.Queue) (err error) {
				p, err = q.Letters(ctx, x, after, limit)
				return err
			}); err != nil {
				yield(entryPage{}, err)
				return
			}
			out := entryPage{now: p.Now}
			for _, l := range p.Letters {
				if e := letterEntry(d.queue, f.Task, l); f.match(e) {
					out.entries = append(out.entries, e)
				}
				if f.Limit > 0 && len(out.entries) == left {
					break
				}
			}
			left -= len(out.entries)
			after, more = p.Next, p.More && (f.Limit == 0 || left > 0)
			if !yield(out, nil) {
				return
			}
		}
	}
}

// check reports an invalid queue name.
func (d *DeadLetters) check() error { return store.CheckName("queue name", d.queue) }

// do performs an operation, again and again while Redis does not answer; it is one
// that may be performed again (I6). The error wraps [ErrUnavailable] when time is up.
func (d *DeadLetters) do(ctx context.Context, op string, f func(context.Context, *store.Queue) error) error {
	if err := d.check(); err != nil {
		return fmt.Errorf("redrive: %s: %w", op, err)
	}
	q, started, retry := d.client.queue(d.queue).store, time.Now(), newReconnect()
	for {
		try, cancel := context.WithTimeout(ctx, sendTimeout)
		err := f(try, q)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("redrive: %s: %w", op, ctx.Err())
		case !store.Transient(err):
			return fmt.Errorf("redrive: %w", err)
		case d.bound > 0 && time.Since(started) > d.bound:
			return fmt.Errorf("redrive: %w: %w", ErrUnavailable, err)
		}
		sleep(ctx, retry.NextBackOff())
	}
}

// Get returns one letter, or [ErrNoDeadLetter].
func (d *DeadLetters) Get(ctx context.Context, id string) (*DeadLetterEntry, error) {
	entries, err := d.get(ctx, "get", []string{id})
	switch {
	case err != nil:
		return nil, err
	case entries[0] == nil:
		return nil, fmt.Errorf("redrive: get %q: %w", id, ErrNoDeadLetter)
	case entries[0].damaged != nil:
		return entries[0], fmt.Errorf("redrive: get: %w", entries[0].damaged)
	}
	return entries[0], nil
}

// get looks up to a batch of letters up; nil for one that does not exist.
func (d *DeadLetters) get(ctx context.Context, op string, ids []string) ([]*DeadLetterEntry, error) {
	entries := make([]*DeadLetterEntry, len(ids))
	err := d.do(ctx, op, func(ctx context.Context, q *store.Queue) error {
		letters, err := q.LettersByID(ctx, ids)
		for i, l := range letters {
			entries[i] = nil
			if l.Entry == "" {
				continue
			}
			if entries[i] = letterEntry(d.queue, "", l); entries[i].damaged != nil {
				if entries[i].indexed, err = q.LetterTask(ctx, l.ID); err != nil {
					return err
				}
				entries[i].TaskName = entries[i].indexed
			}
		}
		return err
	})
	return entries, err
}

// Count counts the letters that the filter selects. Where a filter has neither
// ErrorContains nor both of Task and Reason, nor Limit and After, the index answers;
// else Count reads what [DeadLetters.All] reads.
func (d *DeadLetters) Count(ctx context.Context, f DeadLetterFilter) (int, error) {
	x, _, err := f.index()
	if err != nil {
		return 0, fmt.Errorf("redrive: count: %w", err)
	}
	n := 0
	if f.ErrorContains == "" && (f.Task == "" || f.Reason == "") && f.Limit == 0 && f.After == "" {
		err := d.do(ctx, "count", func(ctx context.Context, q *store.Queue) error {
			count, err := q.CountLetters(ctx, x)
			n = int(count)
			return err
		})
		return n, err
	}
	for page, err := range d.pages(ctx, "count", f) {
		if err != nil {
			return n, err
		}
		n += len(page.entries)
	}
	return n, nil
}

// DeadLetterCounts is how many dead letters a queue has. Tasks and reasons without
// any are left out.
type DeadLetterCounts struct {
	Total    int            `json:"total"`
	ByTask   map[string]int `json:"by_task"`
	ByReason map[Reason]int `json:"by_reason"`
}

// Counts counts all letters by task and by reason. It costs a step per task and
// reason, however many letters there are.
func (d *DeadLetters) Counts(ctx context.Context) (DeadLetterCounts, error) {
	out := DeadLetterCounts{}
	err := d.do(ctx, "count", func(ctx context.Context, q *store.Queue) error {
		c, err := q.LetterCounts(ctx)
		out = DeadLetterCounts{Total: int(c.Total), ByTask: make(map[string]int), ByReason: make(map[Reason]int)}
		for task, n := range c.Tasks {
			out.ByTask[task] = int(n)
		}
		for reason, n := range c.ByReason {
			out.ByReason[Reason(reason)] = int(n)
		}
		return err
	})
	return out, err
}

// newCaller names a caller of one operation.
func newCaller() *store.Caller { return store.NewCaller(uuid.NewString()) }
