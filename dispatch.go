package redrive

import (
	"context"
	"time"

	"github.com/redrive-go/redrive/internal/store"
)

// listenFor bounds one blocking listen, in whole seconds: go-redis does not
// interrupt a blocked read when its context ends.
const listenFor = 2 * time.Second

// pollEvery replaces listening where the user's client cannot be copied: a
// blocked call would take a connection from the pool that the rest needs.
const pollEvery = 250 * time.Millisecond

// dispatch claims jobs into free slots until ctx is done. A busy worker's couriers
// claim as they settle (courier.go); dispatch sees to the slots that are left, to
// queues that wake up, and to listening while there is nothing to do.
//
// Nothing here waits for Redis: claims and listens are goroutines, so that one
// queue's outage does not hold up the others.
func (s *session) dispatch(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		for _, q := range s.queues {
			if q.hint.Swap(false) {
				s.schedule.feed(&q.share)
			}
		}
		now := time.Now()
		timer.Reset(s.schedule.wakeDue(now).Sub(now))
		for _, g := range s.schedule.grants() {
			q := s.queues[g.q]
			s.asides.Go(func() { q.claim(ctx, g) })
		}
		for _, i := range s.schedule.unserved() {
			s.asides.Go(s.queues[i].ring)
		}
		for _, q := range s.queues {
			if s.schedule.idle(&q.share) && q.listening.CompareAndSwap(false, true) {
				s.asides.Go(func() { q.listen(ctx) })
			}
		}
		select {
		case <-s.wakeup:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	s.schedule.stop()
	for _, q := range s.queues {
		s.asides.Go(q.ring) // what is due soon may be known to this worker alone
	}
}

// ring has another worker look at the queue. If that fails, the next heartbeat of any
// of them looks.
func (q *served) ring() {
	try, cancel := context.WithTimeout(q.s.settle, sendTimeout)
	defer cancel()
	_ = q.store.Ring(try)
}

// await waits until every slot is free again, or until the deadline.
func (s *session) await(deadline time.Time) {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for s.schedule.available() < s.opts.Concurrency {
		select {
		case <-s.wakeup:
		case <-timer.C:
			return
		}
	}
}

// listen blocks until the queue's bell rings. After an error there may be work,
// since a bell may have been taken by the answer that was lost, and the server
// may not be the master any more.
func (q *served) listen(ctx context.Context) {
	s := q.s
	defer s.wake()
	defer q.listening.Store(false)
	if !s.canBlock {
		if sleep(ctx, pollEvery) {
			s.schedule.feed(&q.share)
		}
		return
	}
	try, cancel := context.WithTimeout(ctx, listenFor+time.Second)
	defer cancel()
	rang, err := q.bell.Listen(try, listenFor)
	switch {
	case err != nil:
		sleep(ctx, 100*time.Millisecond)
		s.schedule.mu.Lock()
		q.share.probe = true
		s.schedule.feedLocked(&q.share)
		s.schedule.mu.Unlock()
	case rang:
		s.schedule.feed(&q.share)
		if ctx.Err() != nil {
			q.ring()
		}
	}
}

// claim claims what dispatch was granted. It tries until Redis answers, with the
// same call number, so that a lost answer strands nothing (I7), or until the
// session stops.
func (q *served) claim(ctx context.Context, g grant) {
	s := q.s
	q.calls[0]++
	call := store.ClaimCall{Worker: s.id, Call: q.calls[0], N: g.n, Probe: g.probe}
	var y yield
	retry := newReconnect()
	for ctx.Err() == nil {
		// Not ctx: a claim that Redis has performed is better answered than given up, as
		// long as there is time.
		try, cancel := context.WithTimeout(s.settle, sendTimeout)
		c, err := q.store.Claim(try, call)
		cancel()
		if err == nil {
			q.reclaim.Reset()
			y = q.take(ctx, c, g.n)
			s.runners.call()
			break
		}
		q.keeper.lost(err)
		call.Probe = true
		if store.Refused(err) && !store.Demoted(err) {
			// Nothing was claimed: others may use the slots until the next try.
			y.due = time.Now().Add(q.reclaim.NextBackOff())
			break
		}
		sleep(ctx, retry.NextBackOff())
	}
	s.schedule.mu.Lock()
	q.share.claiming = false
	s.schedule.mu.Unlock()
	y.news = g.news
	s.schedule.claimed(&q.share, g.n, y)
	s.wake()
}

// take starts what a claim for n jobs returned.
func (q *served) take(ctx context.Context, c store.Claimed, n int) (y yield) {
	switch c.State {
	case store.ClaimOK:
		y.jobs = q.start(ctx, c)
		y.more = len(c.Jobs) == n
		if !c.NextDue.IsZero() {
			y.due = time.Now().Add(c.NextDue.Sub(c.Now))
		}
	case store.ClaimLapsed:
		q.keeper.kick()
		y.due = time.Now().Add(50 * time.Millisecond)
	default: // paused: the bell rings at its end; stale cannot happen to the last call
	}
	return y
}
