package redrive

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive/internal/store"
)

// A Lock is a hold on a key. Its context ends before the hold can:
//
//	context live until  s + TTL - TTL/10   on our monotonic clock, s read before the
//	                                       last acquire or renewal was sent
//	hold lasts until    r + TTL            on the clock of Redis, r > s when Redis ran it
//
// The tenth covers clocks that run at different speeds and a late timer; what is
// left of it is the handler's, to stop in. The hold lasts as long as it is renewed,
// every third of the TTL, until Release.
type Lock struct {
	lockID
	token int64
	outer *Lock // the lock that this one was acquired under, or nil

	ctx    lockContext
	cancel context.CancelCauseFunc
	// until is when the context ends, on our monotonic clock: each renewal moves it
	// under mu. expiry fires then.
	until  atomic.Pointer[time.Time]
	expiry *time.Timer

	mu   sync.Mutex
	over error         // why the hold ended: ErrLockLost or errReleased
	done chan struct{} // closed with over; ends the renewals
	// stopped is closed by the goroutine that renews, when it is gone.
	stopped chan struct{}

	release sync.Once
	err     error // of the first Release
}

// errReleased ends a hold that was not lost.
var errReleased = errors.New("it was released")

func newLock(parent context.Context, id lockID, token int64, sent time.Time) *Lock {
	k := &Lock{lockID: id, token: token, outer: lockOf(parent), done: make(chan struct{}), stopped: make(chan struct{})}
	k.ctx.lock = k
	k.ctx.Context, k.cancel = context.WithCancelCause(parent)
	k.mu.Lock()
	k.expiry = time.AfterFunc(id.locker.opts.TTL, k.look)
	k.until.Store(&sent)
	k.extend(sent)
	k.mu.Unlock()
	go k.renew()
	return k
}

// extend notes a renewal that was sent then; mu is held.
func (k *Lock) extend(sent time.Time) {
	ttl := k.locker.opts.TTL
	until := sent.Add(ttl - ttl/10)
	if until.After(*k.until.Load()) {
		k.until.Store(&until)
		k.expiry.Reset(time.Until(until))
	}
}

// look ends a hold whose time is up. It does nothing on nil.
func (k *Lock) look() {
	if k == nil {
		return
	}
	k.outer.look()
	if time.Now().Before(*k.until.Load()) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !time.Now().Before(*k.until.Load()) { // it was not extended since
		k.lose("it could not be renewed in time")
	}
}

// lose ends a hold that may be another's; mu is held.
func (k *Lock) lose(why string) {
	if k.over == nil {
		k.end(ErrLockLost, ErrLockLost)
		k.locker.opts.Logger.Warn("redrive: lock lost", "key", k.key, "token", k.token, "reason", why)
	}
}

// end ends the hold and its context; mu is held, so that who finds the hold over
// finds the context done.
func (k *Lock) end(over, cause error) {
	k.over = over
	k.cancel(cause)
	k.expiry.Stop()
	close(k.done)
}

// state says why the hold is over; nil while it is not.
func (k *Lock) state() error {
	k.look()
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.over
}

// lockContext looks at the clock when it is asked: a process that was stopped past
// its TTL learns of it at once, and not when its timers get to run.
type lockContext struct {
	context.Context
	lock *Lock
}

func (c *lockContext) Err() error {
	c.lock.look()
	return c.Context.Err()
}

func (c *lockContext) Done() <-chan struct{} {
	c.lock.look()
	return c.Context.Done()
}

func (c *lockContext) Value(key any) any {
	if key == (lockKey{}) {
		return c.lock
	}
	return c.Context.Value(key)
}

type lockKey struct{}

// lockOf returns the lock that a context runs under, or nil.
func lockOf(ctx context.Context) *Lock {
	k, _ := ctx.Value(lockKey{}).(*Lock)
	return k
}

// underLock makes a context that was made from a lock's look at the clock, too.
func underLock(ctx context.Context) context.Context {
	if k := lockOf(ctx); k != nil {
		return &lockContext{Context: ctx, lock: k}
	}
	return ctx
}

// Key returns the lock's key.
func (k *Lock) Key() string { return k.key }

// Token returns the fencing token; see [FencingToken].
func (k *Lock) Token() int64 { return k.token }

// Context is done with the cause [ErrLockLost] when the lock may be another's, and
// after Release. It carries the fencing token.
//
// Its Err and Done look at the clock, and so do those of the context that a [Task]'s
// handler gets: they are right even in a process that has just been stopped for
// longer than the TTL. A context that you make from it learns from a timer, which
// runs a moment later. In either case a process may be stopped between looking and
// acting: that is what the fencing token is for.
func (k *Lock) Context() context.Context { return &k.ctx }

// renew is the lock's goroutine. It renews until the hold is over, and not only
// until the context is done: what works under a context that was cancelled is alone
// until it releases.
func (k *Lock) renew() {
	defer close(k.stopped)
	timer := time.NewTimer(k.locker.opts.TTL / 3)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-k.done:
		return
	}
	rdb, giveBack := k.locker.client()
	defer giveBack()
	retry, failing := newReconnect(), false
	for {
		wait := k.locker.opts.TTL / 3
		switch err := k.refresh(context.Background(), rdb); {
		case err == nil:
			retry.Reset()
			failing = false
		case k.state() != nil:
			return
		default:
			if wait = retry.NextBackOff(); !failing {
				failing = true
				k.locker.opts.Logger.Warn("redrive: lock is not renewed, trying again", "key", k.key, "error", err)
			}
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-k.done:
			return
		}
	}
}

// Refresh renews the lock now, in one try. Held locks are renewed by themselves;
// Refresh tells whether this one is still held: it returns [ErrLockLost] if not.
func (k *Lock) Refresh(ctx context.Context) error { return k.refresh(ctx, k.locker.rdb) }

func (k *Lock) refresh(ctx context.Context, rdb redis.UniversalClient) error {
	if over := k.state(); over != nil {
		return fmt.Errorf("redrive: refresh lock %q: %w", k.key, over)
	}
	o := &k.locker.opts
	sent := time.Now()
	try, cancel := context.WithTimeout(ctx, min(sendTimeout, o.TTL/3))
	defer cancel()
	held, err := k.open(rdb).Renew(try, k.owner, o.TTL)
	if err != nil {
		return fmt.Errorf("redrive: %w", unavailable(ctx, err))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !held {
		k.lose("redis does not know the hold")
	}
	if k.over != nil {
		return fmt.Errorf("redrive: refresh lock %q: %w", k.key, k.over)
	}
	k.extend(sent)
	return nil
}

// Release ends the hold and the context. It returns [ErrLockLost] if the lock was
// lost before; the hold of another is never touched. ctx bounds the call; a lock
// that cannot be released is free after its TTL. Later calls do nothing and return
// the same.
func (k *Lock) Release(ctx context.Context) error {
	k.release.Do(func() {
		lost := k.state()
		k.mu.Lock()
		if k.over == nil {
			k.end(errReleased, context.Canceled)
		}
		k.mu.Unlock()
		<-k.stopped // a try of Redis may be under way: at most a third of the TTL
		if k.err = k.sendRelease(ctx); k.err == nil && lost != nil {
			k.err = fmt.Errorf("redrive: release lock %q: %w", k.key, lost)
		}
	})
	return k.err
}

// sendRelease sends the release until Redis answers: a copy has no effect of its own.
func (k *Lock) sendRelease(ctx context.Context) error {
	o := &k.locker.opts
	s := k.open(k.locker.rdb)
	retry := newReconnect()
	deadline := time.Now().Add(o.TTL)
	for {
		try, cancel := context.WithTimeout(ctx, sendTimeout)
		held, err := s.Release(try, k.owner, o.TTL)
		cancel()
		switch {
		case err == nil && held:
			return nil
		case err == nil:
			return fmt.Errorf("redrive: release lock %q: %w", k.key, ErrLockLost)
		case ctx.Err() != nil || !store.Transient(err) || time.Now().After(deadline) || !sleep(ctx, retry.NextBackOff()):
			return fmt.Errorf("redrive: %w; it is free after its TTL", unavailable(ctx, err))
		}
	}
}
