package redrive

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/redrive-go/redrive/internal/store"
)

// drainLease is how long drained letters are out of reach of others while they are
// on their way to the caller.
const drainLease = time.Minute

// A ReviewedLetter is a dead letter that its reviewer alone may end, until the lease
// lapses. Its entry may be edited before [ReviewedLetter.Requeue]. Not safe for
// concurrent use.
type ReviewedLetter struct {
	*DeadLetterEntry
	// Until is when the lease lapses, by the clock of this process.
	Until time.Time

	d     *DeadLetters
	token string
}

// Review takes up to n letters of a task, oldest first, for a reviewer: until the
// lease lapses nobody else drains, requeues, redrives, purges or reviews them, and
// each is to be ended with Resolve, Requeue or Release. They stay dead letters all the
// while, so whatever becomes of the reviewer loses none; those that it did not end
// are anybody's again when the lease has lapsed. Only the retention of
// [DeadLetterOptions] does not wait.
//
// It returns fewer than n, or none, when there are no more. With an error it returns
// what it has taken by then.
func (d *DeadLetters) Review(ctx context.Context, task string, n int, lease time.Duration) ([]*ReviewedLetter, error) {
	if lease <= 0 {
		return nil, fmt.Errorf("redrive: review: lease is %v: use a positive duration", lease)
	}
	var out []*ReviewedLetter
	err := d.take(ctx, "review", task, n, lease, func(batch []*ReviewedLetter) error {
		out = append(out, batch...)
		return nil
	})
	return out, err
}

// take takes letters in bounded batches, each under a token of its own.
func (d *DeadLetters) take(ctx context.Context, op, task string, n int, lease time.Duration, each func([]*ReviewedLetter) error) error {
	err := store.CheckName("task name", task)
	if err == nil && n <= 0 {
		err = fmt.Errorf("n is %d: use a positive number", n)
	}
	if err != nil {
		return fmt.Errorf("redrive: %s: %w", op, err)
	}
	by := newCaller()
	var after store.LetterCursor
	for more := true; more && n > 0; {
		by.Next()
		token := uuid.NewString()
		until := time.Now().Add(lease) // from before it was asked for: never too late
		var p store.Page
		if err := d.do(ctx, op, func(ctx context.Context, q *store.Queue) (err error) {
			p, err = q.TakeLetters(ctx, by, task, token, lease, n, after)
			return err
		}); err != nil {
			return err
		}
		batch := make([]*ReviewedLetter, 0, len(p.Letters))
		for _, l := range p.Letters {
			if l.Entry == "" { // dropped since: the answer is that to a call sent again
				continue
			}
			batch = append(batch, &ReviewedLetter{
				DeadLetterEntry: letterEntry(d.queue, task, l), Until: until, d: d, token: token,
			})
		}
		if err := each(batch); err != nil {
			return err
		}
		n -= len(batch)
		after, more = p.Next, p.More
	}
	return nil
}

// Resolve ends the letter for good: the reviewer has dealt with it. It returns
// [ErrReviewLost] if others have taken the letter since the lease lapsed, if it was
// dropped, or if the review has ended (also by a call that returned an error because
// no answer came).
func (r *ReviewedLetter) Resolve(ctx context.Context) error {
	return r.end(ctx, "resolve", store.Drained, r.held())
}

// Requeue makes the letter, as edited, a job again, as [DeadLetters.Requeue] does. It
// returns [ErrReviewLost] as Resolve does, and [ErrRedacted] if the arguments are
// redacted and were not edited.
func (r *ReviewedLetter) Requeue(ctx context.Context) (err error) {
	end := r.held()
	if end.Envelope, end.Ledger, err = r.job(time.Now(), r.d.client.opts.MaxPayload); err != nil {
		return fmt.Errorf("redrive: requeue: %w", err)
	}
	return r.end(ctx, "requeue", store.Requeued, end)
}

// Release ends the review and leaves the letter as it was. It is no error if the
// review has ended.
func (r *ReviewedLetter) Release(ctx context.Context) error {
	return r.d.do(ctx, "release", func(ctx context.Context, q *store.Queue) error {
		_, err := q.ReleaseLetters(ctx, r.token, []string{r.id})
		return err
	})
}

// held is the end of the letter under this review.
func (r *ReviewedLetter) held() store.LetterEnd {
	return store.LetterEnd{ID: r.id, Task: r.indexed, Token: r.token}
}

func (r *ReviewedLetter) end(ctx context.Context, op string, counter store.Counter, end store.LetterEnd) error {
	fates, err := r.d.end(ctx, op, newCaller(), counter, []store.LetterEnd{end})
	if err == nil && fates[0] != store.LetterDone {
		err = fmt.Errorf("redrive: %s: %w", op, fateError(r.id, fates[0]))
	}
	return err
}

// Drain removes up to n letters of a task, oldest first, and returns them. It takes
// them under review and ends that once it has them, so a letter is gone only after
// this process had it: an answer that is lost, or a process that dies on the way,
// loses none. What was returned is the caller's alone; if the caller may die over it,
// use [DeadLetters.Review].
//
// With an error it returns what it has by then; the last batch of that may be drained
// again a minute later.
func (d *DeadLetters) Drain(ctx context.Context, task string, n int) ([]*DeadLetterEntry, error) {
	var out []*DeadLetterEntry
	by := newCaller()
	err := d.take(ctx, "drain", task, n, drainLease, func(batch []*ReviewedLetter) error {
		ends := make([]store.LetterEnd, len(batch))
		for i, r := range batch {
			ends[i] = r.held()
		}
		fates := make([]store.LetterFate, len(batch))
		var err error
		if len(ends) > 0 {
			fates, err = d.end(ctx, "drain", by, store.Drained, ends)
		}
		for i, r := range batch {
			if err != nil || fates[i] == store.LetterDone {
				out = append(out, r.DeadLetterEntry)
			}
		}
		return err
	})
	return out, err
}
