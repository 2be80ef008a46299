package store

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed lua/lock_acquire.lua
	lockAcquireLua string
	//go:embed lua/lock_renew.lua
	lockRenewLua string
	//go:embed lua/lock_release.lua
	lockReleaseLua string

	lockAcquireScript = redis.NewScript(lockAcquireLua)
	lockRenewScript   = redis.NewScript(lockRenewLua)
	lockReleaseScript = redis.NewScript(lockReleaseLua)
)

// A Lock performs the operations on one lock. Its keys share a slot of their own.
type Lock struct {
	rdb  redis.UniversalClient
	name string
	keys lockKeys
}

// OpenLock returns the lock of that scope and name, which may be any text. The
// prefix is valid by [CheckName].
func OpenLock(rdb redis.UniversalClient, prefix, scope, name string) *Lock {
	return &Lock{rdb: rdb, name: name, keys: newLockKeys(prefix, scope, name)}
}

// ErrReleased: the owner has released the lock before.
var ErrReleased = errors.New("the owner has released it already")

// Held describes the holder of a lock that could not be had.
type Held struct {
	Holder string
	Since  time.Time
	// Lapses is how long until the first hold lapses, unless it is renewed.
	Lapses time.Duration
}

// Acquire takes the lock for an owner, unless limit others hold it. The same owner
// again gets the same token (I6), and [ErrReleased] once it has released. held is
// nil when the lock was acquired.
func (l *Lock) Acquire(ctx context.Context, owner, label string, ttl time.Duration, limit int) (token int64, held *Held, err error) {
	res, err := run(ctx, l.rdb, lockAcquireScript, []string{l.keys.holders, l.keys.details, l.keys.fence},
		[]any{owner, label, ttl.Milliseconds(), limit})
	if err != nil {
		return 0, nil, l.wrap("acquire", err)
	}
	reply, _ := res.([]any)
	if len(reply) == 1 && reply[0] == int64(-1) {
		return 0, nil, l.wrap("acquire", ErrReleased)
	}
	if len(reply) < 3 {
		return 0, nil, l.wrap("acquire", errUnexpected(res))
	}
	text, _ := reply[1].(string)
	if reply[0] == int64(1) {
		if token, err = strconv.ParseInt(text, 10, 64); err != nil {
			return 0, nil, l.wrap("acquire", errUnexpected(res))
		}
		return token, nil, nil
	}
	held = &Held{Holder: text, Since: msTime(reply[2])}
	if len(reply) == 4 {
		ms, _ := reply[3].(int64)
		held.Lapses = time.Duration(ms) * time.Millisecond
	}
	return 0, held, nil
}

// Renew makes the owner's hold last for ttl from now. It returns false when the
// hold has lapsed.
func (l *Lock) Renew(ctx context.Context, owner string, ttl time.Duration) (bool, error) {
	res, err := run(ctx, l.rdb, lockRenewScript, []string{l.keys.holders, l.keys.details}, []any{owner, ttl.Milliseconds()})
	return res == int64(1), l.wrap("renew", err)
}

// Release ends the owner's hold. It returns false when that had lapsed. An
// acquisition of the owner that arrives within a ttl has no effect.
func (l *Lock) Release(ctx context.Context, owner string, ttl time.Duration) (bool, error) {
	res, err := run(ctx, l.rdb, lockReleaseScript, []string{l.keys.holders, l.keys.details}, []any{owner, ttl.Milliseconds()})
	return res == int64(1), l.wrap("release", err)
}

func errUnexpected(reply any) error {
	return fmt.Errorf("unexpected reply %T %.200s", reply, fmt.Sprint(reply))
}

func (l *Lock) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s lock %q: %w", op, l.name, err)
}
