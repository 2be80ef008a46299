package redrive

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redrive-go/redrive/internal/store"
)

// A keeper keeps a session's lease on one queue, takes over the jobs of workers
// whose lease has lapsed, and sees to it that Redis and the session agree on what
// the session owns. One goroutine, loop, does all of it; it ends with session.keep.
type keeper struct {
	q     *served
	kicks chan struct{}

	// Of the loop's goroutine (and of register, before it starts):
	contact time.Time // in touch without a gap since then; zero before the first beat
	last    time.Time // the last beat that was answered was sent then
	missed  bool      // a beat since then was not answered
	heard   time.Time // and its answer came then
	redis   time.Time // at this time of Redis
	expired []string
	lapse   time.Time // when the next lease of another lapses, on our clock
	strange map[string]stray
	reaps   int

	mu sync.Mutex
	// down is since when Redis does not answer; zero while it does.
	down time.Time
	// held is until when our lease holds at least, zero once it has lapsed; expiry
	// fires then, also while a beat waits for its answer.
	held   time.Time
	expiry *time.Timer
}

func (k *keeper) init(q *served) {
	k.q = q
	k.kicks = make(chan struct{}, 1)
	k.expiry = time.AfterFunc(time.Hour, k.lapsed)
	k.expiry.Stop()
}

// stray is a job that Redis says is ours and that we have not heard of.
type stray struct {
	token string
	since time.Time // when we first saw it
}

// kick asks for a beat now.
func (k *keeper) kick() {
	select {
	case k.kicks <- struct{}{}:
	default:
	}
}

// lost notes that Redis did not answer, and says so once.
func (k *keeper) lost(err error) {
	k.mu.Lock()
	first := k.down.IsZero()
	if first {
		k.down = time.Now()
	}
	k.mu.Unlock()
	if !first {
		return
	}
	s := k.q.s
	s.log.Warn("redrive: redis does not answer, trying on", "queue", k.q.name, "error", err)
	if f := s.trace.RedisLost; f != nil {
		f(k.q.name, err)
	}
	k.kick()
}

// back notes that Redis answers again.
func (k *keeper) back() {
	k.mu.Lock()
	down := k.down
	k.down = time.Time{}
	k.mu.Unlock()
	if down.IsZero() {
		return
	}
	s, after := k.q.s, time.Since(down)
	s.log.Info("redrive: redis answers again", "queue", k.q.name, "after", after.Round(time.Millisecond))
	if f := s.trace.RedisBack; f != nil {
		f(k.q.name, after)
	}
}

// loop beats three times a lease, sooner when there is something to reap, and
// again and again while Redis does not answer.
func (k *keeper) loop() {
	ctx, lease := k.q.s.keep, k.q.s.opts.Lease
	defer k.expiry.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	retry := newReconnect()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.kicks:
		case <-timer.C:
		}
		wait := lease / 3
		err := k.beat(ctx)
		if err != nil {
			wait = retry.NextBackOff()
		} else {
			retry.Reset()
			wait = min(wait, k.reap(ctx))
		}
		timer.Reset(wait)
		k.reportStuck()
	}
}

// beat renews the lease and takes in what Redis says.
func (k *keeper) beat(ctx context.Context) error {
	q, lease := k.q, k.q.s.opts.Lease
	sent := time.Now()
	mine := q.snapshot()
	try, cancel := context.WithTimeout(ctx, min(lease/3, sendTimeout))
	b, err := q.store.Beat(try, q.s.id, lease)
	cancel()
	if err != nil {
		k.missed = true
		if ctx.Err() == nil {
			k.lost(err)
		}
		return err
	}
	now := time.Now()
	k.back()
	gap := lease * 2 / 3
	if k.missed {
		// Of an outage this long, a lease outlives another sixth, in which its owner may
		// renew it. A connection that broke is no outage: recovery must not wait for it.
		gap = lease / 2
	}
	jump := b.Now.Sub(k.redis) - now.Sub(k.heard) // of the clock of Redis
	if k.contact.IsZero() || sent.Sub(k.last) > gap || jump > lease/3 {
		k.contact = now // others may have had the gap too, and have had the jump
	}
	k.last, k.missed, k.heard, k.redis = sent, false, now, b.Now
	k.extend(sent.Add(lease))
	k.expired, k.lapse = b.Expired, time.Time{}
	if !b.NextLapse.IsZero() {
		k.lapse = now.Add(b.NextLapse.Sub(b.Now))
	}
	if b.Ready > 0 || !b.NextDue.IsZero() && b.NextDue.Sub(b.Now) < lease/3 {
		q.hint.Store(true)
		q.s.wake()
	}
	if len(mine)+b.Owned > 0 && (!b.Held || b.Owned != len(mine) || len(k.strange) > 0) {
		return k.reconcile(ctx, mine)
	}
	return nil
}

// snapshot lists what the session owns, by id: of two claims of one job the later.
func (q *served) snapshot() map[string]*attempt {
	q.mu.Lock()
	defer q.mu.Unlock()
	owned := make(map[string]*attempt, len(q.owned))
	for _, a := range q.owned {
		if b := owned[a.job.ID]; b == nil || b.msg.token < a.msg.token {
			owned[a.job.ID] = a
		}
	}
	return owned
}

// reconcile compares what the session owned before the beat with what Redis says
// now. If Redis gave a job to another, the queue's jobs are cancelled. A job that only
// Redis knows of, from one regular beat to the next, is put back: the answer to its
// claim was lost for good (I7).
func (k *keeper) reconcile(ctx context.Context, mine map[string]*attempt) error {
	q := k.q
	try, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	theirs, err := q.store.Owned(try, q.s.id)
	if err != nil {
		k.lost(err)
		return err
	}
	now := q.snapshot()
	for id, a := range mine {
		if theirs[id] != a.job.Token && now[id] == a && !a.over.Load() {
			q.loseLease() // of all: what is still ours is run again, what is not is refused
			break
		}
	}
	strange := make(map[string]stray)
	var back []store.Putback
	for id, token := range theirs {
		if a := now[id]; a != nil && a.job.Token == token {
			continue
		}
		first, known := k.strange[id]
		if !known || first.token != token {
			first = stray{token: token, since: time.Now()}
		}
		if time.Since(first.since) < q.s.opts.Lease/4 {
			strange[id] = first // its claim may be on its way, or sent again
			continue
		}
		if !q.disown(id, token) {
			continue
		}
		back = append(back, store.Putback{Owned: store.Owned{ID: id, Token: token}, Front: true, Counter: store.Released})
	}
	k.strange = strange
	for len(back) > 0 {
		n := min(len(back), store.MaxBatch)
		if _, err := q.store.Putback(try, k.settler(q.s.id, false), back[:n]); err != nil {
			return err
		}
		q.s.log.Warn("redrive: put jobs back whose claim was not heard", "queue", q.name, "jobs", n)
		back = back[n:]
	}
	return nil
}

// settler names a call of the keeper's own, apart from those of the courier.
func (k *keeper) settler(worker string, reap bool) store.Settler {
	k.reaps++
	return store.Settler{Worker: worker, Call: k.q.s.id + "/" + strconv.Itoa(k.reaps), Reap: reap}
}

// extend notes until when our lease holds, by our clock.
func (k *keeper) extend(until time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held = until
	k.expiry.Reset(time.Until(until))
}

// lapsed cancels everything once the lease must have lapsed: others may take the
// jobs over from now on.
func (k *keeper) lapsed() {
	k.mu.Lock()
	over := !k.held.IsZero() && !time.Now().Before(k.held) // it was not extended since
	if over {
		k.held = time.Time{}
	}
	k.mu.Unlock()
	if over {
		k.q.loseLease()
	}
}

// reap takes the jobs of workers whose lease has lapsed, and returns when to look
// again. After an outage everybody's lease has lapsed, and after a jump of the clock of
// Redis too, so only a worker that has been in touch for a whole lease may judge others
// (outage grace).
func (k *keeper) reap(ctx context.Context) (wait time.Duration) {
	lease := k.q.s.opts.Lease
	spread := 10*time.Millisecond + rand.N(90*time.Millisecond)
	if grace := lease - time.Since(k.contact); grace > 0 {
		if len(k.expired) == 0 && k.lapse.IsZero() {
			return lease
		}
		return grace + spread
	}
	for _, worker := range k.expired {
		for {
			n, err := k.reapSome(ctx, worker)
			if err != nil {
				k.lost(err)
				return spread
			}
			if n == 0 {
				break
			}
		}
	}
	if k.lapse.IsZero() {
		return lease
	}
	return max(0, time.Until(k.lapse)) + spread
}

// reapSome takes up to one batch of a dead worker's jobs: to the front with one
// more crash, or to the dead letters after MaxCrashes.
func (k *keeper) reapSome(ctx context.Context, worker string) (int, error) {
	q := k.q
	try, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	jobs, err := q.store.Expired(try, worker)
	if err != nil || len(jobs) == 0 {
		return 0, err
	}
	var back []store.Putback
	var dead []store.Burial
	var backOf, deadOf []int // where in jobs
	crashes := make([]int, len(jobs))
	now := time.Now()
	for i := range jobs {
		a := &attempt{q: q, job: jobs[i]}
		err := a.decode(now)
		a.ledger.Crashes++
		crashes[i] = a.ledger.Crashes
		switch {
		case err != nil:
			a.bury(ReasonMalformed, err)
			dead, deadOf = append(dead, *a.burial), append(deadOf, i)
		case a.ledger.Crashes >= q.s.opts.MaxCrashes:
			a.began, a.started = true, now
			a.bury(ReasonCrashLoop, fmt.Errorf(
				"the process died %d times while it ran this job, last as worker %s", a.ledger.Crashes, worker))
			dead, deadOf = append(dead, *a.burial), append(deadOf, i)
		default:
			back = append(back, store.Putback{Owned: a.owned(), Front: true, Ledger: a.ledger.Append(nil), Counter: store.Crashed})
			backOf = append(backOf, i)
		}
	}
	if len(back) > 0 {
		settled, err := q.store.Putback(try, k.settler(worker, true), back)
		if err != nil {
			return 0, err
		}
		backOf = without(backOf, settled.Refused)
	}
	if len(dead) > 0 {
		settled, err := q.store.Bury(try, k.settler(worker, true), dead)
		if err != nil {
			return 0, err
		}
		for i := range dead {
			q.undertaker.buried(dead[i].Task)
		}
		deadOf = without(deadOf, settled.Refused)
	}
	taken := slices.Concat(backOf, deadOf)
	if len(taken) == 0 {
		return len(jobs), nil // another was faster, or the worker lives
	}
	q.s.log.Warn("redrive: took over the jobs of a worker whose lease lapsed",
		"queue", q.name, "dead_worker", worker, "jobs", len(backOf), "dead_letters", len(deadOf))
	if f := q.s.trace.JobReaped; f != nil {
		for _, i := range taken {
			f(q.name, jobs[i].ID, worker, crashes[i])
		}
	}
	return len(jobs), nil
}

// without returns s without the elements at the places given, which ascend.
func without(s, places []int) []int {
	kept := s[:0]
	for i, v := range s {
		if len(places) > 0 && places[0] == i {
			places = places[1:]
			continue
		}
		kept = append(kept, v)
	}
	return kept
}

// reportStuck tells of handlers that go on after their context was done.
func (k *keeper) reportStuck() {
	s, now := k.q.s, time.Now()
	grace := s.opts.Lease / 3
	for _, a := range k.q.snapshot() {
		if a.overdue.IsZero() || now.Sub(a.overdue) < grace || !a.stuck.CompareAndSwap(false, true) {
			continue
		}
		since := now.Sub(a.overdue)
		s.log.Error("redrive: handler ignores its context and keeps its slot", "queue", k.q.name,
			"task", a.msg.Task, "id", a.msg.ID, "since", since.Round(time.Second))
		if f := s.trace.JobStuck; f != nil {
			f(&a.msg, since)
		}
	}
}
