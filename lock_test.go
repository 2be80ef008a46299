package redrive_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
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
		short, cancel := context.WithTimeout(r.ctx(), 30*time.Millisecond)
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

// TestI11_TheContextEndsBeforeTheLockDoes stops the server that the holder talks to
// and sees that the holder is told before the server lets go of the lock.
func TestI11_TheContextEndsBeforeTheLockDoes(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r, proxy := faulty(t, b, 1)
		l := r.locker(redrive.LockerOptions{TTL: time.Second})
		lock, err := l.TryAcquire(r.ctx(), "k")
		require.NoError(t, err)
		proxy.Blackhole()
		direct := newRig(t, b).locker(redrive.LockerOptions{TTL: time.Second})
		var next *redrive.Lock
		require.Eventually(t, func() bool {
			next, err = direct.TryAcquire(context.Background(), "k")
			return err == nil
		}, patience, time.Millisecond)
		require.Error(t, lock.Context().Err(), "another has the lock, and its old holder was not told")
		require.ErrorIs(t, context.Cause(lock.Context()), redrive.ErrLockLost)
		proxy.Heal()
		require.ErrorIs(t, lock.Refresh(r.ctx()), redrive.ErrLockLost)
		require.ErrorIs(t, lock.Release(r.ctx()), redrive.ErrLockLost)
		require.NoError(t, next.Refresh(r.ctx()), "the release by a non-owner changed something")
		require.NoError(t, next.Release(r.ctx()))
	})
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
	l, err := redrive.NewLocker(rdb, redrive.LockerOptions{TTL: time.Second})
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

func init() { redistest.RegisterSubprocess("fighter", fighterProcess) }

// fighterProcess fights for one lock. While it holds it, it notes instants at which
// its context was live: it takes the time, and then looks at the context, which has
// therefore been live at that time.
func fighterProcess() {
	db, _ := strconv.Atoi(os.Getenv("DB"))
	rdb := redis.NewClient(&redis.Options{Addr: os.Getenv("ADDR"), DB: db})
	l, err := redrive.NewLocker(rdb, redrive.LockerOptions{Prefix: os.Getenv("PREFIX"), TTL: time.Second})
	if err != nil {
		panic(err)
	}
	ledger, err := os.OpenFile(os.Getenv("LEDGER"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	for {
		lock, err := l.Acquire(context.Background(), "prize")
		if err != nil {
			panic(err)
		}
		for range 1 + rand.N(20) {
			at := time.Now().UnixNano()
			if lock.Context().Err() != nil {
				break
			}
			fmt.Fprintln(ledger, at, lock.Token())
			time.Sleep(time.Millisecond)
		}
		_ = lock.Release(context.Background())
	}
}

// TestI11_SixteenProcessesFightForOneLock stops and kills processes at random. What
// it asserts: of the instants at which a process saw its context live, none of a
// lower token comes after one of a higher; and the lock is never held by the dead
// for longer than its TTL.
func TestI11_SixteenProcessesFightForOneLock(t *testing.T) {
	fight := 5 * time.Second
	if os.Getenv("REDRIVE_LONG") != "" {
		fight = 20 * time.Second
	}
	r := newRig(t, redistest.Redis(t))
	dir := t.TempDir()
	spawn := func(i int) *redistest.Process {
		p := redistest.StartSubprocess(t, "fighter", "ADDR="+r.b.Addr, fmt.Sprintf("DB=%d", r.b.Options().DB),
			"PREFIX="+r.b.Prefix, "LEDGER="+filepath.Join(dir, strconv.Itoa(i)))
		p.WaitLine("ready")
		return p
	}
	procs := make([]*redistest.Process, 16)
	for i := range procs {
		procs[i] = spawn(i)
	}
	begin := time.Now()
	kills, stops := 0, 0
	rng := rand.New(rand.NewPCG(1, 2))
	for next := len(procs); time.Since(begin) < fight; {
		i := rng.IntN(len(procs))
		if rng.IntN(3) == 0 {
			procs[i].Kill()
			procs[i] = spawn(next)
			next++
			kills++
			continue
		}
		require.NoError(t, procs[i].Process.Signal(syscall.SIGSTOP))
		time.Sleep(time.Duration(rng.IntN(120)) * time.Millisecond)
		if rng.IntN(4) == 0 { // past the TTL: the others go on meanwhile
			go func(p *redistest.Process) {
				time.Sleep(1200 * time.Millisecond)
				_ = p.Process.Signal(syscall.SIGCONT)
			}(procs[i])
		} else {
			require.NoError(t, procs[i].Process.Signal(syscall.SIGCONT))
		}
		stops++
	}
	for _, p := range procs {
		_ = p.Process.Signal(syscall.SIGCONT)
		p.Kill()
	}
	type sample struct{ at, token int64 }
	var samples []sample
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	for _, name := range files {
		f, err := os.Open(name)
		require.NoError(t, err)
		for lines := bufio.NewScanner(f); lines.Scan(); {
			var s sample
			if _, err := fmt.Sscan(lines.Text(), &s.at, &s.token); err == nil { // a kill may cut the last line
				samples = append(samples, s)
			}
		}
		require.NoError(t, f.Close())
	}
	slices.SortFunc(samples, func(a, b sample) int { return int(a.at - b.at) })
	tokens, longest := 1, time.Duration(0)
	for i := 1; i < len(samples); i++ {
		a, b := samples[i-1], samples[i]
		require.LessOrEqual(t, a.token, b.token, "two live contexts, %v apart", time.Duration(b.at-a.at))
		if a.token != b.token {
			tokens++
			longest = max(longest, time.Duration(b.at-a.at))
		}
	}
	t.Logf("%d holders, %d stops, %d kills; longest time without a live holder %v", tokens, stops, kills, longest)
	require.Greater(t, tokens, 30)
	require.Greater(t, kills, 3)
	// The TTL after the last renewal, and a waiter that looks every half second.
	require.Less(t, longest, 2*time.Second)
}
