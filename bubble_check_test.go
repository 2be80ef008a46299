package redrive_test

import (
	"errors"
	"time"

	"github.com/redrive-go/redrive"
)

// check holds the ledger of a scenario that is over to the invariants.
func (l *bubbleLedger) check() {
	byJob := make(map[string][]*bubbleRun)
	for _, r := range l.runs {
		if r.job == nil {
			l.found("I2", r.msg.ID, "runs and was not enqueued")
			continue
		}
		byJob[r.msg.ID] = append(byJob[r.msg.ID], r)
	}
	for _, e := range l.enqueues {
		runs := byJob[e.job.id]
		l.checkFate(e, runs)
		for i, r := range runs {
			l.checkEnd(r)
			l.checkCut(r)
			l.checkRefusal(r, runs[i+1:])
			if i > 0 {
				l.checkCause(runs[i-1], r)
			}
			l.checkStart(e, runs[:i], r)
		}
	}
	l.checkFigures(byJob)
	l.checkReaps()
	l.checkWorkers()
	l.checkKeys()
}

// checkFate: an acknowledged job has one end, and runs no more after it. I1, I3
func (l *bubbleLedger) checkFate(e *enqueueRecord, runs []*bubbleRun) {
	id, letter := e.job.id, l.dead[e.job.id]
	ends, unheard := 0, false
	for i, r := range runs {
		switch {
		case r.settled < bubbleNever && final(r.end.Action):
			ends++
			if i < len(runs)-1 {
				l.found("I3", id, "runs at %v, after its end, %v, was confirmed at %v", runs[i+1].began, r.end.Action, r.settled)
			}
			if (r.end.Action == redrive.ActionDead) != (letter != nil) {
				l.found("I1", id, "ended as %v, and is a dead letter: %v", r.end.Action, letter != nil)
			}
		case r.settled == bubbleNever && r.finished && r.lost == bubbleNever:
			// Who does not hear that Redis has an end does not tell.
			unheard = unheard || r.worker.crashed < bubbleNever || r.worker.err != nil
		}
	}
	switch {
	case ends > 1:
		l.found("I3", id, "ended %d times", ends)
	case e.acked == bubbleNever:
		l.found("I1", id, "was never acknowledged")
	case ends == 0 && letter == nil && !unheard:
		l.found("I1", id, "is gone, and nothing tells of its end")
	case ends == 0 && letter != nil && letter.Reason != redrive.ReasonCrashLoop && !unheard:
		l.found("I1", id, "died (%s) and no attempt tells of it", letter.Reason)
	}
}

func final(a redrive.Action) bool {
	return a == redrive.ActionDone || a == redrive.ActionDiscard || a == redrive.ActionDead
}

// checkCause: between two attempts of a job there is what explains the second: one
// counter has gone up, for what the ledger saw, or the job was released for a stop
// or an outage that it saw. I3, I8, I9
func (l *bubbleLedger) checkCause(a, b *bubbleRun) {
	id := b.msg.ID
	retries, snoozes := b.msg.Retries-a.msg.Retries, b.msg.Snoozes-a.msg.Snoozes
	interrupts, crashes := b.msg.Interrupts-a.msg.Interrupts, b.msg.Crashes-a.msg.Crashes
	if retries < 0 || snoozes < 0 || interrupts < 0 || crashes < 0 || retries+snoozes+interrupts > 1 {
		l.found("I8", id, "counters went from %+v to %+v", counters(a), counters(b))
		return
	}
	if until := min(a.innerEnded, a.alone); a.inner && b.began < until {
		l.found("I3", id, "runs again at %v, and the handler of the attempt before was not told to stop until %v", b.began, until)
	}
	if reaps := l.reapsBetween(id, a.began, b.began); max(crashes-reaps, reaps-crashes) > l.unheardBetween(a.began-recovery, b.began) {
		l.found("I8", id, "has %d more crashes at %v, and was taken from the dead %d times", crashes, b.began, reaps)
	}
	ended := a.finished && a.ended <= b.began
	l.checked[[]string{"release", "failure", "snooze", "interrupt"}[retries+2*snoozes+3*interrupts]]++
	switch cut := a.cause; {
	case retries == 1 && (!ended || !failed(a) || a.lost < bubbleNever || stopOrOutage(cut) && a.alone < a.ended):
		l.found("I8", id, "has a retry more at %v, and the attempt before ended with %v (context: %v)", b.began, a.err, cut)
	case snoozes == 1 && (!ended || redrive.Disposition(a.err).Action != redrive.ActionSnooze):
		l.found("I8", id, "has a snooze more at %v, and the attempt before ended with %v", b.began, a.err)
	case interrupts == 1 && (!ended || !errors.Is(cut, redrive.ErrShutdown) || a.worker.stopped > b.began):
		l.found("I8", id, "has an interrupt more at %v, and the attempt before ended with %v (context: %v)", b.began, a.err, cut)
	case retries+snoozes+interrupts+crashes > 0:
		return
	}
	if retries+snoozes+interrupts+crashes > 0 {
		return
	}
	// Released, uncounted: by the worker after an outage, or at its end for a handler
	// that had not returned or whose end could not be sent.
	switch {
	case ended && stopOrOutage(a.cause): // the worker may hear of it later than others
	case a.worker.ended <= b.began && a.settled == bubbleNever:
	default:
		l.found("I3", id, "runs again at %v, and nothing tells why", b.began)
	}
}

func counters(r *bubbleRun) map[string]int {
	return map[string]int{"retries": r.msg.Retries, "snoozes": r.msg.Snoozes, "interrupts": r.msg.Interrupts, "crashes": r.msg.Crashes}
}

func stopOrOutage(cause error) bool {
	return errors.Is(cause, redrive.ErrShutdown) || errors.Is(cause, redrive.ErrLeaseLost)
}

// failed reports whether an attempt ended in what counts as a retry.
func failed(r *bubbleRun) bool {
	if r.err == nil {
		return false
	}
	switch redrive.Disposition(r.err).Action {
	case redrive.ActionRetry, redrive.ActionRetryAfter:
		return true
	}
	return false
}

func (l *bubbleLedger) reapsBetween(job string, from, to time.Duration) (n int) {
	for _, r := range l.reaps {
		if r.job == job && r.at > from && r.at <= to {
			n++
		}
	}
	return n
}

// unheardBetween counts the calls that may have taken jobs from the dead, by a worker that
// heard no answer, and so told of it late or not at all.
func (l *bubbleLedger) unheardBetween(from, to time.Duration) (n int) {
	for _, at := range l.unheard {
		if at > from && at <= to {
			n++
		}
	}
	return n
}

// checkCut: a handler loses its lease, its lock or its claim only in an outage. I3
func (l *bubbleLedger) checkCut(r *bubbleRun) {
	lost := errors.Is(r.innerCause, redrive.ErrLeaseLost) || errors.Is(r.innerCause, redrive.ErrLockLost) || errors.Is(r.innerCause, redrive.ErrClaimLost)
	if !lost || r.worker.crashed <= r.alone {
		return
	}
	l.checked["cut"]++
	if within := max(r.worker.plan.lease, r.job.task.ttl); l.calm(r.worker.plan.name, r.alone-within, r.alone) {
		l.found("I3", r.msg.ID, "was cut off at %v (%v), and all was well", r.alone, r.innerCause)
	}
}

// checkRefusal: an end is refused only when another has taken the job. I4
func (l *bubbleLedger) checkRefusal(r *bubbleRun, later []*bubbleRun) {
	if r.lost == bubbleNever {
		return
	}
	l.checked["refusal"]++
	for _, reap := range l.reaps {
		if reap.job == r.msg.ID && reap.from == r.worker && reap.at > r.began && reap.at <= r.lost {
			return
		}
	}
	if l.unheardBetween(r.began, r.lost) > 0 {
		return
	}
	l.found("I4", r.msg.ID, "its end was refused at %v, and nobody had taken it from %s", r.lost, r.worker.plan.name)
}

// checkReaps: a job is taken only from a worker that was out of touch, and by one
// that was in touch for a whole lease. I3
func (l *bubbleLedger) checkReaps() {
	l.checked["reap"] += len(l.reaps)
	for _, r := range l.reaps {
		from, lease := r.from, r.from.plan.lease
		lapsed := from.crashed < r.at || from.ended < r.at && from.err != nil
		for _, d := range l.disturbances(from.plan.name) {
			if d.to-d.from > lease/4 && d.from < r.at && d.to+recovery > r.at {
				lapsed = true
			}
		}
		if !lapsed {
			l.found("I3", r.job, "was taken at %v from %s, which was in touch", r.at, from.plan.name)
		}
		for _, d := range l.disturbances(r.by.plan.name) {
			if grace := r.by.plan.lease; !d.kind.silences() || d.to-d.from < grace || d.from < r.by.started || r.at < d.to {
				continue
			} else if l.checked["grace"]++; r.at < d.to+grace {
				l.found("I3", r.job, "was taken at %v by %s, %v after an outage and before a whole lease in touch, %v",
					r.at, r.by.plan.name, r.at-d.to, grace)
			}
		}
	}
}

// disturbances are those of a worker.
func (l *bubbleLedger) disturbances(worker string) (out []disturbance) {
	for _, d := range l.upset {
		if d.worker == "" || d.worker == worker {
			out = append(out, d)
		}
	}
	return out
}

// checkFigures: the figures of a queue agree with what became of its jobs. I8
func (l *bubbleLedger) checkFigures(byJob map[string][]*bubbleRun) {
	want := make(map[string]*redrive.QueueStats)
	for _, q := range l.plan.queues {
		want[q] = &redrive.QueueStats{}
	}
	for id, e := range l.enqueues {
		q := want[e.job.task.queue]
		q.Enqueued++
		letter, runs := l.dead[id], byJob[id]
		switch {
		case letter != nil:
			q.Dead++
			q.Died++
			add(q, letter.Retries, letter.Snoozes, letter.Interrupts, letter.Crashes)
			if letter.Reason == redrive.ReasonCrashLoop {
				q.Crashed-- // the last of them is the death
			}
		case len(runs) > 0:
			last := runs[len(runs)-1]
			add(q, last.msg.Retries, last.msg.Snoozes, last.msg.Interrupts, last.msg.Crashes)
			if last.err == nil {
				q.Succeeded++
			} else {
				q.Discarded++
			}
		}
	}
	for name, q := range want {
		got := l.stats[name]
		got.Released = 0 // a claim that nobody heard of is released, too
		if got != *q {
			l.found("I8", "", "figures of %s are %+v and should be %+v", name, got, *q)
		}
	}
}

func add(q *redrive.QueueStats, retries, snoozes, interrupts, crashes int) {
	q.Retried += int64(retries)
	q.Snoozed += int64(snoozes)
	q.Interrupted += int64(interrupts)
	q.Crashed += int64(crashes)
}
