package redrive_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/faultnet"
	"github.com/redrive-go/redrive/internal/redistest"
)

func (r *rig) locker(o redrive.LockerOptions) *redrive.Locker {
	r.t.Helper()
	o.Prefix = r.b.Prefix
	if o.Logger == nil {
		o.Logger = quiet
	}
	l, err := redrive.NewLocker(r.rdb, o)
	require.NoError(r.t, err)
	return l
}

func TestLockExcludesReportsAndReleases(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		ann, bob := r.locker(redrive.LockerOptions{Holder: "ann"}), r.locker(redrive.LockerOptions{Holder: "bob"})
		for _, key := range []string{"simple", "any text: ä {x} \x00", strings.Repeat("long", 100)} {
			before := time.Now().Add(-time.Millisecond)
			lock, err := ann.TryAcquire(r.ctx(), key)
			require.NoError(t, err)
			require.Equal(t, key, lock.Key())
			token, ok := redrive.FencingToken(lock.Context())
			require.True(t, ok)
			require.Equal(t, lock.Token(), token)

			_, err = bob.TryAcquire(r.ctx(), key)
			require.ErrorIs(t, err, redrive.ErrLockHeld)
			var held *redrive.AlreadyRunningError
			require.ErrorAs(t, err, &held)
			require.Equal(t, "ann", held.Holder)
			require.Equal(t, key, held.Key)
			require.WithinRange(t, held.Since, before.Add(-time.Millisecond), time.Now().Add(time.Millisecond))

			require.NoError(t, lock.Refresh(r.ctx()))
			require.NoError(t, lock.Context().Err())
			require.NoError(t, lock.Release(r.ctx()))
			require.Error(t, lock.Context().Err())
			require.NoError(t, lock.Release(r.ctx()), "again")
			next, err := bob.TryAcquire(r.ctx(), key)
			require.NoError(t, err)
			require.Greater(t, next.Token(), token)
			require.NoError(t, next.Release(r.ctx()))
		}
		_, err := ann.TryAcquire(r.ctx(), "")
		require.ErrorContains(t, err, "empty")
	})
}

func TestLockWaitersGetItInTheEndAndNeverTogether(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		l := r.locker(redrive.LockerOptions{})
		var inside, sum atomic.Int32
		var last atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 3 {
					err := l.Do(r.ctx(), "counter", func(ctx context.Context) error {
						if inside.Add(1) != 1 {
							t.Error("two inside")
						}
						token, _ := redrive.FencingToken(ctx)
						if before := last.Swap(token); before >= token {
							t.Errorf("I10: token %d after %d", token, before)
						}
						sum.Add(1)
						inside.Add(-1)
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 24, sum.Load())
		boom := errors.New("boom")
		require.ErrorIs(t, l.Do(r.ctx(), "counter", func(context.Context) error { return boom }), boom)
		require.Panics(t, func() { _ = l.Do(r.ctx(), "counter", func(context.Context) error { panic("x") }) })
		require.NoError(t, l.Do(r.ctx(), "counter", func(context.Context) error { return nil }), "free after a panic")
		short, cancel := context.WithTimeout(r.ctx(), 300*time.Millisecond)
		defer cancel()
		require.NoError(t, l.Do(r.ctx(), "counter", func(context.Context) error {
			_, err := l.Acquire(short, "counter")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, err, redrive.ErrLockHeld)
			return nil
		}))
	})
}

func TestLockLimitIsASemaphore(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		l := r.locker(redrive.LockerOptions{Limit: 3})
		var inside, most atomic.Int32
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() {
				if err := l.Do(r.ctx(), "three", func(context.Context) error {
					n := inside.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					time.Sleep(20 * time.Millisecond)
					inside.Add(-1)
					return nil
				}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 3, most.Load())
	})
}

func TestLockIsRenewedForAsLongAsItIsHeld(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		l := r.locker(redrive.LockerOptions{TTL: time.Second})
		lock, err := l.TryAcquire(r.ctx(), "k")
		require.NoError(t, err)
		deadline := time.Now().Add(2500 * time.Millisecond)
		for time.Now().Before(deadline) {
			require.NoError(t, lock.Context().Err())
			_, err := l.TryAcquire(r.ctx(), "k")
			require.ErrorIs(t, err, redrive.ErrLockHeld)
			time.Sleep(50 * time.Millisecond)
		}
		require.NoError(t, lock.Release(r.ctx()))
	})
}

// TestI11_TheContextEndsBeforeTheLockDoes cuts the holder off from the server and
// sees that it is told before the server lets go of the lock, with the margin that
// [redrive.Lock] names.
func TestI11_TheContextEndsBeforeTheLockDoes(t *testing.T) {
	t.Parallel()
	const margin = 20 * time.Millisecond // of a hundred: timers may be late
	for name, slow := range map[string]time.Duration{"at once": 0, "after a slow answer": 600 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
				r, proxy := faulty(t, b, 1)
				l := r.locker(redrive.LockerOptions{TTL: time.Second})
				warm, err := l.TryAcquire(r.ctx(), "other") // Redis knows the script
				require.NoError(t, err)
				require.NoError(t, warm.Release(r.ctx()))
				if slow > 0 { // the TTL runs from when Redis ran the script, not from its answer
					proxy.Delay(faultnet.Commands("evalsha"), 1, slow)
				}
				lock, err := l.TryAcquire(r.ctx(), "k")
				require.NoError(t, err)
				proxy.Blackhole()
				told := make(chan time.Time, 1)
				go func() {
					<-lock.Context().Done()
					told <- time.Now()
				}()
				direct := newRig(t, b).locker(redrive.LockerOptions{TTL: time.Second})
				var next *redrive.Lock
				require.Eventually(t, func() bool {
					next, err = direct.TryAcquire(context.Background(), "k")
					return err == nil
				}, patience, time.Millisecond)
				taken := time.Now()
				require.Error(t, lock.Context().Err(), "another has the lock, and its old holder was not told")
				require.ErrorIs(t, context.Cause(lock.Context()), redrive.ErrLockLost)
				require.Greater(t, taken.Sub(receive(t, told, "end of the context")), margin)
				proxy.Heal()
				require.ErrorIs(t, lock.Refresh(r.ctx()), redrive.ErrLockLost)
				require.ErrorIs(t, lock.Release(r.ctx()), redrive.ErrLockLost)
				require.NoError(t, next.Refresh(r.ctx()), "the release by a non-owner changed something")
				require.NoError(t, next.Release(r.ctx()))
			})
		})
	}
}

// TestI11_PausedRedisEndsTheContext: a server that hangs renews nothing, and it may
// let go of the lock as soon as it is back.
func TestI11_PausedRedisEndsTheContext(t *testing.T) {
	t.Parallel()
	server := redistest.StartServer(t)
	l, err := redrive.NewLocker(server.Client(), redrive.LockerOptions{TTL: time.Second, Logger: quiet})
	require.NoError(t, err)
	lost := errors.New("not run")
	err = l.Do(context.Background(), "k", func(ctx context.Context) error {
		began := time.Now()
		server.Pause()
		<-ctx.Done()
		require.Less(t, time.Since(began), 5*time.Second)
		lost = context.Cause(ctx)
		server.Resume()
		return nil
	})
	require.ErrorIs(t, lost, redrive.ErrLockLost)
	require.ErrorIs(t, err, redrive.ErrLockLost, "Do does not call work a success that may not have been alone")
}

func TestI6_LostAnswersDoNotLockTheOwnerOut(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r, proxy := faulty(t, b, 1)
		l := r.locker(redrive.LockerOptions{TTL: 10 * time.Second})
		scripts := faultnet.Commands("evalsha", "eval")
		for range 3 {
			lost := proxy.DropReply(scripts, 1)
			lock, err := l.TryAcquire(r.ctx(), "k")
			require.NoError(t, err)
			require.Equal(t, 1, lost.Hits())
			lost = proxy.DropReply(scripts, 1)
			require.Error(t, lock.Refresh(r.ctx()), "one try, to tell the truth")
			require.Equal(t, 1, lost.Hits())
			require.NoError(t, lock.Refresh(r.ctx()))
			lost = proxy.DropReply(scripts, 1)
			require.NoError(t, lock.Release(r.ctx()))
			require.Equal(t, 1, lost.Hits())
		}
	})
}

func TestI10_TokensDoNotGoBackOverARestartThatLosesEverything(t *testing.T) {
	t.Parallel()
	server := redistest.StartServer(t)
	rdb := server.Client()
	l, err := redrive.NewLocker(rdb, redrive.LockerOptions{TTL: time.Second, Logger: quiet})
	require.NoError(t, err)
	var last int64
	for range 3 {
		for range 50 {
			lock, err := l.Acquire(context.Background(), "k")
			require.NoError(t, err)
			require.Greater(t, lock.Token(), last)
			last = lock.Token()
			require.NoError(t, lock.Release(context.Background()))
		}
		server.Stop()
		server.Start()
		require.Zero(t, rdb.DBSize(context.Background()).Val())
	}
}

// TestI10_TokensDoNotGoBackWithTheClock: the clock is put back, which looks as if
// the last token came from the future.
func TestI10_TokensDoNotGoBackWithTheClock(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		l := r.locker(redrive.LockerOptions{})
		fence := b.Prefix + ":lock:{/k}:fence"
		ahead := time.Now().Add(10 * time.Hour)
		require.NoError(t, r.rdb.Set(r.ctx(), fence, ahead.UnixMicro(), 0).Err())
		for i := range int64(3) {
			lock, err := l.TryAcquire(r.ctx(), "k")
			require.NoError(t, err)
			require.Equal(t, ahead.UnixMicro()+1+i, lock.Token())
			require.NoError(t, lock.Release(r.ctx()))
		}
		require.Greater(t, r.rdb.PTTL(r.ctx(), fence).Val(), 10*time.Hour, "the mark is kept until the clock has passed it")
	})
}

// TestI16_LocksLeaveNothingForEver: what is left of a lock after its release has a
// TTL, and the connections of its renewals are closed.
func TestI16_LocksLeaveNothingForEver(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r, proxy := faulty(t, b, 1)
		l := r.locker(redrive.LockerOptions{TTL: time.Second})
		lock, err := l.TryAcquire(r.ctx(), "k")
		require.NoError(t, err)
		before := proxy.Connections()
		require.Eventually(t, func() bool { return proxy.Connections() == before+1 }, patience, time.Millisecond, "renewals have connections of their own")
		require.NoError(t, lock.Release(r.ctx()))
		require.Eventually(t, func() bool { return proxy.Connections() == before }, patience, time.Millisecond)
		left := map[string]time.Duration{}
		for _, key := range b.Keys() {
			left[strings.TrimPrefix(key, b.Prefix+":lock:{/k}:")] = r.rdb.PTTL(r.ctx(), key).Val()
		}
		require.Len(t, left, 2, "%v", left)
		require.InDelta(t, time.Second, left["details"], float64(time.Second))
		require.InDelta(t, time.Hour, left["fence"], float64(time.Minute))
	})
}

func TestLocksWorkOnAFullRedis(t *testing.T) {
	t.Parallel()
	server := redistest.StartServer(t, "--maxmemory", "3mb")
	rdb, ctx := server.Client(), context.Background()
	l, err := redrive.NewLocker(rdb, redrive.LockerOptions{Logger: quiet})
	require.NoError(t, err)
	for i := 0; err == nil; i++ {
		err = rdb.Set(ctx, strconv.Itoa(i), strings.Repeat("x", 10_000), 0).Err()
	}
	require.ErrorContains(t, err, "OOM")
	for range 3 { // a job that is turned away here could not drain
		lock, err := l.TryAcquire(ctx, "k")
		require.NoError(t, err)
		require.NoError(t, lock.Refresh(ctx))
		require.NoError(t, lock.Release(ctx))
	}
}

// twice runs every script a second time when it has answered, as go-redis does when
// it gets no answer. It keeps the last calls.
type twice struct {
	mu   sync.Mutex
	last []redis.Cmder
}

func (h *twice) DialHook(next redis.DialHook) redis.DialHook { return next }
func (h *twice) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h *twice) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !strings.HasPrefix(cmd.Name(), "eval") {
			return next(ctx, cmd)
		}
		if first := redis.NewCmd(ctx, cmd.Args()...); next(ctx, first) == nil {
			h.mu.Lock()
			h.last = append(h.last, first)
			h.mu.Unlock()
		}
		return next(ctx, cmd)
	}
}

func TestI6_EveryLockScriptTwiceHasTheEffectOfOne(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		l := r.locker(redrive.LockerOptions{})
		other := r.locker(redrive.LockerOptions{})
		doubled := &twice{}
		r.rdb.AddHook(doubled)
		var late []redis.Cmder
		for range 3 {
			lock, err := l.TryAcquire(r.ctx(), "k")
			require.NoError(t, err)
			first, second := doubled.last[0].(*redis.Cmd).Val().([]any), lock.Token()
			require.Equal(t, first[1], strconv.FormatInt(second, 10), "the same acquisition has the same token")
			require.NoError(t, lock.Refresh(r.ctx()))
			require.NoError(t, lock.Release(r.ctx()))
			late, doubled.last = append(late, doubled.last...), nil
		}
		next, err := other.TryAcquire(r.ctx(), "k")
		require.NoError(t, err)
		replay := func() {
			for _, cmd := range late {
				_ = r.rdb.Do(r.ctx(), cmd.Args()...).Err()
			}
		}
		replay()
		require.NoError(t, next.Refresh(r.ctx()), "calls of those that have released touched the holder")
		require.NoError(t, next.Release(r.ctx()))
		replay()
		again, err := other.TryAcquire(r.ctx(), "k")
		require.NoError(t, err, "an acquire that arrived after its release took the lock for nobody")
		require.NoError(t, again.Release(r.ctx()))
	})
}

// TestI6_GivingUpLeavesNoGhost: a call that reaches Redis after its caller has gone
// does not take the lock.
func TestI6_GivingUpLeavesNoGhost(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		slow, proxy := faulty(t, b, 1)
		o := slow.rdb.(*redis.Client).Options()
		o.ContextTimeoutEnabled = true
		slow.rdb = redis.NewClient(o)
		defer slow.rdb.Close()
		l := slow.locker(redrive.LockerOptions{})
		warm, err := l.TryAcquire(slow.ctx(), "other") // Redis knows the script
		require.NoError(t, err)
		require.NoError(t, warm.Release(slow.ctx()))
		held := proxy.DelayRequest(faultnet.Commands("evalsha"), 1, 300*time.Millisecond)
		ctx, cancel := context.WithTimeout(slow.ctx(), 100*time.Millisecond)
		defer cancel()
		_, err = l.TryAcquire(ctx, "k")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 1, held.Hits())
		time.Sleep(400 * time.Millisecond) // the call arrives
		lock, err := newRig(t, b).locker(redrive.LockerOptions{}).TryAcquire(slow.ctx(), "k")
		require.NoError(t, err)
		require.NoError(t, lock.Release(slow.ctx()))
	})
}

func TestLockOutlivesTheContextOfItsAcquisition(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Embedded(t))
	type valueKey struct{}
	l := r.locker(redrive.LockerOptions{TTL: time.Second})
	ctx, cancel := context.WithCancel(context.WithValue(r.ctx(), valueKey{}, 7))
	lock, err := l.Acquire(ctx, "k")
	require.NoError(t, err)
	cancel()
	require.NoError(t, lock.Context().Err())
	require.Equal(t, 7, lock.Context().Value(valueKey{}))
	require.NoError(t, lock.Release(r.ctx()))
	require.ErrorIs(t, context.Cause(lock.Context()), context.Canceled)
	require.ErrorContains(t, lock.Refresh(r.ctx()), "released")
}

// TestLockIsKeptUntilDoReturns: cancelled work that takes its time to stop is still
// alone.
func TestLockIsKeptUntilDoReturns(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		l := r.locker(redrive.LockerOptions{TTL: time.Second})
		ctx, cancel := context.WithCancel(r.ctx())
		err := l.Do(ctx, "k", func(ctx context.Context) error {
			cancel()
			<-ctx.Done()
			for deadline := time.Now().Add(1500 * time.Millisecond); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
				_, err := l.TryAcquire(r.ctx(), "k")
				require.ErrorIs(t, err, redrive.ErrLockHeld)
			}
			return nil
		})
		require.NoError(t, err)
	})
}

func TestNewLockerNamesBadOptions(t *testing.T) {
	t.Parallel()
	_, err := redrive.NewLocker(nil, redrive.LockerOptions{Prefix: "{", TTL: time.Millisecond, Limit: -1})
	for _, field := range []string{"rdb is nil", "LockerOptions.Prefix", "LockerOptions.TTL", "LockerOptions.Limit"} {
		require.ErrorContains(t, err, field)
	}
	rdb := redis.NewClient(&redis.Options{})
	defer rdb.Close()
	for _, o := range []redrive.SingletonOptions{{TTL: 1}, {Limit: -1}, {OnConflict: -7}, {Prefix: "a b"}} {
		require.Panics(t, func() { redrive.Singleton(rdb, o) })
	}
}
