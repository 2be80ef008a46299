package redrive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Conflict says what becomes of a job whose lock is held by another. It is [Skip],
// [Fail], or made by [Later].
type Conflict time.Duration

const (
	// Skip discards the job, with [*AlreadyRunningError] as the reason: what it asks
	// for is being done.
	Skip Conflict = 0
	// Fail fails the attempt with [*AlreadyRunningError]: it is retried as the policy
	// says, and uses a retry.
	Fail Conflict = -1
)

// Later runs the job again after d; no retry is used, and only
// [TaskOptions.MaxAge] bounds how often.
func Later(d time.Duration) Conflict { return Conflict(max(d, 1)) }

// SingletonOptions configures [Singleton].
type SingletonOptions struct {
	// Key says what the job must be alone with: jobs with equal keys exclude each
	// other. [Task.Key] makes one from the arguments. It may return any text but the
	// empty one, which is a permanent failure. Defaults to one key for all jobs of
	// the Scope.
	Key func(*Message) string
	// Scope is what keys are apart by, any text. Tasks that share a Scope share their
	// locks. Defaults to the task's name.
	Scope string
	// OnConflict says what happens when the lock is held. Defaults to [Skip].
	OnConflict Conflict
	// Limit is how many jobs may run at once for a key; at most 100. Defaults to 1.
	Limit int
	// TTL is how long the lock outlives a process that dies; it is renewed while the
	// handler runs, however long that is. At least [MinLockTTL].
	// Defaults to [DefaultLockTTL].
	TTL time.Duration
	// Prefix starts every key in Redis. Defaults to [DefaultPrefix].
	Prefix string
	// Logger is told of locks that could not be released or were lost.
	// Defaults to [slog.Default].
	Logger *slog.Logger
}

// Singleton runs a job only while it holds the lock of its key. The lock is released
// after every attempt, whatever its outcome. The handler's context is done with
// [ErrLockLost] before the lock can be another's (see [Lock]), and carries the
// [FencingToken]. What the handler returns then is taken as it is: nil is a success,
// an error is retried.
//
// Singleton panics on invalid options: they are constants of the program.
func Singleton(rdb redis.UniversalClient, opts SingletonOptions) Middleware {
	lo := LockerOptions{Prefix: opts.Prefix, TTL: opts.TTL, Limit: opts.Limit, Logger: opts.Logger}.withDefaults()
	err := lo.validate("SingletonOptions")
	if rdb == nil {
		err = errors.Join(errors.New("rdb is nil: pass a go-redis client"), err)
	}
	if opts.OnConflict < Fail {
		err = errors.Join(fmt.Errorf("SingletonOptions.OnConflict is %d: use Skip, Fail or Later", opts.OnConflict), err)
	}
	if err != nil {
		panic(fmt.Sprintf("redrive: Singleton: %v", err))
	}
	locker := &Locker{rdb: rdb, opts: lo}
	return func(next Handler) Handler {
		return &layer{kind: layerSingleton, Handler: HandlerFunc(func(ctx context.Context, m *Message) ([]byte, error) {
			return opts.run(ctx, locker, next, m)
		})}
	}
}

func (o *SingletonOptions) run(ctx context.Context, locker *Locker, next Handler, m *Message) ([]byte, error) {
	scope := o.Scope
	if scope == "" {
		scope = m.Task
	}
	key := scope
	if o.Key != nil {
		if key = o.Key(m); key == "" {
			return nil, Permanent(fmt.Errorf("redrive: Singleton of task %s: SingletonOptions.Key returned an empty key: the arguments do not decode, or name nothing to be alone with", m.Task))
		}
	}
	self := "job " + m.ID + " at "
	lock, err := locker.claim(scope, key, self+locker.opts.Holder).once(ctx, ctx)
	var held *AlreadyRunningError
	switch {
	case err == nil:
	case o.OnConflict == Skip && errors.As(err, &held) && strings.HasPrefix(held.Holder, self):
		// An earlier attempt of this very job could not release it, or does not know yet
		// that it lost the job: that is no reason to drop the job.
		return nil, Snooze(max(held.lapses, 10*time.Millisecond))
	case !errors.Is(err, ErrLockHeld) || o.OnConflict == Fail:
		return nil, err
	case o.OnConflict == Skip:
		return nil, Discard(err)
	default:
		return nil, Snooze(time.Duration(o.OnConflict))
	}
	defer func() { // also after a panic and runtime.Goexit
		detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
		defer cancel()
		if err := lock.Release(detached); err != nil && !errors.Is(err, ErrLockLost) { // its loss is in the log
			locker.opts.Logger.Warn("redrive: lock is not released", "task", m.Task, "id", m.ID, "error", err)
		}
	}()
	return next.Process(lock.Context(), m)
}
