package redrive

import (
	"context"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/cenkalti/backoff/v4"

	"github.com/redrive-go/redrive/internal/store"
)

// courierLane is the lane of a queue's courier; lane 0 is that of dispatch's claims
// and of the keeper.
const courierLane = 1

// An outbox holds the attempts of one queue that have ended, until the courier takes
// them to Redis. Whatever has ended while it was away goes together (group commit).
type outbox struct {
	more *atomic.Bool // attempts wait for a runner: flush is called when none do

	mu      sync.Mutex
	filled  sync.Cond
	waiting []*attempt
	stopped bool
}

// keep is how many ended attempts may wait for others that are about to be run.
const keep = 8

// add takes an ended attempt; it never waits for Redis. The courier hears of it at
// once, or of a few together while more wait for a runner: handlers that return at
// once are not worth a call each.
func (o *outbox) add(a *attempt) {
	a.over.Store(true)
	o.mu.Lock()
	o.waiting = append(o.waiting, a)
	few := len(o.waiting) < keep
	o.mu.Unlock()
	if !few || !o.more.Load() { // looked at after adding: the flush to come sees it
		o.filled.Signal()
	}
}

// flush tells the courier of what add has kept.
func (o *outbox) flush() {
	o.mu.Lock()
	kept := len(o.waiting) > 0
	o.mu.Unlock()
	if kept {
		o.filled.Signal()
	}
}

// stop lets the courier end once nothing waits.
func (o *outbox) stop() {
	o.mu.Lock()
	o.stopped = true
	o.mu.Unlock()
	o.filled.Signal()
}

// take moves what waits into batch; it blocks until there is something, and
// returns nothing after stop. While handlers run, it yields before it takes, as long
// as that makes the batch grow: those that are about to return go along.
func (o *outbox) take(batch []*attempt, busy *atomic.Int64) []*attempt {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.waiting) == 0 && !o.stopped {
		o.filled.Wait()
	}
	for n := 0; n < len(o.waiting) && busy.Load() > 0; {
		n = len(o.waiting)
		o.mu.Unlock()
		runtime.Gosched()
		o.mu.Lock()
	}
	batch = append(batch, o.waiting...)
	clear(o.waiting)
	o.waiting = o.waiting[:0]
	return batch
}

// A courier writes the ends of a queue's attempts, and claims the next jobs in the
// same call while the queue has more. A slot is free when Redis has confirmed the
// end of its job, not before.
//
// Its goroutine, loop, ends after [outbox.stop], once nothing waits or the session
// gives up.
type courier struct {
	q *served

	// Of the loop's goroutine; the slices are reused.
	calls    int
	batch    []*attempt
	groups   [groupCount][]*attempt
	done     []store.Done
	putbacks []store.Putback
	burials  []store.Burial
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

func (c *courier) loop() {
	for {
		c.batch = c.q.outbox.take(c.batch[:0], &c.q.s.runners.busy)
		if len(c.batch) == 0 {
			return
		}
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
