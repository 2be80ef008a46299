package redrive

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redrive-go/redrive/internal/store"
	"github.com/redrive-go/redrive/internal/wire"
)

// maxStack bounds the stack of a [PanicError].
const maxStack = 4 << 10

// An attempt is one claimed job on its way through a session. The claim's
// goroutine fills it, a runner runs it, the next round of the courier ends it.
type attempt struct {
	q      *served
	job    store.ClaimedJob
	msg    Message
	env    wire.Envelope
	ledger wire.Ledger
	route  *route // nil when no handler knows the task

	lease   context.Context // ends with the session's lease, or its shutdown
	started time.Time
	// overdue is when a handler that still runs has ignored its timeout.
	overdue time.Time

	place    int  // in q.owned, guarded by q.mu
	disowned bool // given up before its claim was heard of

	began bool        // the handler was called
	stuck atomic.Bool // reported
	over  atomic.Bool // in the outbox, or on its way: Redis may have ended it already

	// How it ends; what is used besides end is up to end.Action.
	end       JobEnd
	result    []byte // kept for resultTTL, if that is positive
	resultTTL time.Duration
	putback   *store.Putback // or nil
	burial    *store.Burial  // or nil
}

func (a *attempt) owned() store.Owned { return store.Owned{ID: a.job.ID, Token: a.job.Token} }

// start takes over what a claim returned: each job is to be run, or goes straight to
// the courier when there is nothing to run. The caller sees to it that a runner comes.
// It returns how many jobs it has taken.
func (q *served) start(ctx context.Context, c store.Claimed) int {
	now := time.Now()
	as := make([]*attempt, len(c.Jobs))
	run := 0 // the first so many are to run
	stopping := ctx.Err() != nil
	for i := range c.Jobs {
		a := &attempt{q: q, job: c.Jobs[i], started: now}
		ready := a.prepare(now)
		if as[i] = a; stopping {
			a.release(store.Released, nil)
		} else if ready {
			as[run], as[i] = a, as[run]
			run++
		}
	}
	lease := q.own(as)
	for _, a := range as {
		a.lease = lease
	}
	disowned := func(a *attempt) bool { return a.disowned }
	ready, over := slices.DeleteFunc(as[:run], disowned), slices.DeleteFunc(as[run:], disowned)
	q.s.runners.launch(ready)
	for _, a := range over {
		q.courier.add(a, now)
	}
	return len(ready) + len(over)
}

// prepare decodes the job and finds its handler. If there is nothing to run it
// says how the job ends, and returns false.
func (a *attempt) prepare(now time.Time) (ready bool) {
	if err := a.decode(now); err != nil {
		a.bury(ReasonMalformed, err)
		return false
	}
	a.route = a.q.s.mux.table.byTask[a.msg.Task]
	switch {
	case a.route == nil:
		a.unknownTask(now)
		return false
	case a.expired(now):
		a.bury(ReasonMaxAge, fmt.Errorf("job is older than MaxAge, %v", a.route.maxAge))
		return false
	}
	if a.route.timeout > 0 {
		a.overdue = now.Add(a.route.timeout)
	}
	return true
}

// decode reads the job's ledger and envelope into its message. A job whose envelope
// does not decode has its counters and history all the same.
func (a *attempt) decode(now time.Time) (err error) {
	q, m := a.q, &a.msg
	m.ID, m.Queue, m.Task = a.job.ID, q.name, unknownName
	m.prefix = q.s.opts.Prefix
	m.token, _ = strconv.ParseInt(a.job.Token, 10, 64)
	if a.ledger, err = wire.ParseLedger([]byte(a.job.Ledger)); err != nil {
		// The payload may be whole: run it, and say that its counters start over.
		q.s.log.Error("redrive: ledger is damaged: the job's counters start over", "queue", q.name, "id", m.ID, "error", err)
	}
	if a.env, err = decodeEnvelope(a.job.Envelope); err != nil {
		m.fill(&wire.Envelope{Task: unknownName}, &a.ledger, now)
		return err
	}
	m.fill(&a.env, &a.ledger, now)
	return nil
}

// unknownName stands for the task name of a job that cannot be decoded.
const unknownName = "unknown"

// decodeEnvelope also refuses task names that no key may hold: other producers
// than ours may have written it.
func decodeEnvelope(s string) (wire.Envelope, error) {
	if s == "" {
		return wire.Envelope{}, fmt.Errorf("%w: the payload is missing from redis", wire.ErrMalformed)
	}
	env, err := wire.ParseEnvelope([]byte(s))
	if err != nil {
		return env, err
	}
	if err := store.CheckName("task name", env.Task); err != nil {
		return wire.Envelope{}, fmt.Errorf("%w: %w", wire.ErrMalformed, err)
	}
	return env, nil
}

// fill sets the fields that come from the encodings.
func (m *Message) fill(env *wire.Envelope, l *wire.Ledger, now time.Time) {
	m.Task, m.Payload, m.Headers, m.IdempotencyKey = env.Task, env.Args, env.Headers, env.IdempotencyKey
	m.EnqueuedAt, m.RunAt = wire.Time(env.EnqueuedAt), wire.Time(max(env.EnqueuedAt, env.RunAt))
	m.Generation, m.Retries, m.Crashes = l.Generation, l.Retries, l.Crashes
	m.Snoozes, m.Interrupts, m.ruleRetries = l.Snoozes, l.Interrupts, l.RuleRetries
	m.Starts = 1 + l.Retries + l.Crashes + l.Snoozes + l.Interrupts
	if m.FirstStartedAt = wire.Time(l.FirstStarted); l.FirstStarted == 0 {
		m.FirstStartedAt = now
	}
	m.Errors = errorRecords(l.Errors)
}

func errorRecords(errs []wire.Error) []ErrorRecord {
	if len(errs) == 0 {
		return nil
	}
	out := make([]ErrorRecord, len(errs))
	for i, e := range errs {
		out[i] = ErrorRecord{
			Time: wire.Time(e.At), Attempt: e.Attempt, Worker: e.Worker, Error: e.Text,
			Duration: time.Duration(e.DurationMS) * time.Millisecond,
			Delay:    time.Duration(e.DelayMS) * time.Millisecond,
		}
	}
	return out
}

// expired reports whether the job is too old at the time given.
func (a *attempt) expired(at time.Time) bool {
	return a.route.maxAge > 0 && !a.msg.RunAt.IsZero() && at.Sub(a.msg.RunAt) > a.route.maxAge
}

// unknownTask waits for a worker that knows the task (a producer was deployed
// first), at growing intervals, and gives up at UnknownTaskAge.
func (a *attempt) unknownTask(now time.Time) {
	err := fmt.Errorf("%w %q", ErrUnknownTask, a.msg.Task)
	age := now.Sub(a.msg.RunAt)
	if a.msg.RunAt.IsZero() { // a producer that gives no time: count the waits
		age = time.Duration(a.msg.Snoozes) * time.Minute
	}
	if age > a.q.s.opts.UnknownTaskAge {
		a.bury(ReasonUnknownTask, err)
		return
	}
	a.q.s.log.Warn("redrive: job of an unknown task waits", "queue", a.q.name, "task", a.msg.Task, "id", a.msg.ID)
	delay := min(time.Second<<min(a.ledger.Snoozes, 6), time.Minute)
	a.snooze(delay, err)
}

// run runs one attempt from now on, passes its end on, and returns when that was. A
// handler that calls runtime.Goexit takes the runner with it: another takes its place.
func (s *session) run(a *attempt, now time.Time) (end time.Time) {
	var result []byte
	var err error
	returned := false
	defer func() {
		if !returned {
			result, err = nil, &PanicError{}
		}
		s.runners.busy.Add(-1)
		a.judge(result, err)
		a.route.took(a.end.Duration)
		end = a.started.Add(a.end.Duration)
		a.q.courier.add(a, end)
		if !returned {
			s.runners.replace()
		}
	}()
	a.began, a.started = true, now
	if f := s.trace.JobStarted; f != nil {
		f(&a.msg)
	}
	ctx := a.lease
	if a.route.timeout == 0 { // else the typed handler makes a context of the attempt's own
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
	}
	result, err = call(ctx, a.route.handler, &a.msg)
	returned = true
	return end // the deferred call sets it
}

// call runs a handler and turns its panic into an error.
func call(ctx context.Context, h Handler, m *Message) (result []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			stack := debug.Stack()
			result, err = nil, &PanicError{Value: r, Stack: string(stack[:min(len(stack), maxStack)])}
		}
	}()
	return h.Process(ctx, m)
}

// judge decides how the attempt ends, from what the handler returned and from
// why its context was cancelled, if it was.
func (a *attempt) judge(result []byte, err error) {
	if err == nil {
		a.succeed(result)
		return
	}
	switch cause := context.Cause(a.lease); {
	case errors.Is(cause, ErrShutdown):
		a.ledger.Interrupts++
		a.release(store.Interrupted, err)
		return
	case errors.Is(cause, ErrLeaseLost):
		// Another worker may own the job, or nobody took it: the token decides. The
		// outage is not the job's failure.
		a.release(store.Released, err)
		return
	}
	d := a.decide(err)
	switch d.action {
	case ActionSnooze:
		a.snooze(d.delay, err)
	case ActionDiscard:
		a.ended(ActionDiscard, err)
		if a.resultTTL = a.route.resultTTL; a.resultTTL > 0 {
			a.result = encodeFailure(&FailedError{
				ID: a.msg.ID, Task: a.msg.Task, Reason: ReasonDiscarded, Retries: a.msg.Retries, Message: errorText(err),
			})
		}
	case ActionRetry:
		a.retry(d, err)
	default:
		a.bury(d.reason, err)
	}
}

// decide asks the policy, unless a [Retry] middleware has. The functions of a
// policy are the user's: one that panics must not take the worker along.
func (a *attempt) decide(err error) (d *directive) {
	defer func() {
		if r := recover(); r != nil {
			d = &directive{action: ActionDead, reason: ReasonPermanent, err: err}
			a.q.s.log.Error("redrive: retry policy panicked", "task", a.msg.Task, "id", a.msg.ID, "panic", r)
		}
	}()
	return decide(&a.route.retry, &a.msg, err)
}

// defaultPolicy is for handlers without a policy of their own. It is never
// changed.
var defaultPolicy = RetryPolicy{}.withDefaults()

func (a *attempt) ended(action Action, err error) {
	a.end = JobEnd{Action: action, Err: err, Duration: time.Since(a.started)}
}

func (a *attempt) succeed(result []byte) {
	a.ended(ActionDone, nil)
	if a.route.resultTTL == 0 || a.msg.noResult {
		return
	}
	if limit := a.q.s.opts.MaxResult; len(result) > limit {
		a.bury(ReasonPermanent, fmt.Errorf("the job succeeded, and its result of %d bytes exceeds WorkerOptions.MaxResult, %d", len(result), limit))
		return
	}
	a.resultTTL, a.result = a.route.resultTTL, encodeResult(result)
}

// retry counts a failure and waits, or gives up if the wait ends after MaxAge.
func (a *attempt) retry(d *directive, err error) {
	now := time.Now()
	if a.expired(now.Add(d.delay)) {
		a.bury(ReasonMaxAge, err)
		return
	}
	a.record(now, err, d.delay)
	a.ledger.Retries++
	if d.rule >= 0 {
		rules := make(map[int]int, len(a.ledger.RuleRetries)+1)
		maps.Copy(rules, a.ledger.RuleRetries) // the message shows the old one
		rules[d.rule]++
		a.ledger.RuleRetries = rules
	}
	a.ended(ActionRetry, err)
	a.end.Delay = d.delay
	a.putback = &store.Putback{Owned: a.owned(), Delay: d.delay, Ledger: a.book(), Counter: store.Retried}
}

func (a *attempt) snooze(delay time.Duration, err error) {
	if a.route != nil && a.expired(time.Now().Add(delay)) {
		a.bury(ReasonMaxAge, err)
		return
	}
	a.ledger.Snoozes++
	a.ended(ActionSnooze, err)
	a.end.Delay = delay
	a.putback = &store.Putback{Owned: a.owned(), Delay: delay, Ledger: a.book(), Counter: store.Snoozed}
}

// release puts the job back to the front, for a reason that is not its own.
func (a *attempt) release(counter store.Counter, err error) {
	a.ended(ActionRelease, err)
	a.putback = &store.Putback{Owned: a.owned(), Front: true, Counter: counter}
	if counter == store.Interrupted {
		a.putback.Ledger = a.book()
	}
}

// bury makes the job a dead letter, by the rules of its task.
func (a *attempt) bury(reason Reason, err error) {
	now := time.Now()
	a.record(now, err, 0)
	a.ended(ActionDead, err)
	a.end.Reason = reason
	rules := a.q.s.mux.table.deadLetter(a.msg.Task)
	letter := a.letter(now, reason, err)
	rules.redact(letter)
	a.burial = &store.Burial{
		Owned: a.owned(), Task: a.msg.Task, Reason: string(reason), Entry: letter.Append(nil), Hook: rules.OnDead != nil,
	}
}

// record adds an error to the history.
func (a *attempt) record(now time.Time, err error, delay time.Duration) {
	rec := wire.Error{
		At: now.UnixMilli(), Attempt: a.msg.Starts, Worker: a.q.s.id,
		Text: errorText(err), DelayMS: int64((delay + time.Millisecond - 1) / time.Millisecond),
	}
	if a.began {
		rec.DurationMS = now.Sub(a.started).Milliseconds()
	}
	a.ledger.Add(rec)
}

// book encodes the ledger.
func (a *attempt) book() []byte {
	if a.ledger.FirstStarted == 0 && a.began {
		a.ledger.FirstStarted = a.started.UnixMilli()
	}
	return a.ledger.Append(nil)
}

// letter builds the dead letter.
func (a *attempt) letter(now time.Time, reason Reason, err error) *wire.DeadLetter {
	m := &a.msg
	d := &wire.DeadLetter{
		TaskName: m.Task, TaskID: m.ID, Queue: m.Queue, Reason: string(reason), Error: errorText(err),
		Timestamp: now, Worker: a.q.s.id,
		Retries: m.Retries, Crashes: a.ledger.Crashes, Snoozes: m.Snoozes, Interrupts: m.Interrupts,
		Generation: m.Generation, Starts: m.Starts,
		EnqueuedAt: m.EnqueuedAt, RunAt: wire.Time(a.env.RunAt), Headers: m.Headers, IdempotencyKey: m.IdempotencyKey,
		Errors: a.ledger.Errors, ErrorsDropped: a.ledger.Dropped, Extra: a.env.Extra,
	}
	if !a.began { // this attempt did not start
		d.Starts--
	}
	if d.Starts > 0 || a.ledger.FirstStarted > 0 {
		d.FirstStartedAt = m.FirstStartedAt
	}
	switch {
	case a.env.Task == "":
		d.Raw = append([]byte{}, a.job.Envelope...)
	case a.env.Binary:
		d.Data = a.env.Args
	default:
		d.Args = a.env.Args
	}
	return d
}
