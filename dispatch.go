package redrive

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/redrive-go/redrive/internal/store"
)

// listenFor bounds one blocking listen, in whole seconds: go-redis does not
// interrupt a blocked read when its context ends.
const listenFor = 2 * time.Second

// pollEvery replaces listening where the user's client cannot be copied: a
// blocked call would take a connection from the pool that the rest needs.
const pollEvery = 250 * time.Millisecond

// laggard is how long the other queues wait for the claim of one whose turn it is.
const laggard = 20 * time.Millisecond

// event is what a claim or a listen tells dispatch.
type event struct {
	q *served
	// A claim asked for slots, which is positive, and got jobs for some of them.
	slots, jobs int
	// more: the queue may have work now.
	more bool
	// due is when its next delayed job is due; zero for unknown.
	due time.Time
	// rang: a listen took the bell.
	rang bool
	// failed: a listen was refused; the server may not be the master any more.
	failed bool
}

// dispatch claims jobs into free slots until ctx is done. Nothing here waits for
// Redis: claims and listens are goroutines that report as events, so that one
// queue's outage does not hold up the others.
func (s *session) dispatch(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		s.slots += int(s.freed.Swap(0))
		now := time.Now()
		next := now.Add(time.Hour)
		for _, q := range s.queues {
			if q.hint.Swap(false) || !q.due.IsZero() && !q.due.After(now) {
				s.feed(q)
			}
			if !q.due.IsZero() && q.due.Before(next) {
				next = q.due
			}
			if late := q.claimed.Add(laggard); q.claiming && len(s.queues) > 1 && late.After(now) && late.Before(next) {
				next = late
			}
		}
		s.claims(ctx)
		s.listens(ctx)
		timer.Reset(next.Sub(now))
		select {
		case e := <-s.events:
			s.handle(ctx, e)
		case <-s.wakeup:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

// await waits, after dispatch, until every slot is free again and no claim is in
// flight, or until the deadline.
func (s *session) await(deadline time.Time) {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for {
		s.slots += int(s.freed.Swap(0))
		if s.slots == s.opts.Concurrency {
			return
		}
		select {
		case e := <-s.events:
			s.slots += e.slots - e.jobs
		case <-s.wakeup:
		case <-timer.C:
			return
		}
	}
}

// feed marks a queue as having work. One that had none takes its place among the
// others as if it had been served all along: it neither catches up nor waits.
func (s *session) feed(q *served) {
	q.due = time.Time{}
	if q.hungry {
		return
	}
	least := math.Inf(1)
	for _, other := range s.queues {
		if other.hungry {
			least = min(least, other.pass)
		}
	}
	if !math.IsInf(least, 1) {
		q.pass = max(q.pass, least)
	}
	q.hungry = true
}

// claims starts claims while slots are free. Slots go to the queues that have had
// least for their weight, and are shared by weight among those, so that a flood in
// one starves no other. The others wait for such a queue's claim in flight, unless
// Redis takes its time with it.
func (s *session) claims(ctx context.Context) {
	if s.slots == 0 {
		return
	}
	now := time.Now()
	least := math.Inf(1)
	for _, q := range s.queues {
		if q.hungry && !(q.claiming && now.Sub(q.claimed) > laggard) {
			least = min(least, q.pass)
		}
	}
	var able []*served
	weights := 0.0
	for _, q := range s.queues {
		if q.hungry && !q.claiming && q.pass <= least {
			able = append(able, q)
			weights += q.weight
		}
	}
	slices.SortStableFunc(able, func(a, b *served) int { return cmp.Compare(b.weight, a.weight) })
	free := float64(s.slots)
	for _, q := range able {
		n := min(s.slots, store.MaxBatch, int(math.Ceil(free*q.weight/weights)))
		if n == 0 {
			return
		}
		s.slots -= n
		q.claiming, q.claimed = true, now
		q.pass += float64(n) / q.weight // what does not come is given back
		q.call++
		probe := q.probe
		q.probe = false
		s.asides.Go(func() { s.events <- q.claim(ctx, q.call, n, probe) })
	}
}

// listens starts a listen on each queue that has no work, while a slot is free:
// a full worker leaves the bell to others.
func (s *session) listens(ctx context.Context) {
	if s.slots == 0 {
		return
	}
	for _, q := range s.queues {
		if !q.hungry && !q.listening {
			q.listening = true
			s.asides.Go(func() { s.events <- q.listen(ctx) })
		}
	}
}

// handle takes in an event.
func (s *session) handle(ctx context.Context, e event) {
	q := e.q
	if e.slots > 0 {
		q.claiming, q.hungry = false, e.more
		q.pass -= float64(e.slots-e.jobs) / q.weight
		q.due = e.due
		s.slots += e.slots - e.jobs
		return
	}
	q.listening = false
	q.probe = q.probe || e.failed
	if !e.more {
		return
	}
	s.feed(q)
	if e.rang && s.slots == 0 {
		// The slots filled up while we listened: somebody else may have one.
		s.asides.Go(func() { _ = q.store.Ring(context.WithoutCancel(ctx)) })
	}
}

// listen blocks until the queue's bell rings. After an error it says that there
// may be work, since a bell may have been taken by the answer that was lost.
func (q *served) listen(ctx context.Context) event {
	if !q.s.canBlock {
		return event{q: q, more: sleep(ctx, pollEvery)}
	}
	try, cancel := context.WithTimeout(ctx, listenFor+time.Second)
	defer cancel()
	rang, err := q.bell.Listen(try, listenFor)
	if err != nil {
		sleep(ctx, 100*time.Millisecond)
	}
	return event{q: q, more: rang || err != nil, rang: rang, failed: err != nil}
}

// claim gets up to n jobs and hands them to the runners. It tries until Redis
// answers, with the same call number, so that a lost answer strands nothing
// (I7), or until the session stops.
func (q *served) claim(ctx context.Context, call int64, n int, probe bool) event {
	e := event{q: q, slots: n}
	retry := newReconnect()
	for ctx.Err() == nil {
		// Not ctx: a claim that Redis has performed is better answered than given up.
		try, cancel := context.WithTimeout(context.Background(), sendTimeout)
		c, err := q.store.Claim(try, q.s.id, call, n, probe)
		cancel()
		switch {
		case err != nil:
			q.keeper.lost(err)
			probe = true
			if store.Refused(err) && !store.Demoted(err) {
				// Nothing was claimed: others may use the slots until the next try.
				e.due = time.Now().Add(q.reclaim.NextBackOff())
				return e
			}
		case c.State == store.ClaimLapsed:
			q.keeper.kick()
		case c.State == store.ClaimOK:
			q.reclaim.Reset()
			e.jobs = q.start(ctx, c)
			e.more = e.jobs == n
			if !c.NextDue.IsZero() {
				e.due = time.Now().Add(c.NextDue.Sub(c.Now))
			}
			return e
		default: // paused: the bell rings at its end; stale cannot happen to the last call
			return e
		}
		sleep(ctx, retry.NextBackOff())
	}
	return e
}
