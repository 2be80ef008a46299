package store

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
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
	list, _ := res.([]any)
	r := readReply(res, len(list))
	switch r.number(-1, 1) {
	case -1:
		err = ErrReleased
	case 1:
		token = r.token()
		r.time()
	default:
		held = &Held{Holder: r.text(), Since: r.time(), Lapses: time.Duration(r.count()) * time.Millisecond}
	}
	if r.bad || len(r.list) > 0 {
		return 0, nil, l.wrap("acquire", errUnexpected(res))
	}
	return token, held, l.wrap("acquire", err)
}

// Renew makes the owner's hold last for ttl from now. It returns false when the
// hold has lapsed.
func (l *Lock) Renew(ctx context.Context, owner string, ttl time.Duration) (bool, error) {
	return l.holds(ctx, "renew", lockRenewScript, owner, ttl)
}

// Release ends the owner's hold. It returns false when that had lapsed. An
// acquisition of the owner that arrives within a ttl has no effect.
func (l *Lock) Release(ctx context.Context, owner string, ttl time.Duration) (bool, error) {
	return l.holds(ctx, "release", lockReleaseScript, owner, ttl)
}

// holds runs a script that says whether the owner held the lock.
func (l *Lock) holds(ctx context.Context, op string, script *redis.Script, owner string, ttl time.Duration) (bool, error) {
	res, err := run(ctx, l.rdb, script, []string{l.keys.holders, l.keys.details}, []any{owner, ttl.Milliseconds()})
	if err != nil {
		return false, l.wrap(op, err)
	}
	held, ok := yes(res)
	if !ok {
		return false, l.wrap(op, errUnexpected(res))
	}
	return held, nil
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
