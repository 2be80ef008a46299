package redrive_test

import (
	"errors"
	"slices"
	"time"

	"github.com/redrive-go/redrive"
)

const (
	// recovery is how long after a fault nothing is expected to be on time: a call
	// that hangs is given up after three seconds.
	recovery = 5 * time.Second
	// lateness is the documented bound of an idle worker, and a millisecond for the
	// clock of Redis.
	lateness = 51 * time.Millisecond
	// takeover is how much longer than the lease a job may wait after a crash (I9).
	takeover = time.Second
	// redisTick is what the clock of Redis counts in.
	redisTick = time.Microsecond
	// overtime is how much longer than its timeout a shutdown may take (I15).
	overtime = 250 * time.Millisecond
)

// checkStart: an attempt never starts before the job is due, and soon after it if a
// worker was idle and nothing was wrong. I12
func (l *bubbleLedger) checkStart(e *enqueueRecord, before []*bubbleRun, r *bubbleRun) {
	id := r.msg.ID
	if len(before) == 0 {
		if e.job.delay > 0 {
			l.checked["delay"]++
		}
		if due := e.asked + e.job.delay; r.began < due.Truncate(redisTick) {
			l.found("I12", id, "starts at %v and is due at %v", r.began, due)
		} else if e.tries == 0 {
			l.checkPrompt(r, e.acked+e.job.delay)
		}
		return
	}
	a := before[len(before)-1]
	switch {
	case a.settled <= r.began && !final(a.end.Action):
		if r.began < (a.ended + a.end.Delay).Truncate(redisTick) {
			l.found("I12", id, "starts at %v, %v after an end at %v that asked for %v", r.began, r.began-a.ended, a.ended, a.end.Delay)
		}
		l.checkPrompt(r, a.settled+a.end.Delay)
	case l.reapsBetween(id, a.began, r.began) > 0:
		for _, reap := range slices.Backward(l.reaps) {
			if reap.job == id && reap.at <= r.began {
				l.checkPrompt(r, reap.at)
				break
			}
		}
	case a.worker.ended <= r.began:
		l.checkPrompt(r, a.worker.ended)
	}
}

// checkPrompt: a job that was ready then did not wait although a worker was idle.
func (l *bubbleLedger) checkPrompt(r *bubbleRun, ready time.Duration) {
	queue, by := r.job.task.queue, ready+lateness
	for _, w := range l.workers {
		if !w.plan.serves(queue) || w.started > ready-time.Second || min(w.stopped, w.crashed) < by || l.full(w, ready, by) {
			continue
		}
		// A bell that was lost with its hearer costs a third of the lease.
		if !l.calm("", ready-max(recovery, w.plan.lease/3+time.Second), by) || l.paused(queue, ready-time.Second, by) {
			continue
		}
		l.checked["prompt"]++
		if r.began > by {
			l.found("I12", r.msg.ID, "starts %v late, at %v, and %s was idle", r.began-ready, r.began, w.plan.name)
		}
		return
	}
}

// calm reports whether nothing disturbs a worker, or any, in a time.
func (l *bubbleLedger) calm(worker string, from, to time.Duration) bool {
	for _, d := range l.upset {
		if (worker == "" || d.worker == "" || d.worker == worker) && d.from <= to && d.to+recovery >= from {
			return false
		}
	}
	for _, w := range l.workers {
		// Redis may go on with what the dead one has asked for.
		if worker == "" && w.crashed <= to && w.crashed+recovery >= from {
			return false
		}
	}
	return true
}

func (l *bubbleLedger) paused(queue string, from, to time.Duration) bool {
	for _, p := range l.plan.pauses {
		if p.queue == queue && p.at <= to && p.at+p.lasts >= from {
			return true
		}
	}
	return false
}

// full reports whether a worker may have had no slot free at some moment.
func (l *bubbleLedger) full(w *bubbleWorker, from, to time.Duration) bool {
	n := 0
	for _, r := range l.runs {
		if r.worker == w && r.began <= to && min(r.settled, r.lost) >= from {
			n++
		}
	}
	return n >= w.plan.concurrency
}

// checkWorkers: shutdowns end in time, slots are not given twice, and the jobs of a
// worker that crashed run elsewhere soon. I9, I15
func (l *bubbleLedger) checkWorkers() {
	for _, w := range l.workers {
		if !l.calm(w.plan.name, w.stopped, w.ended) {
			l.checked["stop in an outage"]++
		}
		if took := w.ended - w.stopped; took > w.plan.shutdown+overtime {
			l.found("I15", "", "%s took %v to stop, and had %v", w.plan.name, took, w.plan.shutdown)
		}
		stuck := slices.ContainsFunc(l.runs, func(r *bubbleRun) bool { return r.worker == w && r.ended > w.ended })
		if errors.Is(w.err, redrive.ErrHandlersStuck) != stuck {
			l.found("I15", "", "%s stopped with %v, and handlers were left: %v", w.plan.name, w.err, stuck)
		}
		if w.err != nil && !stuck && w.crashed == bubbleNever && l.calm(w.plan.name, w.stopped, w.ended) {
			l.found("I15", "", "%s stopped with %v", w.plan.name, w.err)
		}
		l.checkSlots(w)
		if w.crashed < bubbleNever {
			l.checkTakeover(w)
		}
	}
}

// checkSlots: a slot is free when its handler has returned.
func (l *bubbleLedger) checkSlots(w *bubbleWorker) {
	for _, r := range l.runs {
		n := 0
		for _, o := range l.runs {
			if o.worker == w && r.worker == w && o.began <= r.began && o.ended > r.began {
				n++
			}
		}
		if n > w.plan.concurrency {
			l.found("I15", r.msg.ID, "is one of %d handlers of %s, which has %d slots", n, w.plan.name, w.plan.concurrency)
		}
	}
}

// checkTakeover: what ran on a worker that crashed is taken over within its lease
// and a second, if somebody was there who was in touch for long enough.
func (l *bubbleLedger) checkTakeover(dead *bubbleWorker) {
	lapse := dead.crashed + dead.plan.lease
	for _, r := range l.runs {
		if r.worker != dead || r.began > dead.crashed || r.ended <= dead.crashed {
			continue
		}
		taken := slices.ContainsFunc(l.reaps, func(x reapRecord) bool {
			return x.job == r.msg.ID && x.from == dead && x.at > r.began && x.at <= lapse+takeover
		})
		if l.cutBefore(dead, dead.crashed) {
			continue
		}
		for _, w := range l.workers {
			if w != dead && w.plan.serves(r.job.task.queue) && w.started <= lapse-w.plan.lease-time.Second && min(w.stopped, w.crashed) > lapse+takeover &&
				l.calm(w.plan.name, lapse-w.plan.lease, lapse+takeover) {
				if l.checked["takeover"]++; taken {
					break
				}
				l.found("I9", r.msg.ID, "was not taken from %s, which crashed at %v, by %v, and %s was there", dead.plan.name, dead.crashed, lapse+takeover, w.plan.name)
				break
			}
		}
	}
}

// cutBefore reports whether a worker may have lost its lease before it crashed.
func (l *bubbleLedger) cutBefore(w *bubbleWorker, at time.Duration) bool {
	return !l.calm(w.plan.name, at-w.plan.lease-recovery, at)
}

// checkKeys: at most one handler with a live context has the lock of a key, each
// with a higher token than the last; and no handler runs for a key whose effect is
// done. I10, I11
func (l *bubbleLedger) checkKeys() {
	type key struct{ task, key string }
	held := make(map[key][]*bubbleRun)
	for _, r := range l.runs {
		if r.inner && r.job.task.layer != plain {
			k := key{r.job.task.name, r.job.args.Key}
			held[k] = append(held[k], r)
		}
	}
	for _, runs := range held {
		slices.SortFunc(runs, func(a, b *bubbleRun) int { return a.innerOrder - b.innerOrder })
		for i, b := range runs {
			for _, a := range runs[:i] {
				l.checkPair(a, b)
			}
		}
	}
}

// checkPair checks two handlers of one key, of which a began first.
func (l *bubbleLedger) checkPair(a, b *bubbleRun) {
	until := min(a.innerEnded, a.alone)
	what := "I11"
	if a.alone < a.innerEnded {
		l.checked["live"]++
	}
	if a.job.task.layer == once {
		what = "Idempotent"
	}
	if b.innerBegan < until {
		l.found(what, b.msg.ID, "its handler begins at %v, and that of %s has the key until %v", b.innerBegan, a.msg.ID, until)
	}
	l.checked[what]++
	switch {
	case a.job.task.layer == alone && b.fence <= a.fence:
		l.found("I10", b.msg.ID, "has token %d, and %s before it had %d", b.fence, a.msg.ID, a.fence)
	case a.job.task.layer == once && a.finished && a.err == nil && b.innerBegan > a.ended:
		l.found("Idempotent", b.msg.ID, "its handler runs at %v, and the effect was done at %v by %s", b.innerBegan, a.ended, a.msg.ID)
	}
}
