package redrive

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive/internal/store"
)

// DefaultLockTTL is the TTL of locks that set none.
const DefaultLockTTL = 30 * time.Second

// MinLockTTL is the shortest TTL of a lock: renewals come three to a TTL.
const MinLockTTL = time.Second

// ErrLockHeld: another holds the lock. [*AlreadyRunningError] wraps it and says who.
var ErrLockHeld = errors.New("redrive: lock is held")

// AlreadyRunningError says who holds a lock that could not be had. It is
// [ErrLockHeld] to errors.Is.
type AlreadyRunningError struct {
	// Key is the lock's key.
	Key string
	// Holder is the label of the holder: [LockerOptions.Holder], or the worker and
	// job for [Singleton].
	Holder string
	// Since is when the holder acquired it, by the clock of Redis.
	Since time.Time

	lapses time.Duration
}

func (e *AlreadyRunningError) Error() string {
	return fmt.Sprintf("redrive: already running: lock %q is held by %s since %s", e.Key, e.Holder, e.Since.UTC().Format(time.RFC3339Nano))
}

// Unwrap returns [ErrLockHeld].
func (e *AlreadyRunningError) Unwrap() error { return ErrLockHeld }

// LockerOptions configures a [Locker].
type LockerOptions struct {
	// Prefix starts every key in Redis. Defaults to [DefaultPrefix].
	Prefix string
	// TTL is how long a lock outlives its holder's last sign of life. It is renewed
	// every third of it for as long as the lock is held. At least [MinLockTTL].
	// Defaults to [DefaultLockTTL].
	TTL time.Duration
	// Limit is how many may hold one lock at once: a semaphore, if more than 1.
	// Everybody who uses a lock gives the same. Defaults to 1.
	Limit int
	// Holder is what others are told of who holds the lock. Defaults to the host's
	// name and a random part.
	Holder string
}

func (o LockerOptions) withDefaults() LockerOptions {
	setDefault(&o.Prefix, DefaultPrefix)
	setDefault(&o.TTL, DefaultLockTTL)
	setDefault(&o.Limit, 1)
	if o.Holder == "" {
		o.Holder = newIdentity(hostName())
	}
	return o
}

func (o *LockerOptions) validate(of string) error {
	errs := []error{store.CheckName(of+".Prefix", o.Prefix)}
	if o.TTL < MinLockTTL {
		errs = append(errs, fmt.Errorf("%s.TTL is %v: use at least %v", of, o.TTL, MinLockTTL))
	}
	if o.Limit < 1 || o.Limit > maxLimit {
		errs = append(errs, fmt.Errorf("%s.Limit is %d: use 1 to %d", of, o.Limit, maxLimit))
	}
	return errors.Join(errs...)
}

// maxLimit bounds the holders that one script call looks at (I14).
const maxLimit = 100

// A Locker acquires locks that several processes share. It is safe for concurrent
// use. It needs no closing: it holds a connection of its own only while a lock is
// held for longer than a third of its TTL, so that a full pool cannot keep a
// renewal waiting.
type Locker struct {
	rdb  redis.UniversalClient
	opts LockerOptions

	mu     sync.Mutex
	own    redis.UniversalClient // for renewals; nil while nothing is renewed
	copied bool                  // own is ours to close
	users  int
}

// NewLocker returns a locker. It reports every invalid option by name. Redis is not
// contacted. rdb stays the caller's to close.
func NewLocker(rdb redis.UniversalClient, opts LockerOptions) (*Locker, error) {
	opts = opts.withDefaults()
	err := opts.validate("LockerOptions")
	if rdb == nil {
		err = errors.Join(errors.New("rdb is nil: pass a go-redis client"), err)
	}
	if err != nil {
		return nil, fmt.Errorf("redrive: NewLocker: %w", err)
	}
	return &Locker{rdb: rdb, opts: opts}, nil
}

// client lends the connection for renewals; the last to give it back closes it.
func (l *Locker) client() (rdb redis.UniversalClient, giveBack func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users == 0 {
		l.own, l.copied = derive(l.rdb, 2)
	}
	l.users++
	return l.own, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.users--; l.users == 0 && l.copied {
			_ = l.own.Close()
		}
	}
}

// TryAcquire takes the lock of that key, which may be any text, or returns
// [*AlreadyRunningError] at once. ctx is the parent of the lock's context, and
// bounds the call.
func (l *Locker) TryAcquire(ctx context.Context, key string) (*Lock, error) {
	return l.tryAcquire(ctx, key, uuid.NewString(), l.opts.Holder)
}

// tryAcquire is sent again with the same owner until Redis answers: an acquisition
// whose answer is lost does not lock its owner out.
func (l *Locker) tryAcquire(ctx context.Context, key, owner, label string) (*Lock, error) {
	if key == "" {
		return nil, errors.New("redrive: lock key is empty: give it a name")
	}
	s := store.OpenLock(l.rdb, l.opts.Prefix, key)
	retry := newReconnect()
	for {
		sent := time.Now()
		try, cancel := context.WithTimeout(ctx, sendTimeout)
		token, held, err := s.Acquire(try, owner, label, l.opts.TTL, l.opts.Limit)
		cancel()
		switch {
		case err == nil && held != nil:
			return nil, &AlreadyRunningError{Key: key, Holder: held.Holder, Since: held.Since, lapses: held.Lapses}
		case err == nil:
			return l.newLock(ctx, key, owner, token, sent), nil
		case !store.Transient(err):
			return nil, fmt.Errorf("redrive: %w", err)
		case !sleep(ctx, retry.NextBackOff()):
			// Should Redis have it all the same, it is free again after the TTL.
			return nil, fmt.Errorf("redrive: %w: %w", context.Cause(ctx), err)
		}
	}
}

// Acquire waits for the lock until ctx is done; then it returns the cause and, if
// the lock was held, [*AlreadyRunningError]. It asks again after a jittered wait
// that grows from 10 ms to half a second, sooner when the hold is about to lapse:
// waiters are served in no particular order.
func (l *Locker) Acquire(ctx context.Context, key string) (*Lock, error) {
	owner, wait := uuid.NewString(), 10*time.Millisecond
	var held *AlreadyRunningError // what the last look saw
	for {
		lock, err := l.tryAcquire(ctx, key, owner, l.opts.Holder)
		switch {
		case err != nil && errors.As(err, &held):
		case err != nil && held != nil && ctx.Err() != nil:
			return nil, fmt.Errorf("redrive: %w: %w", context.Cause(ctx), held)
		default:
			return lock, err
		}
		pause := wait/2 + rand.N(wait)
		if held.lapses > 0 {
			pause = min(pause, held.lapses+time.Millisecond)
		}
		if !sleep(ctx, pause) {
			return nil, fmt.Errorf("redrive: %w: %w", context.Cause(ctx), err)
		}
		wait = min(2*wait, 500*time.Millisecond)
	}
}

// Do waits for the lock, runs f under its context, and releases it, also if f
// panics. It returns the error of f, or [ErrLockLost] when f succeeded and the lock
// was lost meanwhile.
func (l *Locker) Do(ctx context.Context, key string, f func(ctx context.Context) error) error {
	lock, err := l.Acquire(ctx, key)
	if err != nil {
		return err
	}
	defer lock.Release(context.WithoutCancel(ctx)) //nolint:errcheck // a second Release, after the one below, is what a panic needs
	if err := f(lock.Context()); err != nil {
		return err
	}
	return lock.Release(context.WithoutCancel(ctx))
}

// A Lock is a hold on a key. Its context ends before the hold can.
//
// The hold lasts for the TTL, by the clock of Redis, from when Redis took the last
// renewal. The context is cancelled with [ErrLockLost] when nine tenths of the TTL
// have passed on our monotonic clock since before that renewal was sent; the tenth
// left covers clocks that run at different speeds and a late timer. A process that
// is stopped cannot be told: Err looks at the clock, but what a process does between
// looking and acting is what the fencing token is for.
type Lock struct {
	locker *Locker
	key    string
	owner  string
	token  int64

	ctx    lockContext
	cancel context.CancelCauseFunc
	// until is when ctx ends, on our monotonic clock; expiry cancels it then. Each
	// renewal moves both.
	until  atomic.Pointer[time.Time]
	expiry *time.Timer
	// ended stops the renewals; their goroutine closes stopped when it is gone.
	ended   chan struct{}
	stopped chan struct{}

	release sync.Once
	err     error // of the first Release
}

type fencingTokenKey struct{}

// FencingToken returns the token of the lock that the context runs under. Each
// acquisition of a lock has a higher one than all before. A resource that keeps the
// highest it has seen, and refuses lower ones, is safe from a holder that does not
// know that it lost the lock.
func FencingToken(ctx context.Context) (int64, bool) {
	token, ok := ctx.Value(fencingTokenKey{}).(int64)
	return token, ok
}

func (l *Locker) newLock(ctx context.Context, key, owner string, token int64, sent time.Time) *Lock {
	lock := &Lock{locker: l, key: key, owner: owner, token: token, ended: make(chan struct{}), stopped: make(chan struct{})}
	lock.ctx.lock = lock
	lock.ctx.Context, lock.cancel = context.WithCancelCause(context.WithValue(ctx, fencingTokenKey{}, token))
	lock.expiry = time.AfterFunc(lock.extend(sent), lock.lose)
	go lock.renew()
	return lock
}

// extend notes a renewal that was sent then, and returns how long the context may
// live from now.
func (k *Lock) extend(sent time.Time) time.Duration {
	ttl := k.locker.opts.TTL
	until := sent.Add(ttl - ttl/10)
	k.until.Store(&until)
	return time.Until(until)
}

// lockContext looks at the clock when it is asked: a process that was stopped past
// its TTL learns of it at once, and not when its timers get to run.
type lockContext struct {
	context.Context
	lock *Lock
}

func (c lockContext) Err() error {
	if time.Now().After(*c.lock.until.Load()) {
		c.lock.lose()
	}
	return c.Context.Err()
}

func (k *Lock) lose() { k.cancel(ErrLockLost) }

// Key returns the lock's key.
func (k *Lock) Key() string { return k.key }

// Token returns the fencing token; see [FencingToken].
func (k *Lock) Token() int64 { return k.token }

// Context is done with the cause [ErrLockLost] when the lock may be another's, and
// after Release. It carries the fencing token.
func (k *Lock) Context() context.Context { return k.ctx }

// renew is the lock's goroutine: it renews until Release or until the lock is lost.
func (k *Lock) renew() {
	defer close(k.stopped)
	timer := time.NewTimer(k.locker.opts.TTL / 3)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-k.ended:
		return
	}
	rdb, giveBack := k.locker.client()
	defer giveBack()
	retry := newReconnect()
	for {
		wait := k.locker.opts.TTL / 3
		switch err := k.refresh(k.ctx, rdb); {
		case errors.Is(err, ErrLockLost):
			return
		case err != nil:
			wait = retry.NextBackOff()
		default:
			retry.Reset()
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-k.ctx.Done():
			return
		case <-k.ended:
			return
		}
	}
}

// Refresh renews the lock now. Held locks are renewed by themselves; Refresh tells
// whether this one is still held: it returns [ErrLockLost] if not.
func (k *Lock) Refresh(ctx context.Context) error { return k.refresh(ctx, k.locker.rdb) }

func (k *Lock) refresh(ctx context.Context, rdb redis.UniversalClient) error {
	if k.ctx.Err() != nil {
		cause := context.Cause(k.ctx)
		return fmt.Errorf("refresh lock %q: %w", k.key, cause)
	}
	sent := time.Now()
	try, cancel := context.WithTimeout(ctx, min(sendTimeout, k.locker.opts.TTL/3))
	defer cancel()
	ok, err := store.OpenLock(rdb, k.locker.opts.Prefix, k.key).Renew(try, k.owner, k.locker.opts.TTL)
	switch {
	case err != nil:
		return fmt.Errorf("redrive: %w", err)
	case !ok:
		k.lose()
		return fmt.Errorf("refresh lock %q: %w", k.key, ErrLockLost)
	}
	if k.expiry.Stop() { // else it has fired: the context is done
		k.expiry.Reset(k.extend(sent))
	}
	return nil
}

// Release ends the hold and the context. It returns [ErrLockLost] if the lock was
// lost before; then nothing changes in Redis. ctx bounds the call; a lock that
// cannot be released is free after its TTL. Later calls return the same.
func (k *Lock) Release(ctx context.Context) error {
	k.release.Do(func() {
		close(k.ended)
		_ = k.ctx.Err() // looks at the clock
		lost := context.Cause(k.ctx)
		k.expiry.Stop()
		k.cancel(context.Canceled)
		<-k.stopped
		k.err = k.releaseOnce(ctx)
		if k.err == nil && errors.Is(lost, ErrLockLost) {
			k.err = fmt.Errorf("release lock %q: %w", k.key, ErrLockLost)
		}
	})
	return k.err
}

func (k *Lock) releaseOnce(ctx context.Context) error {
	s := store.OpenLock(k.locker.rdb, k.locker.opts.Prefix, k.key)
	retry := newReconnect()
	deadline := time.Now().Add(k.locker.opts.TTL)
	unknown := false // an earlier try may have been performed
	for {
		try, cancel := context.WithTimeout(ctx, sendTimeout)
		ok, err := s.Release(try, k.owner)
		cancel()
		switch {
		case err == nil && (ok || unknown):
			return nil
		case err == nil:
			return fmt.Errorf("release lock %q: %w", k.key, ErrLockLost)
		}
		unknown = unknown || !store.Refused(err)
		if !store.Transient(err) || time.Now().After(deadline) || !sleep(ctx, retry.NextBackOff()) {
			return fmt.Errorf("redrive: %w; it is free after its TTL", err)
		}
	}
}
