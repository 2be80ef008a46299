package redrive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"syscall"
	"time"
)

// Values of [RetryPolicy.MaxRetries].
const (
	// DefaultMaxRetries is what a policy allows that does not say.
	DefaultMaxRetries = 5
	// NoRetries makes the first error final.
	NoRetries = -1
	// Unlimited never gives up; only [TaskOptions.MaxAge] bounds the retries.
	Unlimited = math.MaxInt
)

// previewUnlimited is how many delays [RetryPolicy.Preview] returns of an endless
// schedule.
const previewUnlimited = 100

// RetryPolicy says which errors are retried, how often, and after which wait. The
// wait is a pure function of the policy, the job and the number of the retry; nothing
// is stored but counts. The zero value is the default policy.
type RetryPolicy struct {
	// MaxRetries is how many retries may follow the first attempt. Only attempts that
	// ended in an error, a panic or a timeout count, not crashes, snoozes or
	// interrupts. The error after the last retry makes the job a dead letter with
	// [ReasonExhausted]. [NoRetries] and [Unlimited] are values of it; any other
	// negative is an error. Defaults to DefaultMaxRetries, 5.
	MaxRetries int

	// Backoff is the wait before each retry, before Jitter.
	// Defaults to Exponential(time.Second, 10*time.Minute).
	Backoff Backoff

	// Jitter is how Backoff is spread at random. It is not applied to [FromBackOff].
	// Defaults to EqualJitter.
	Jitter Jitter

	// RetryIf says whether an error is worth a retry; where it returns false the job
	// becomes a dead letter at once, with [ReasonPermanent]. It is not asked about an
	// error that says itself what to do, such as [RetryAfter]; see [Disposition].
	// It must be safe for concurrent use. [Is], [As] and [Temporary] make some.
	// Defaults to retrying every error.
	RetryIf func(error) bool

	// Rules are exceptions for some errors. The first rule that matches an error
	// stands in for the whole policy, with a count of its own: its retries use up
	// nothing of this policy's MaxRetries, nor the other way round. Counts are kept
	// by the rule's place in the list: a rule that moves takes over, for jobs that
	// wait for a retry, the count of its new place. Defaults to none.
	Rules []RetryRule
}

// RetryRule is a policy for the errors that If accepts.
type RetryRule struct {
	// If says whether the rule is for an error. It must be safe for concurrent use.
	// [Is], [As] and [Temporary] make some. Required.
	If func(error) bool

	// Policy applies to the error. It is complete in itself: a zero field has its own
	// default, not the value of the policy around it. Its Rules must be empty.
	// Defaults to the default policy.
	Policy RetryPolicy
}

func (p RetryPolicy) withDefaults() RetryPolicy {
	if p.MaxRetries == 0 {
		p.MaxRetries = DefaultMaxRetries
	}
	if p.Backoff.kind == backoffUnset {
		p.Backoff = Exponential(time.Second, 10*time.Minute)
	}
	if p.Jitter == 0 {
		p.Jitter = EqualJitter
	}
	p.Rules = slices.Clone(p.Rules)
	for i, r := range p.Rules {
		p.Rules[i].Policy = r.Policy.withDefaults()
	}
	return p
}

// validate returns every problem of the policy, each with the name of its field.
func (p RetryPolicy) validate() error {
	var errs []error
	if p.MaxRetries < NoRetries {
		errs = append(errs, fmt.Errorf("MaxRetries: %d is below NoRetries, %d", p.MaxRetries, NoRetries))
	}
	errs = append(errs, p.Backoff.validate())
	if p.Jitter > DecorrelatedJitter {
		errs = append(errs, fmt.Errorf("Jitter: %v is not one of its constants", p.Jitter))
	}
	for i, r := range p.Rules {
		if r.If == nil {
			errs = append(errs, fmt.Errorf("Rules[%d].If: is nil", i))
		}
		if len(r.Policy.Rules) > 0 {
			errs = append(errs, fmt.Errorf("Rules[%d].Policy.Rules: rules do not nest", i))
			r.Policy.Rules = nil
		}
		if err := r.Policy.validate(); err != nil {
			errs = append(errs, fmt.Errorf("Rules[%d].Policy: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

// Preview returns the waits before each retry of the job with this ID, if it fails
// each time with an error that no rule and no [RetryAfter] concerns: exactly the
// waits of its first generation, except with [FromBackOff] over a random BackOff.
// A job that was requeued from the dead letters draws anew. For [Unlimited] it
// returns the first 100. It is empty for [NoRetries], and for an invalid policy.
func (p RetryPolicy) Preview(jobID string) []time.Duration {
	if p.validate() != nil {
		return nil
	}
	p = p.withDefaults()
	limit := p.MaxRetries
	if limit == Unlimited {
		limit = previewUnlimited
	}
	var waits []time.Duration
	if limit > 0 {
		for d := range p.delays(jobID, 0, 1) {
			if waits = append(waits, d); len(waits) == limit {
				break
			}
		}
	}
	return waits
}

// Retry applies a policy to the handler that it wraps: it turns each error into the
// decision what happens to the job. A decision is made once: where several Retry
// nest, the innermost decides, unless middleware between them wraps the decision in
// a [Permanent], [RetryAfter], [Snooze] or [Discard] of its own.
// A panic of the handler is a [*PanicError] from here on.
// An error while the worker shuts down or has lost its lease is left alone: it says
// nothing about the job. Retry panics if the policy is invalid.
func Retry(p RetryPolicy) Middleware {
	if err := p.validate(); err != nil {
		panic(fmt.Sprintf("redrive: Retry: invalid policy: %v", err))
	}
	p = p.withDefaults()
	return func(next Handler) Handler {
		return HandlerFunc(func(ctx context.Context, m *Message) ([]byte, error) {
			result, err := call(ctx, next, m)
			if err == nil {
				return result, nil
			}
			if cause := context.Cause(ctx); errors.Is(cause, ErrShutdown) || errors.Is(cause, ErrLeaseLost) {
				return result, err
			}
			return result, decide(&p, m, err)
		})
	}
}

// decide returns what p, which has its defaults, makes of an attempt of m that ended
// with err. The decision wraps all of err. It may panic where a function of the
// policy or a method of err does.
func decide(p *RetryPolicy, m *Message, err error) *directive {
	d := *classify(err)
	d.err = err
	if d.decided {
		return &d
	}
	d.decided, d.rule = true, -1
	if d.action != ActionRetry && d.action != ActionRetryAfter {
		return &d
	}
	dead := func(why Reason) *directive {
		d.action, d.delay, d.reason = ActionDead, 0, why
		return &d
	}

	n := m.Retries + 1 // the number of the retry to come, by the count that it uses
	for _, used := range m.ruleRetries {
		n -= used
	}
	n = max(n, 1)
	for i := range p.Rules {
		if p.Rules[i].If(err) {
			d.rule, n = i, m.ruleRetries[i]+1
			p = &p.Rules[i].Policy
			break
		}
	}
	if d.action == ActionRetry && p.RetryIf != nil && !p.RetryIf(err) {
		return dead(ReasonPermanent)
	}
	if n > max(p.MaxRetries, 0) {
		return dead(ReasonExhausted)
	}
	for wait := range p.delays(m.ID, m.Generation, n) {
		if d.action == ActionRetryAfter {
			wait = p.spread(d.delay, m.ID, m.Generation, n)
		}
		d.action, d.delay = ActionRetry, wait
		return &d
	}
	return dead(ReasonExhausted) // a BackOff stopped, which limits a RetryAfter too
}

// Is returns a predicate that accepts an error which is one of errs, by [errors.Is].
func Is(errs ...error) func(error) bool {
	errs = slices.Clone(errs)
	return func(err error) bool {
		return slices.ContainsFunc(errs, func(target error) bool { return errors.Is(err, target) })
	}
}

// As returns a predicate that accepts an error with a T in its tree, by [errors.As].
func As[T error]() func(error) bool {
	return func(err error) bool {
		_, ok := errors.AsType[T](err)
		return ok
	}
}

// Temporary accepts errors that tend to pass: every timeout ([net.Error],
// [context.DeadlineExceeded], [ErrTimeout]), and a connection that was refused or
// broke (ECONNREFUSED, ECONNRESET, ECONNABORTED, EPIPE, [io.ErrUnexpectedEOF]).
func Temporary(err error) bool {
	return anyInTree(err, net.Error.Timeout) || isTemporary(err)
}

var isTemporary = Is(context.DeadlineExceeded, ErrTimeout, io.ErrUnexpectedEOF,
	syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE)
