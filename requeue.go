package redrive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redrive-go/redrive/internal/store"
	"github.com/redrive-go/redrive/internal/wire"
)

// idBatch is how many letters are looked up by id at once: their size is not known.
const idBatch = 100

// maxLooks bounds how often a letter that changes is looked at again.
const maxLooks = 5

var errChanged = errors.New("it changes all the time, or its indexes are damaged")

// job makes the job that a letter becomes: its counters start over, its generation
// is one higher, its history is kept, and its age counts from now. What the caller
// edited goes along: TaskName, Args, Data, Raw, Headers and IdempotencyKey.
func (e *DeadLetterEntry) job(now time.Time, maxPayload int) (envelope, ledger []byte, err error) {
	d := e.letter
	edited := !bytes.Equal(e.Args, d.Args) || !bytes.Equal(e.Data, d.Data)
	switch {
	case e.damaged != nil:
		return nil, nil, e.damaged
	case d.Redacted && !edited && e.Raw == nil:
		return nil, nil, fmt.Errorf("dead letter %s: %w: edit them, or delete it", e.id, ErrRedacted)
	case edited && len(e.Args)+len(e.Data) > maxPayload:
		return nil, nil, fmt.Errorf("dead letter %s: %w: ClientOptions.MaxPayload is %d bytes", e.id, ErrPayloadTooLarge, maxPayload)
	case e.Raw == nil:
		if err := store.CheckName("task name", e.TaskName); err != nil {
			return nil, nil, fmt.Errorf("dead letter %s: %w", e.id, err)
		}
	}
	d.TaskName, d.Args, d.Data, d.Raw, d.Redacted = e.TaskName, e.Args, e.Data, e.Raw, false
	d.Headers, d.IdempotencyKey, d.RunAt = e.Headers, e.IdempotencyKey, now
	if envelope, err = d.Envelope(); err != nil {
		return nil, nil, fmt.Errorf("dead letter %s: %w", e.id, err)
	}
	l := wire.Ledger{Generation: d.Generation + 1, Errors: d.Errors, Dropped: d.ErrorsDropped}
	return envelope, l.Append(nil), nil
}

// ending is how the letter ends if it is still the one that was read.
func (e *DeadLetterEntry) ending() store.LetterEnd {
	return store.LetterEnd{ID: e.id, Task: e.indexed, Sum: e.sum}
}

// end ends up to a batch of letters, in one call.
func (d *DeadLetters) end(ctx context.Context, op string, by *store.Caller, counter store.Counter, ends []store.LetterEnd) (fates []store.LetterFate, err error) {
	by.Next()
	err = d.do(ctx, op, func(ctx context.Context, q *store.Queue) error {
		// A call that is on its way is better answered than given up.
		try, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
		defer cancel()
		fates, err = q.EndLetters(try, by, counter, ends)
		return err
	})
	return fates, err
}

// fateError says why a letter was not ended.
func fateError(id string, fate store.LetterFate) error {
	why := ErrNoDeadLetter
	switch fate {
	case store.LetterReviewed:
		why = ErrUnderReview
	case store.LetterLost:
		why = ErrReviewLost
	case store.LetterTaken:
		why = ErrIDTaken
	case store.LetterChanged:
		why = errChanged
	}
	return fmt.Errorf("dead letter %s: %w", id, why)
}

// Requeue makes letters jobs again, at the tail of their queue. Such a job has all
// its retries again, a [Message.Generation] one higher, and its error history; its
// MaxAge counts anew. The letter is gone in the same step. It returns how many it
// requeued, and the errors of all others, each with its id: [ErrNoDeadLetter],
// [ErrRedacted], [ErrUnderReview], or that of Redis.
func (d *DeadLetters) Requeue(ctx context.Context, ids ...string) (int, error) {
	return d.endByID(ctx, "requeue", store.Requeued, ids, func(e *DeadLetterEntry) (end store.LetterEnd, err error) {
		end = e.ending()
		end.Envelope, end.Ledger, err = e.job(time.Now(), d.client.opts.MaxPayload)
		return end, err
	})
}

// Delete deletes letters for good. It returns how many it deleted: one that does not
// exist is no error, one under review is [ErrUnderReview].
func (d *DeadLetters) Delete(ctx context.Context, ids ...string) (int, error) {
	return d.endByID(ctx, "delete", store.Deleted, ids, func(e *DeadLetterEntry) (store.LetterEnd, error) {
		return e.ending(), nil
	})
}

// endByID ends letters by id, each as plan says. A letter that becomes another
// between the look and the end is looked at again.
func (d *DeadLetters) endByID(ctx context.Context, op string, counter store.Counter, ids []string,
	plan func(*DeadLetterEntry) (store.LetterEnd, error)) (n int, err error) {
	if err := d.check(); err != nil {
		return 0, fmt.Errorf("redrive: %s: %w", op, err)
	}
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	by := newCaller()
	var errs []error
	looks := make(map[string]int)
	for len(ids) > 0 {
		batch := ids[:min(idBatch, len(ids))]
		entries, err := d.get(ctx, op, batch)
		if err != nil {
			return n, errors.Join(append(errs, err)...)
		}
		var again []string
		var ends []store.LetterEnd
		for i, e := range entries {
			if e == nil {
				if op == "requeue" {
					errs = append(errs, fateError(batch[i], store.LetterMissing))
				}
				continue
			}
			end, err := plan(e)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			ends = append(ends, end)
		}
		if len(ends) > 0 {
			fates, err := d.end(ctx, op, by, counter, ends)
			if err != nil {
				return n, errors.Join(append(errs, err)...)
			}
			for i, fate := range fates {
				switch {
				case fate == store.LetterDone:
					n++
				case (fate == store.LetterChanged || fate == store.LetterMissing) && looks[ends[i].ID] < maxLooks:
					looks[ends[i].ID]++
					again = append(again, ends[i].ID)
				default:
					errs = append(errs, fateError(ends[i].ID, fate))
				}
			}
		}
		ids = append(again, ids[len(batch):]...)
	}
	if err := errors.Join(errs...); err != nil {
		return n, fmt.Errorf("redrive: %s: %w", op, err)
	}
	return n, nil
}

// Purge deletes all letters that the filter selects and that have died before it was
// called, in bounded batches, and returns how many. Letters under review stay.
func (d *DeadLetters) Purge(ctx context.Context, f DeadLetterFilter) (int, error) {
	if err := d.upToNow(ctx, "purge", &f); err != nil {
		return 0, err
	}
	n, by := 0, newCaller()
	for page, err := range d.pages(ctx, "purge", f) {
		if err != nil {
			return n, err
		}
		if len(page.entries) == 0 {
			continue
		}
		ends := make([]store.LetterEnd, len(page.entries))
		for i, e := range page.entries {
			ends[i] = e.ending()
		}
		fates, err := d.end(ctx, "purge", by, store.Deleted, ends)
		if err != nil {
			return n, err
		}
		for _, fate := range fates {
			if fate == store.LetterDone {
				n++
			}
		}
	}
	return n, nil
}

// upToNow bounds the filter by the clock of Redis, and returns when that has gone
// on: no letter that comes of what is done next has the time of the bound.
func (d *DeadLetters) upToNow(ctx context.Context, op string, f *DeadLetterFilter) error {
	var now time.Time
	if err := d.do(ctx, op, func(ctx context.Context, q *store.Queue) (err error) {
		now, err = q.Now(ctx)
		return err
	}); err != nil {
		return err
	}
	if f.Until.IsZero() || f.Until.After(now) {
		f.Until = now
	}
	sleep(ctx, 2*time.Millisecond)
	return nil
}
