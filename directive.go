package redrive

import (
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Reason says why a job became a dead letter.
type Reason string

const (
	// ReasonExhausted: the retries that the policy allows are used up.
	ReasonExhausted Reason = "exhausted"
	// ReasonPermanent: the error is not one to retry: [Permanent], or
	// [RetryPolicy.RetryIf] said no.
	ReasonPermanent Reason = "permanent"
	// ReasonCrashLoop: the worker process died too often while it ran the job.
	ReasonCrashLoop Reason = "crash-loop"
	// ReasonMaxAge: the job is older than [TaskOptions.MaxAge], or would be at its
	// next attempt.
	ReasonMaxAge Reason = "max-age"
	// ReasonMalformed: the job cannot be decoded.
	ReasonMalformed Reason = "malformed"
	// ReasonUnknownTask: no worker knows the job's task.
	ReasonUnknownTask Reason = "unknown-task"
	// ReasonKeyReused: the job's idempotency key belongs to other arguments.
	ReasonKeyReused Reason = "key-reused"
	// ReasonDiscarded: the handler returned [Discard]. Such a job is no dead letter;
	// the reason stands in the [FailedError] of its receipt.
	ReasonDiscarded Reason = "discarded"
)

// Action is what a worker does with a job when an attempt has ended.
type Action uint8

const (
	// ActionDone: the job succeeded.
	ActionDone Action = iota
	// ActionRetry: the job runs again after the wait that its [RetryPolicy]
	// chooses, unless the policy says otherwise.
	ActionRetry
	// ActionRetryAfter: as ActionRetry, after the wait that the error asks for.
	ActionRetryAfter
	// ActionSnooze: the job runs again later and no retry is used.
	ActionSnooze
	// ActionDead: the job becomes a dead letter.
	ActionDead
	// ActionDiscard: the job is dropped.
	ActionDiscard
	// ActionRelease: the job goes back to the front of its queue, since a shutdown
	// or an outage cut the attempt short. No error asks for it.
	ActionRelease
)

// String returns the name in lower case, such as "retry-after".
func (a Action) String() string {
	names := [...]string{"done", "retry", "retry-after", "snooze", "dead", "discard", "release"}
	if int(a) < len(names) {
		return names[a]
	}
	return fmt.Sprintf("Action(%d)", uint8(a))
}

// Outcome is what an error asks of the worker; see [Disposition].
type Outcome struct {
	// Action is what happens to the job.
	Action Action
	// Delay is the wait that an ActionRetryAfter or an ActionSnooze asks for. For an
	// ActionRetry it is zero while the policy has not spoken.
	Delay time.Duration
	// Reason says why an ActionDead is one. Empty for every other action.
	Reason Reason
}

// Disposition says what a worker does with the error of a handler before the
// retry policy has its say: a plain error is an ActionRetry, whatever the policy
// makes of it. It is meant for tests of handlers and for middleware. For an error
// that has passed [Retry], the policy has spoken: an ActionRetry then carries the
// wait, and a job without retries left is an ActionDead.
//
// It sees through %w and [errors.Join]. The first that applies wins:
//   - the outermost of [Permanent], [RetryAfter], [Snooze] and [Discard], in the
//     order of [errors.As];
//   - a *PermanentError of github.com/cenkalti/backoff/v4: as [Permanent];
//   - an error with a method RetryAfter() time.Duration that returns more than
//     zero: as [RetryAfter];
//   - else a retry.
func Disposition(err error) Outcome {
	d := classify(err)
	return Outcome{Action: d.action, Delay: d.delay, Reason: d.reason}
}

// Permanent marks err as one that no retry can mend: the job becomes a dead letter
// at once, with [ReasonPermanent]. It returns nil for nil.
func Permanent(err error) error { return permanentReason(ReasonPermanent, err) }

// permanentReason is [Permanent] with a reason of its own.
func permanentReason(reason Reason, err error) error {
	if err == nil {
		return nil
	}
	return &directive{action: ActionDead, reason: reason, err: err}
}

// RetryAfter retries the job after d instead of what the backoff says, this once.
// The retry counts, and the limits of the policy and of the job's age still apply;
// [RetryPolicy.RetryIf] is not asked. The job is never early; to spread jobs that
// were told the same d it is late by U(0, min(d/10, 30s)), unless the policy has
// [NoJitter]. Zero or a negative d means now. A nil err retries too, with an error
// text that says no more than that.
func RetryAfter(d time.Duration, err error) error {
	if err == nil {
		err = errRetryAsked
	}
	return &directive{action: ActionRetryAfter, delay: max(d, 0), err: err}
}

// Snooze runs the job again after d, exactly. It is no failure: it uses no retry
// and has its own count, so that only [TaskOptions.MaxAge] bounds it. Zero or a
// negative d means now.
func Snooze(d time.Duration) error {
	return &directive{action: ActionSnooze, delay: max(d, 0), err: errSnoozed}
}

// Discard drops the job: it is counted and logged with err, and is never retried
// nor a dead letter. It returns nil for nil, which is success.
func Discard(err error) error {
	if err == nil {
		return nil
	}
	return &directive{action: ActionDiscard, err: err}
}

var (
	errRetryAsked = errors.New("redrive: the handler asked for a retry")
	errSnoozed    = errors.New("redrive: the handler snoozed the job")
)

// A directive is an error that says how to settle its job. It is the only carrier:
// one errors.As finds the outermost, whichever kind it is.
type directive struct {
	action  Action
	delay   time.Duration
	err     error
	decided bool   // by a policy: a retry is an ActionRetry, with its final delay and rule
	rule    int    // the index of the rule whose count a decided retry uses; -1: the policy's own
	reason  Reason // for ActionDead
}

// Error returns the text of the error that the directive wraps.
func (d *directive) Error() string { return errorText(d.err) }

// Unwrap returns the error that the directive wraps.
func (d *directive) Unwrap() error { return d.err }

// errorText returns err.Error(), or says that it panicked: a typed nil or an empty
// *backoff.PermanentError in a user's error must not end the worker. I13
func errorText(err error) (text string) {
	defer func() {
		if r := recover(); r != nil {
			text = fmt.Sprintf("redrive: the Error method of a %T panicked: %v", err, r)
		}
	}()
	return err.Error()
}

// classify returns what err asks for, by the precedence that [Disposition] lists.
func classify(err error) *directive {
	if err == nil {
		return &directive{action: ActionDone}
	}
	if d, ok := errors.AsType[*directive](err); ok {
		return d
	}
	if _, ok := errors.AsType[*backoff.PermanentError](err); ok {
		return &directive{action: ActionDead, reason: ReasonPermanent, err: err}
	}
	var hint time.Duration
	if anyInTree(err, func(e interface{ RetryAfter() time.Duration }) bool {
		hint = e.RetryAfter()
		return hint > 0
	}) {
		return &directive{action: ActionRetryAfter, delay: hint, err: err}
	}
	return &directive{action: ActionRetry, err: err}
}

// anyInTree reports whether match accepts some error of type T in err's tree. Unlike
// errors.As it goes on after the first of the type, which need not be the one.
func anyInTree[T any](err error, match func(T) bool) bool {
	if e, ok := err.(T); ok && match(e) {
		return true
	}
	if a, ok := err.(interface{ As(any) bool }); ok {
		if e := new(T); a.As(e) && match(*e) {
			return true
		}
	}
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		return anyInTree(u.Unwrap(), match)
	case interface{ Unwrap() []error }:
		for _, e := range u.Unwrap() {
			if anyInTree(e, match) {
				return true
			}
		}
	}
	return false
}
