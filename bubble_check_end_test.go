package redrive_test

import (
	"errors"
	"slices"
	"time"

	"github.com/redrive-go/redrive"
)

// checkEnd: an attempt ends as its handler, its middleware and the policy of its
// task say, after exactly the wait that the policy previews. I8
func (l *bubbleLedger) checkEnd(r *bubbleRun) {
	if r.settled == bubbleNever {
		return
	}
	id, got := r.msg.ID, r.end
	if got.Action == redrive.ActionRelease {
		if !stopOrOutage(r.cause) {
			l.found("I3", id, "was released at %v, and its context was not cancelled", r.settled)
		}
		return
	}
	if r.err != nil && stopOrOutage(r.cause) && r.alone < r.ended {
		l.found("I15", id, "was cut off by %v and not released: %v at %v", r.cause, got.Action, r.settled)
		return
	}
	l.checked[got.Action.String()]++
	want, least, most := l.verdict(r)
	switch {
	case want == nil:
	case got.Action != want.Action || got.Reason != want.Reason:
		l.found("I8", id, "ended at %v as %v %s, not as %v %s: %v", r.settled, got.Action, got.Reason, want.Action, want.Reason, got.Err)
	case got.Delay < least || got.Delay > most:
		l.found("I8", id, "waits for %v after the attempt that ended at %v, and should wait for %v to %v", got.Delay, r.ended, least, most)
	}
	if letter := l.dead[id]; got.Action == redrive.ActionDead && letter != nil {
		if letter.Reason != got.Reason || letter.Retries != r.msg.Retries || letter.Crashes != r.msg.Crashes ||
			letter.Snoozes != r.msg.Snoozes || letter.Interrupts != r.msg.Interrupts {
			l.found("I8", id, "died for %s with counters %+v, and the letter says %s and %+v", got.Reason, counters(r), letter.Reason, letter)
		}
	}
}

// verdict is how an attempt must end: action, reason, and the bounds of its wait.
// It is nil where the ledger cannot know.
func (l *bubbleLedger) verdict(r *bubbleRun) (want *redrive.Outcome, least, most time.Duration) {
	exactly := func(a redrive.Action, d time.Duration) (*redrive.Outcome, time.Duration, time.Duration) {
		return &redrive.Outcome{Action: a}, d, d
	}
	t := r.job.task
	switch {
	case !r.inner && t.layer == alone && t.conflict == redrive.Skip && l.leftItsLock(r) && r.err != nil && r.err.Error() == redrive.Snooze(0).Error():
		return &redrive.Outcome{Action: redrive.ActionSnooze}, 10 * time.Millisecond, max(t.ttl, 10*time.Millisecond)
	case !r.inner && t.layer == alone && errors.Is(r.err, redrive.ErrLockHeld) && t.conflict == redrive.Skip:
		return exactly(redrive.ActionDiscard, 0)
	case !r.inner && t.layer == alone && t.conflict != redrive.Skip && t.conflict != redrive.Fail:
		return exactly(redrive.ActionSnooze, time.Duration(t.conflict))
	case !r.inner && t.layer == once && r.err == nil:
		return exactly(redrive.ActionDone, 0) // a replay
	case !r.inner && t.layer == once, errors.Is(r.err, redrive.ErrClaimLost):
		return exactly(redrive.ActionSnooze, redrive.DefaultBusyDelay)
	case r.inner && r.innerErr == nil && r.err == nil:
		return exactly(redrive.ActionDone, 0)
	case r.inner && r.innerErr == nil: // its success could not be recorded
		return l.failure(r, &t.retry, r.msg.Retries+1)
	}
	cut := r.inner && r.innerCause != nil && errors.Is(r.innerErr, r.innerCause)
	rules := l.rulesUsed(r)
	switch {
	case cut || !r.inner || r.step.do == fail || r.step.do == panics || r.step.do == goexits:
	case r.step.do == failRuled && len(t.retry.Rules) > 0:
		return l.failure(r, &t.retry.Rules[0].Policy, rules+1)
	case r.step.do == failPermanent:
		return &redrive.Outcome{Action: redrive.ActionDead, Reason: redrive.ReasonPermanent}, 0, 0
	case r.step.do == snoozes:
		return exactly(redrive.ActionSnooze, r.step.wait)
	case r.step.do == discards:
		return exactly(redrive.ActionDiscard, 0)
	case r.step.do == asksRetry:
		want, least, most = l.failure(r, &t.retry, r.msg.Retries-rules+1)
		if want.Action == redrive.ActionRetry {
			least, most = r.step.wait, r.step.wait
			if t.retry.Jitter != redrive.NoJitter {
				most += min(r.step.wait/10, 30*time.Second)
			}
		}
		return want, least, most
	}
	return l.failure(r, &t.retry, r.msg.Retries-rules+1)
}

// leftItsLock reports whether an earlier attempt of the job may have left the lock that
// this one does not get: then the job waits, and is not dropped.
func (l *bubbleLedger) leftItsLock(r *bubbleRun) bool {
	return slices.ContainsFunc(l.runs, func(o *bubbleRun) bool {
		return o != r && o.msg.ID == r.msg.ID && o.inner && o.innerBegan < r.ended
	})
}

// failure is what a policy makes of a failure that would be its n-th retry.
func (l *bubbleLedger) failure(r *bubbleRun, p *redrive.RetryPolicy, n int) (*redrive.Outcome, time.Duration, time.Duration) {
	waits := p.Preview(r.msg.ID)
	if n > len(waits) {
		return &redrive.Outcome{Action: redrive.ActionDead, Reason: redrive.ReasonExhausted}, 0, 0
	}
	return &redrive.Outcome{Action: redrive.ActionRetry}, waits[n-1], waits[n-1]
}

// rulesUsed counts the retries of a job so far that were the rule's.
func (l *bubbleLedger) rulesUsed(r *bubbleRun) (n int) {
	t := r.job.task
	if len(t.retry.Rules) == 0 {
		return 0
	}
	for _, s := range r.job.script[:min(r.index, len(r.job.script))] {
		if s.do == failRuled && (t.timeout < 0 || s.takes < t.timeout+s.deaf) {
			n++
		}
	}
	return n
}
