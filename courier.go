package redrive

import (
	"context"
	"runtime"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/redrive-go/redrive/internal/store"
)

// courierLane is the lane of a queue's courier; lane 0 is that of dispatch's claims
// and of the keeper.
const courierLane = 1

// A courier takes the attempts of a queue that have ended to Redis, and claims the next
// jobs in the same call while the queue has more. Whatever has ended by the time of a
// round goes together (group commit). A slot is free when Redis has confirmed the end
// of its job, not before.
//
// It has no goroutine of its own: a runner makes the round, one at a time.
type courier struct {
	q *served

	// Guarded by runners.mu.
	waiting []*attempt // have ended
	out     bool       // a round is due or under way
	since   time.Time  // when it became due

	// Of the round under way; the slices are reused.
	calls    int
	batch    []*attempt
	groups   [groupCount][]*attempt
	done     []store.Done
	putbacks []store.Putback
	burials  []store.Burial
}

// add takes an ended attempt; it never waits for Redis. The caller sees to it that a
// runner comes.
func (c *courier) add(a *attempt, now time.Time) {
	a.over.Store(true)
	r := &c.q.s.runners
	r.mu.Lock()
	defer r.mu.Unlock()
	c.waiting = append(c.waiting, a)
	if !c.out {
		c.goOut(now)
	}
}

// back ends a round; runners.mu is held.
func (c *courier) back(now time.Time) {
	c.out = false
	if len(c.waiting) > 0 {
		c.goOut(now)
	}
}

// goOut makes a round due; runners.mu is held.
func (c *courier) goOut(now time.Time) {
	r := &c.q.s.runners
	if !r.closed {
		c.out, c.since = true, now
		r.due = append(r.due, c)
	}
}

// take moves what waits into the batch. While handlers run, it yields before it takes,
// as long as that makes the batch grow: those that are about to return go along. Others
// do not, so what waits for patience is taken.
func (c *courier) take() {
	r := &c.q.s.runners
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := 0; n < len(c.waiting) && r.busy.Load() > 0 && time.Since(c.since) < patience; {
		n = len(c.waiting)
		r.mu.Unlock()
		runtime.Gosched()
		r.mu.Lock()
	}
	c.batch = append(c.batch[:0], c.waiting...)
	clear(c.waiting)
	c.waiting = c.waiting[:0]
}

// The groups of a batch: each is written by calls of its own.
const (
	groupDone = iota
	groupDiscarded
	groupPutback
	groupDead
	groupCount
)

func groupOf(a Action) int {
	switch a {
	case ActionDone:
		return groupDone
	case ActionDiscard:
		return groupDiscarded
	case ActionDead:
		return groupDead
	default:
		return groupPutback
	}
}

// round writes what has ended.
func (c *courier) round() {
	c.take()
	for _, a := range c.batch {
		g := groupOf(a.end.Action)
		c.groups[g] = append(c.groups[g], a)
	}
	left := len(c.batch)
	for g := range c.groups {
		for batch := c.groups[g]; len(batch) > 0; {
			n := min(len(batch), store.MaxBatch)
			left -= n
			c.settle(g, batch[:n], left == 0)
			batch = batch[n:]
		}
		clear(c.groups[g])
		c.groups[g] = c.groups[g][:0]
	}
	clear(c.batch)
}

// settle writes a part of one group, with the same call id until Redis answers
// (I6), or until the session gives up: then the jobs are still the worker's in
// Redis, and are put back by drain or by another worker. The last part of a batch
// claims.
func (c *courier) settle(group int, batch []*attempt, last bool) {
	q, s := c.q, c.q.s
	c.calls++
	by := store.Settler{Worker: s.id, Lane: courierLane, Call: strconv.Itoa(c.calls)}
	claim, news := 0, 0
	if last {
		if claim, news = s.schedule.next(&q.share, len(batch)); claim > 0 {
			q.calls[courierLane]++
			by.Next = &store.ClaimCall{Worker: s.id, Lane: courierLane, Call: q.calls[courierLane], N: claim}
		}
	}
	send := c.call(by, group, batch)
	var retry *backoff.ExponentialBackOff
	for {
		ctx, cancel := context.WithTimeout(s.settle, sendTimeout)
		settled, err := send(ctx)
		cancel()
		if err == nil {
			q.confirmed(batch, settled.Refused)
			if claim > 0 {
				y := q.take(s.running, settled.Claimed, claim)
				y.news = news
				s.schedule.claimed(&q.share, claim, y)
			}
			s.schedule.free(max(0, len(batch)-claim))
			if s.schedule.available() > 0 {
				s.wake() // dispatch claims for them, or listens
			}
			return
		}
		q.keeper.lost(err)
		if by.Next != nil {
			by.Next.Probe = true
		}
		if retry == nil {
			retry = newReconnect()
		}
		if !sleep(s.settle, retry.NextBackOff()) {
			s.log.Warn("redrive: gave up settling at shutdown", "queue", q.name, "jobs", len(batch), "error", err)
			return
		}
	}
}

// call builds the call of one group.
func (c *courier) call(by store.Settler, group int, batch []*attempt) func(context.Context) (store.Settled, error) {
	st := c.q.store
	switch group {
	case groupDone, groupDiscarded:
		c.done = c.done[:0]
		for _, a := range batch {
			c.done = append(c.done, store.Done{Owned: a.owned(), Result: a.result, TTL: a.resultTTL})
		}
		counter := store.Succeeded
		if group == groupDiscarded {
			counter = store.Discarded
		}
		return func(ctx context.Context) (store.Settled, error) { return st.Finish(ctx, by, counter, c.done) }
	case groupPutback:
		c.putbacks = c.putbacks[:0]
		for _, a := range batch {
			c.putbacks = append(c.putbacks, *a.putback)
		}
		return func(ctx context.Context) (store.Settled, error) { return st.Putback(ctx, by, c.putbacks) }
	default:
		c.burials = c.burials[:0]
		for _, a := range batch {
			c.burials = append(c.burials, *a.burial)
		}
		return func(ctx context.Context) (store.Settled, error) { return st.Bury(ctx, by, c.burials) }
	}
}

// confirmed ends the books on a batch.
func (q *served) confirmed(batch []*attempt, refused []int) {
	q.mu.Lock()
	for _, a := range batch {
		q.drop(a)
	}
	q.mu.Unlock()
	for i, a := range batch {
		if len(refused) > 0 && refused[0] == i {
			refused = refused[1:]
			q.lost(a)
			continue
		}
		q.report(a)
	}
}

// report tells the trace and the log what became of an attempt.
func (q *served) report(a *attempt) {
	m, e := &a.msg, &a.end
	if f := q.s.trace.JobSettled; f != nil {
		f(m, *e)
	}
	switch e.Action {
	case ActionDead:
		q.undertaker.buried(m.Task)
		q.s.log.Error("redrive: job is a dead letter", "queue", q.name, "task", m.Task, "id", m.ID,
			"reason", e.Reason, "retries", m.Retries, "error", errorText(e.Err))
	case ActionDiscard:
		q.s.log.Info("redrive: job discarded", "queue", q.name, "task", m.Task, "id", m.ID, "error", errorText(e.Err))
	}
}

// lost tells that a job's token was refused: another worker owns the job, or an
// earlier try had ended it and was forgotten along with the lease.
func (q *served) lost(a *attempt) {
	q.s.log.Warn("redrive: lease lost: the job's end was refused, another worker owns it or it was written before",
		"queue", q.name, "task", a.msg.Task, "id", a.msg.ID)
	if f := q.s.trace.JobLost; f != nil {
		f(&a.msg)
	}
}
