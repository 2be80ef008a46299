package redrive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
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
	// Scope is what keys are apart by, any text. A [Singleton] uses the name of its
	// task: a locker of that scope shares its locks. Defaults to none.
	Scope string
	// TTL is how long a lock outlives its holder's last sign of life. It is renewed
	// every third of it for as long as the lock is held. At least [MinLockTTL].
	// Defaults to [DefaultLockTTL].
	TTL time.Duration
	// Limit is how many may hold one lock at once: a semaphore, if more than 1. At
	// most 100. Everybody who uses a lock gives the same. Defaults to 1.
	Limit int
	// Holder is what others are told of who holds the lock. Defaults to the host's
	// name and a random part.
	Holder string
	// Logger is told of locks that are lost or cannot be renewed.
	// Defaults to [slog.Default].
	Logger *slog.Logger
}

func (o LockerOptions) withDefaults() LockerOptions {
	setDefault(&o.Prefix, DefaultPrefix)
	setDefault(&o.TTL, DefaultLockTTL)
	setDefault(&o.Limit, 1)
	if o.Holder == "" {
		o.Holder = newIdentity(hostName())
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
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
// use. It needs no closing: it holds connections of its own only while a lock is
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

// client lends the connections for renewals; the last to give them back closes them.
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

// TryAcquire takes the lock of that key, which may be any text but the empty one, or
// returns [*AlreadyRunningError] at once. While Redis does not answer it asks again,
// until ctx is done. The caller must release the lock.
//
// ctx bounds the call. The lock's context has its values and not its end.
func (l *Locker) TryAcquire(ctx context.Context, key string) (*Lock, error) {
	return l.claim(l.opts.Scope, key, l.opts.Holder).once(ctx, context.WithoutCancel(ctx))
}

// Acquire waits for the lock until ctx is done; then it returns the cause and, if
// the lock was held, [*AlreadyRunningError]. It asks again after a jittered wait
// that grows from 10 ms to half a second, sooner when the hold is about to lapse:
// waiters are served in no particular order. Else it is as [Locker.TryAcquire].
func (l *Locker) Acquire(ctx context.Context, key string) (*Lock, error) {
	return l.acquire(ctx, context.WithoutCancel(ctx), key)
}

func (l *Locker) acquire(ctx, parent context.Context, key string) (*Lock, error) {
	c, wait := l.claim(l.opts.Scope, key, l.opts.Holder), 10*time.Millisecond
	var held *AlreadyRunningError // what the last look saw
	for {
		lock, err := c.take(ctx, parent)
		if err == nil {
			return lock, nil
		}
		if !errors.As(err, &held) {
			c.abandon()
			if held != nil && ctx.Err() != nil {
				err = fmt.Errorf("redrive: %w: %w", context.Cause(ctx), held)
			}
			return nil, err
		}
		pause := wait/2 + rand.N(wait)
		if held.lapses > 0 {
			pause = min(pause, held.lapses+time.Millisecond)
		}
		if !sleep(ctx, pause) {
			c.abandon()
			return nil, fmt.Errorf("redrive: %w: %w", context.Cause(ctx), err)
		}
		wait = min(2*wait, 500*time.Millisecond)
	}
}

// Do waits for the lock, runs f under its context, which ends with ctx, too, and
// releases it, also if f panics. It returns the error of f, or [ErrLockLost] when f
// succeeded and the lock was lost meanwhile.
func (l *Locker) Do(ctx context.Context, key string, f func(ctx context.Context) error) error {
	lock, err := l.acquire(ctx, ctx, key)
	if err != nil {
		return err
	}
	defer lock.Release(context.WithoutCancel(ctx)) //nolint:errcheck // a second Release, after the one below, is what a panic needs
	if err := f(lock.Context()); err != nil {
		return err
	}
	if err := lock.Release(context.WithoutCancel(ctx)); errors.Is(err, ErrLockLost) {
		return err
	} else if err != nil { // f has done its work alone; the lock lapses
		l.opts.Logger.Warn("redrive: lock is not released", "key", key, "error", err)
	}
	return nil
}

// lockID names one acquisition of one lock.
type lockID struct {
	locker            *Locker
	scope, key, owner string
}

// open returns the lock as rdb sees it.
func (i *lockID) open(rdb redis.UniversalClient) *store.Lock {
	return store.OpenLock(rdb, i.locker.opts.Prefix, i.scope, i.key)
}

// A claim is an acquisition under way. It is used by one goroutine.
type claim struct {
	lockID
	label   string
	unknown bool // a try may have reached Redis unanswered
}

func (l *Locker) claim(scope, key, label string) *claim {
	return &claim{lockID: lockID{locker: l, scope: scope, key: key, owner: uuid.NewString()}, label: label}
}

// once is take for a caller who does not come back.
func (c *claim) once(ctx, parent context.Context) (*Lock, error) {
	k, err := c.take(ctx, parent)
	if err != nil {
		c.abandon()
	}
	return k, err
}

// take sends the claim again with the same owner until Redis answers: an
// acquisition whose answer is lost does not lock its owner out. I6
func (c *claim) take(ctx, parent context.Context) (*Lock, error) {
	if c.key == "" {
		return nil, errors.New("redrive: lock key is empty: give it a name")
	}
	o := &c.locker.opts
	s := c.open(c.locker.rdb)
	retry := newReconnect()
	for {
		sent := time.Now()
		try, cancel := context.WithTimeout(ctx, sendTimeout)
		token, held, err := s.Acquire(try, c.owner, c.label, o.TTL, o.Limit)
		cancel()
		switch {
		case err == nil && held != nil:
			return nil, &AlreadyRunningError{Key: c.key, Holder: held.Holder, Since: held.Since, lapses: held.Lapses}
		case err == nil:
			return newLock(parent, c.lockID, token, sent), nil
		}
		c.unknown = c.unknown || !store.Refused(err)
		// A call that was cut off by the end of ctx is not Transient.
		if ctx.Err() == nil && store.Transient(err) && sleep(ctx, retry.NextBackOff()) {
			continue
		}
		if ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)) {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		return nil, fmt.Errorf("redrive: %w", err)
	}
}

// abandonWithin bounds the wait for a Redis that has not answered before.
const abandonWithin = 500 * time.Millisecond

// abandon makes sure that no try that is under way takes the lock for nobody. Should
// Redis not hear of it, the lock is free after the TTL.
func (c *claim) abandon() {
	if !c.unknown {
		return
	}
	rdb, giveBack := c.locker.client() // honours the deadline, whatever the user's client does
	defer giveBack()
	ctx, cancel := context.WithTimeout(context.Background(), abandonWithin)
	defer cancel()
	_, _ = c.open(rdb).Release(ctx, c.owner, c.locker.opts.TTL)
}

// FencingToken returns the token of the lock that the context runs under. Each
// acquisition of a lock has a higher one than all before. A resource that keeps the
// highest it has seen, and refuses lower ones, is safe from a holder that does not
// know that it lost the lock.
func FencingToken(ctx context.Context) (int64, bool) {
	if k := lockOf(ctx); k != nil {
		return k.token, true
	}
	return 0, false
}
