package redrive

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive/internal/store"
)

// Defaults of [IdempotencyOptions].
const (
	DefaultIdempotencyTTL   = 24 * time.Hour
	DefaultIdempotencyLease = 30 * time.Second
	DefaultBusyDelay        = time.Second
	DefaultReplayedResult   = 64 << 10
)

// Errors of [Idempotent].
var (
	// ErrInProgress: another job is at work on the same key.
	ErrInProgress = errors.New("redrive: idempotency key is in progress")
	// ErrKeyReused: the idempotency key belongs to another payload. The job is a
	// dead letter with [ReasonKeyReused].
	ErrKeyReused = errors.New("redrive: idempotency key was used with another payload")
	// ErrClaimLost: the claim on the key was taken over, or could not be renewed for
	// a whole lease. It is the cause of the cancellation of the handler's context,
	// and what an [IdempotencyStore] returns when it refuses a claim.
	ErrClaimLost = errors.New("redrive: idempotency claim lost")
)

// OnBusy is what a job does that finds another one at work on its key.
type OnBusy uint8

const (
	// BusySnooze looks again after [IdempotencyOptions.BusyDelay], and replays the
	// other job's result once it is there.
	BusySnooze OnBusy = iota
	// BusyDiscard drops the job with [ErrInProgress].
	BusyDiscard
)

// IdempotencyOptions configures [Idempotent].
type IdempotencyOptions struct {
	// TTL is how long a result is replayed, from the completion on; after it the key
	// is new. Defaults to [DefaultIdempotencyTTL].
	TTL time.Duration
	// Lease is how long a claim survives its process. It is renewed every third of
	// it while the handler runs, which may be far longer. At least [MinLease].
	// Defaults to [DefaultIdempotencyLease].
	Lease time.Duration
	// Key names the effect of a job, within its task: jobs of the same key have one
	// effect. [Task.Key] makes one from the arguments. An empty key, or one of more
	// than [MaxIdempotencyKey] bytes, is a permanent failure. Defaults to
	// [EnqueueOptions.IdempotencyKey], and for a job without one to the job's ID.
	Key func(*Message) string
	// Fingerprint returns what jobs of the same key must have in common; a job
	// that differs is not run ([ErrKeyReused]). Return a constant for no such check.
	// Defaults to the payload, byte by byte.
	Fingerprint func(*Message) string
	// OnBusy is what a job does that finds another one at work on its key.
	// Defaults to [BusySnooze].
	OnBusy OnBusy
	// BusyDelay is how long such a job waits before it looks again.
	// Defaults to [DefaultBusyDelay].
	BusyDelay time.Duration
	// MaxResult bounds the result that is kept for replays, in bytes. A larger one
	// goes to the job that made it and to no other: see [Idempotent].
	// Defaults to [DefaultReplayedResult].
	MaxResult int
	// Prefix starts every key in Redis: jobs of one prefix and one task share their
	// keys. Defaults to [WorkerOptions.Prefix].
	Prefix string
	// Store keeps the records. Defaults to Redis.
	Store IdempotencyStore
	// Logger gets what no return value tells: a result that is not kept, a claim
	// that was lost or not released; never payloads. Defaults to [slog.Default].
	Logger *slog.Logger
}

func (o IdempotencyOptions) withDefaults() IdempotencyOptions {
	setDefault(&o.TTL, DefaultIdempotencyTTL)
	setDefault(&o.Lease, DefaultIdempotencyLease)
	setDefault(&o.BusyDelay, DefaultBusyDelay)
	setDefault(&o.MaxResult, DefaultReplayedResult)
	if o.Key == nil {
		o.Key = defaultKey
	}
	if o.Fingerprint == nil {
		o.Fingerprint = func(m *Message) string { return string(m.Payload) }
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

func defaultKey(m *Message) string {
	if m.IdempotencyKey != "" {
		return m.IdempotencyKey
	}
	return m.ID
}

func (o *IdempotencyOptions) validate() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.TTL < 0 {
		add("IdempotencyOptions.TTL is %v: use a positive duration", o.TTL)
	}
	if o.Lease < MinLease {
		add("IdempotencyOptions.Lease is %v: use at least %v", o.Lease, MinLease)
	}
	if o.OnBusy > BusyDiscard {
		add("IdempotencyOptions.OnBusy is %d: use BusySnooze or BusyDiscard", o.OnBusy)
	}
	if o.BusyDelay < 0 {
		add("IdempotencyOptions.BusyDelay is %v: use a positive duration", o.BusyDelay)
	}
	if o.MaxResult < 0 {
		add("IdempotencyOptions.MaxResult is %d: use a positive number of bytes", o.MaxResult)
	}
	if o.Prefix != "" {
		errs = append(errs, store.CheckName("IdempotencyOptions.Prefix", o.Prefix))
	}
	return errors.Join(errs...)
}

// Idempotent gives jobs of the same key one effect: the first runs, the others
// get its result. It claims the key before the handler runs, with a lease that it
// keeps alive, and records the result before the job is settled, so that a crash
// between the two replays the result:
//
//	absent ──claim──▶ running ──success──▶ done ──TTL──▶ absent
//	   ▲                │  ▲ │
//	   └────failure─────┘  └─┘ a later attempt of the same job, at once;
//	                           any other job, once the lease has lapsed
//
// A failure of any kind (an error, a panic, a timeout, a shutdown, a snooze)
// releases the claim. Every step compares the claim's owner and fence, so that a
// handler that slept past its lease changes nothing: if its effect was claimed
// meanwhile it snoozes, and then replays what the other made of it.
//
// A result that is too large or does not encode is no failure: the effect is done,
// and the record says that it has no result. A job that replays such a record
// succeeds, and its [Receipt.Wait] returns [ErrNoResult].
//
// Handlers run at least once: a process may die after the effect and before the
// record. An effect happens once only if the key travels to it; pass
// [IdempotencyClaimFrom] on, or commit the mark along with the effect, which a
// Store of your own can do. docs/idempotency.md says what is promised.
//
// It panics on invalid options, which are constants of the program. A nil rdb
// will do when Store is set.
func Idempotent(rdb redis.UniversalClient, opts IdempotencyOptions) Middleware {
	opts = opts.withDefaults()
	err := opts.validate()
	if rdb == nil && opts.Store == nil {
		err = errors.Join(errors.New("rdb is nil: pass a go-redis client, or IdempotencyOptions.Store"), err)
	}
	if err != nil {
		panic(fmt.Sprintf("redrive: Idempotent: %v", err))
	}
	if opts.Store == nil {
		opts.Store = redisIdempotency{store.OpenIdempotency(rdb)}
	}
	return func(next Handler) Handler {
		return &layer{kind: layerIdempotent, Handler: &idempotent{opts: &opts, next: next}}
	}
}

// idempotent is the handler that [Idempotent] makes.
type idempotent struct {
	opts *IdempotencyOptions
	next Handler
}

// Process claims the key and runs the handler, or replays its result.
func (h *idempotent) Process(ctx context.Context, m *Message) ([]byte, error) {
	c, err := h.newClaim(m)
	if err != nil {
		return nil, err
	}
	r := &effectRun{idempotent: h, m: m, claim: c, started: time.Now()}
	rec, err := r.take(ctx)
	if err != nil {
		return nil, err
	}
	switch rec.State {
	case IdempotencyDone:
		m.noResult = rec.NoResult != ""
		return rec.Result, nil
	case IdempotencyBusy:
		return nil, r.busy()
	}
	r.claim.Fence = rec.Fence
	return r.run(ctx)
}

// newClaim describes what a job claims.
func (h *idempotent) newClaim(m *Message) (IdempotencyClaim, error) {
	c := IdempotencyClaim{
		Prefix: cmp.Or(h.opts.Prefix, m.prefix, DefaultPrefix), Task: m.Task, Key: h.opts.Key(m), Owner: m.Queue + "/" + m.ID, Attempt: m.token,
		Lease: h.opts.Lease, TTL: h.opts.TTL,
	}
	switch {
	case c.Key == "":
		return c, Permanent(errors.New("redrive: IdempotencyOptions.Key returned no key for the job: its arguments may not decode"))
	case len(c.Key) > MaxIdempotencyKey:
		return c, Permanent(fmt.Errorf("redrive: idempotency key has %d bytes: use at most %d", len(c.Key), MaxIdempotencyKey))
	}
	if err := store.CheckName("task name", c.Task); err != nil {
		return c, Permanent(fmt.Errorf("redrive: Idempotent: %w", err))
	}
	if c.Attempt == 0 { // called by a test, not by a worker
		c.Attempt = time.Now().UnixMicro()
	}
	// The length keeps task and fingerprint apart.
	sum := sha256.New()
	sum.Write(binary.BigEndian.AppendUint64(nil, uint64(len(m.Task))))
	sum.Write([]byte(m.Task))
	sum.Write([]byte(h.opts.Fingerprint(m)))
	c.Fingerprint = hex.EncodeToString(sum.Sum(nil))
	return c, nil
}

// effectRun is one attempt at an effect.
type effectRun struct {
	*idempotent
	m     *Message
	claim IdempotencyClaim
	// started is from before the claim was sent: the lease began no sooner.
	started time.Time
}

// take claims the key. While Redis does not answer it tries on for half a lease;
// then the job is snoozed: the handler did not run, so no retry is due.
func (r *effectRun) take(ctx context.Context) (rec IdempotencyRecord, err error) {
	try, cancel := context.WithTimeout(ctx, r.opts.Lease/2)
	defer cancel()
	err = insist(try, func(ctx context.Context) error {
		rec, err = r.opts.Store.Claim(ctx, r.claim)
		return err
	})
	switch {
	case err == nil:
		return rec, nil
	case errors.Is(err, ErrKeyReused):
		return rec, permanentReason(ReasonKeyReused, r.wrap(err))
	case ctx.Err() != nil:
		return rec, r.wrap(err)
	case errors.Is(err, ErrClaimLost), store.Transient(err):
		return rec, r.later(err)
	}
	return rec, r.wrap(err)
}

func (r *effectRun) busy() error {
	if r.opts.OnBusy == BusyDiscard {
		return Discard(r.wrap(ErrInProgress))
	}
	return r.later(ErrInProgress)
}

// later snoozes the job, and says why.
func (r *effectRun) later(err error) error {
	return &directive{action: ActionSnooze, delay: r.opts.BusyDelay, err: r.wrap(err)}
}

// wrap names the effect as its record in Redis is named: the error is logged, and the
// key is not to be.
func (r *effectRun) wrap(err error) error {
	return fmt.Errorf("%w (task %s, key with SHA-256 %.6x…)", err, r.claim.Task, sha256.Sum256([]byte(r.claim.Key)))
}

// run runs the handler under the claim, and completes or releases it.
func (r *effectRun) run(job context.Context) (result []byte, err error) {
	ctx, cancel := context.WithCancelCause(context.WithValue(job, claimKey{}, r.claim))
	stop := r.keep(ctx, cancel)
	returned := false
	defer func() {
		if !returned { // a panic or runtime.Goexit is on its way
			stop()
			r.release(job)
		}
		cancel(nil)
	}()
	result, err = r.next.Process(ctx, r.m)
	returned = true
	stop()

	why := ""
	switch {
	case errors.Is(err, errEncodeResult):
		result, why = nil, errorText(err)
	case err != nil:
		r.release(job)
		if errors.Is(context.Cause(ctx), ErrClaimLost) && classify(err).action == ActionRetry {
			// The failure is the lost claim's: another job is at work on the effect, or
			// nobody knows. Look again instead of using up a retry.
			return nil, r.later(fmt.Errorf("%w: %w", ErrClaimLost, err))
		}
		return result, err
	case len(result) > r.opts.MaxResult:
		why = fmt.Sprintf("the result of %d bytes exceeds IdempotencyOptions.MaxResult, %d", len(result), r.opts.MaxResult)
	}
	if err := r.complete(job, result, why); err != nil {
		return nil, err
	}
	if why != "" {
		r.opts.Logger.Warn("redrive: job succeeded and its result is not kept for replays",
			"task", r.m.Task, "id", r.m.ID, "reason", why)
		r.m.noResult = result == nil
	}
	return result, nil
}

// complete records the success. It comes before the job is settled, and goes on
// when the job's context is done: the handler has done its work.
func (r *effectRun) complete(job context.Context, result []byte, why string) error {
	ctx, cancel := detach(job, r.opts.Lease)
	defer cancel()
	rec := IdempotencyRecord{State: IdempotencyDone, Fence: r.claim.Fence, Result: result, NoResult: why}
	if why != "" {
		rec.Result = nil
	}
	err := insist(ctx, func(ctx context.Context) error { return r.opts.Store.Complete(ctx, r.claim, rec) })
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrClaimLost):
		r.opts.Logger.Warn("redrive: idempotency claim lost: another job's result counts", "task", r.m.Task, "id", r.m.ID)
		return r.later(err)
	}
	return fmt.Errorf("redrive: the handler succeeded and its success could not be recorded, so it will run again: %w", r.wrap(err))
}

// release gives the claim up after a failure. If that fails the lease lapses.
func (r *effectRun) release(job context.Context) {
	ctx, cancel := detach(job, min(r.opts.Lease, sendTimeout))
	defer cancel()
	err := insist(ctx, func(ctx context.Context) error { return r.opts.Store.Release(ctx, r.claim) })
	if err != nil && !errors.Is(err, ErrClaimLost) {
		r.opts.Logger.Warn("redrive: idempotency claim not released: other jobs of the key wait until its lease has lapsed",
			"task", r.m.Task, "id", r.m.ID, "lease", r.opts.Lease, "error", err)
	}
}

// keep renews the lease every third of it, and cancels the handler's context when
// the claim is lost, or when a whole lease has passed since a renewal that was
// answered: from then on another job may hold the claim. Its goroutine ends with stop.
func (r *effectRun) keep(ctx context.Context, cancel context.CancelCauseFunc) (stop func()) {
	lease := r.opts.Lease
	// The timer is apart from the renewals, which a client may hold up.
	lapse := time.AfterFunc(time.Until(r.started.Add(lease)), func() { cancel(ErrClaimLost) })
	ctx, end := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		sent := r.started
		for sleep(ctx, time.Until(sent.Add(lease/3))) {
			now := time.Now()
			err := insist(ctx, func(ctx context.Context) error {
				now = time.Now()
				return r.opts.Store.Extend(ctx, r.claim)
			})
			switch {
			case ctx.Err() != nil:
				return
			case err == nil:
				sent = now
				lapse.Reset(time.Until(sent.Add(lease)))
			case errors.Is(err, ErrClaimLost):
				cancel(ErrClaimLost)
				return
			default: // no answer that says more: try again, until the lease has lapsed
				r.opts.Logger.Warn("redrive: idempotency claim not renewed", "task", r.m.Task, "id", r.m.ID, "error", err)
				if !sleep(ctx, lease/10) {
					return
				}
			}
		}
	}()
	return func() {
		end()
		<-ended
		lapse.Stop()
	}
}

// detach returns a context for what must be written although the job's is done. It
// ends after d; when the job's is done, soon, so that a shutdown is not held up.
func detach(job context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(job), d)
	stop := context.AfterFunc(job, func() {
		t := time.AfterFunc(afterDone, cancel)
		context.AfterFunc(ctx, func() { t.Stop() })
	})
	return ctx, func() {
		stop()
		cancel()
	}
}

// afterDone bounds what is written when the job's context is done. A worker that
// shuts down grants a second.
const afterDone = 500 * time.Millisecond

// insist calls f again while Redis does not answer, until ctx is done.
func insist(ctx context.Context, f func(context.Context) error) error {
	retry := newReconnect()
	for {
		try, cancel := context.WithTimeout(ctx, sendTimeout)
		err := safely(try, f)
		cancel()
		if err == nil || !store.Transient(err) || !sleep(ctx, retry.NextBackOff()) {
			return err
		}
	}
}

// safely turns a panic of a user's store into an error: the goroutine of keep has
// nobody to catch it.
func safely(ctx context.Context, f func(context.Context) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("IdempotencyOptions.Store panicked: %v", r)
		}
	}()
	return f(ctx)
}
