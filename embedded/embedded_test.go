package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/redrive-go/redrive/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T) *embedded.Server {
	t.Helper()
	s, err := embedded.Start()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestPipelineOfSeveralMegabytes(t *testing.T) {
	ctx, rdb := t.Context(), start(t).Client()
	value := strings.Repeat("v", 10_000)
	cmds, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range 500 {
			p.Set(ctx, fmt.Sprint("k", i), value, 0)
			p.Get(ctx, fmt.Sprint("k", i)) // and replies as large as the requests
		}
		return nil
	})
	require.NoError(t, err)
	require.Len(t, cmds, 1000)
	for i := 1; i < len(cmds); i += 2 {
		require.Equal(t, value, cmds[i].(*redis.StringCmd).Val())
	}
}

func TestFiftyConcurrentClients(t *testing.T) {
	ctx, s := t.Context(), start(t)
	var wg sync.WaitGroup
	for range 50 {
		rdb := s.Client()
		wg.Go(func() {
			for range 100 {
				if err := rdb.Incr(ctx, "n").Err(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	n, err := s.Client().Get(ctx, "n").Int()
	require.NoError(t, err)
	require.Equal(t, 5000, n)
}

func TestBlockedPopWakesAtOnce(t *testing.T) {
	ctx, s := t.Context(), start(t)
	push := s.Client()
	pop := s.Client()
	fastest := time.Hour
	for range 20 {
		woken := make(chan time.Time, 1)
		go func() {
			if err := pop.BLPop(ctx, 5*time.Second, "bell").Err(); err != nil {
				t.Error(err)
			}
			woken <- time.Now()
		}()
		time.Sleep(5 * time.Millisecond) // most of the time the pop waits by now
		before := time.Now()
		require.NoError(t, push.RPush(ctx, "bell", "x").Err())
		fastest = min(fastest, (<-woken).Sub(before))
	}
	// The fastest of twenty tells waking from polling on a busy machine, too.
	require.Less(t, fastest, 5*time.Millisecond)
}

func TestKeysExpireInRealTime(t *testing.T) {
	ctx, rdb := t.Context(), start(t).Client()
	begun := time.Now()
	require.NoError(t, rdb.Set(ctx, "k", "v", 150*time.Millisecond).Err())
	for rdb.Exists(ctx, "k").Val() == 1 {
		require.Less(t, time.Since(begun), 10*time.Second, "the key never expired")
		time.Sleep(time.Millisecond)
	}
	require.GreaterOrEqual(t, time.Since(begun), 145*time.Millisecond, "the key expired early")
}

func TestScriptsRunBySHAAndSeeTheClock(t *testing.T) {
	ctx, rdb := t.Context(), start(t).Client()
	script := redis.NewScript(`return redis.call('TIME')[1] + ARGV[1]`)
	require.ErrorContains(t, script.EvalSha(ctx, rdb, nil, 0).Err(), "NOSCRIPT")
	require.NoError(t, script.Load(ctx, rdb).Err())
	got, err := script.EvalSha(ctx, rdb, nil, 0).Int64()
	require.NoError(t, err)
	require.InDelta(t, time.Now().Unix(), got, 5)
}

func TestPublishReachesSubscribers(t *testing.T) {
	ctx, s := t.Context(), start(t)
	sub := s.Client().Subscribe(ctx, "news")
	defer sub.Close()
	_, err := sub.Receive(ctx) // the confirmation
	require.NoError(t, err)
	require.EqualValues(t, 1, s.Client().Publish(ctx, "news", "hello").Val())
	msg, err := sub.ReceiveMessage(ctx)
	require.NoError(t, err)
	require.Equal(t, "hello", msg.Payload)
}

// A subscriber that does not read must not stop the server.
func TestSubscriberThatDoesNotReadHoldsNobodyUp(t *testing.T) {
	ctx, s := t.Context(), start(t)
	sub := s.Client().Subscribe(ctx, "news")
	defer sub.Close()
	_, err := sub.Receive(ctx)
	require.NoError(t, err)
	rdb := s.Client()
	for range 200 {
		require.NoError(t, rdb.Publish(ctx, "news", strings.Repeat("x", 10_000)).Err())
	}
}

func TestContextEndsABlockingRead(t *testing.T) {
	rdb := start(t).Client()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	require.Error(t, rdb.BLPop(ctx, 30*time.Second, "nothing").Err())
	require.Less(t, time.Since(begun), 10*time.Second)
}

// The library makes clients of its own from the options of the one it is given.
func TestClientsDerivedFromOptionsReachTheSameData(t *testing.T) {
	ctx, s := t.Context(), start(t)
	rdb, ok := s.Client().(*redis.Client)
	require.True(t, ok)
	require.NoError(t, rdb.Set(ctx, "k", "v", 0).Err())
	opts := *rdb.Options()
	opts.MaxRetries = -1
	derived := redis.NewClient(&opts)
	defer derived.Close()
	require.Equal(t, "v", derived.Get(ctx, "k").Val())
}

func TestServersShareNothing(t *testing.T) {
	ctx, a, b := t.Context(), start(t), start(t)
	require.NoError(t, a.Client().Set(ctx, "k", "v", 0).Err())
	require.ErrorIs(t, b.Client().Get(ctx, "k").Err(), redis.Nil)
}

func TestCloseEndsWhatIsBlockedAndRefusesTheRest(t *testing.T) {
	s, err := embedded.Start()
	require.NoError(t, err)
	rdb := s.Client().(*redis.Client)
	opts := *rdb.Options()
	opts.MaxRetries = -1
	own := redis.NewClient(&opts) // one that Close does not know
	defer own.Close()
	blocked := make(chan error, 1)
	go func() { blocked <- own.BLPop(context.Background(), 0, "nothing").Err() }()
	require.Eventually(t, func() bool { return own.PoolStats().TotalConns == 1 }, 5*time.Second, time.Millisecond)

	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.Error(t, <-blocked)
	require.ErrorIs(t, rdb.Ping(context.Background()).Err(), redis.ErrClosed)
	require.ErrorContains(t, own.Ping(context.Background()).Err(), "server is closed")
	require.ErrorIs(t, s.Client().Ping(context.Background()).Err(), redis.ErrClosed)
}

func TestUserMayCloseAClient(t *testing.T) {
	s := start(t)
	require.NoError(t, s.Client().Close())
	require.NoError(t, s.Client().Ping(t.Context()).Err())
}

// Twice, because what one bubble left in a pool of the process would break the
// next one.
func TestVirtualHourInABubble(t *testing.T) {
	begun := time.Now()
	for range 2 {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			s, err := embedded.Start()
			require.NoError(t, err)
			defer s.Close()
			rdb := s.Client()
			epoch := time.Now()

			require.NoError(t, rdb.Set(ctx, "lease", "me", 30*time.Minute).Err())
			worker := make(chan time.Duration, 1)
			go func() { // blocks, as a worker does, through the whole hour
				for {
					err := rdb.BLPop(ctx, 2*time.Second, "ready").Err()
					if err == nil {
						worker <- time.Since(epoch)
						return
					}
					if !errors.Is(err, redis.Nil) {
						t.Error(err)
						return
					}
				}
			}()
			time.Sleep(30*time.Minute - time.Millisecond)
			require.Equal(t, "me", rdb.Get(ctx, "lease").Val())
			require.Equal(t, time.Millisecond, rdb.PTTL(ctx, "lease").Val())
			time.Sleep(time.Millisecond)
			require.ErrorIs(t, rdb.Get(ctx, "lease").Err(), redis.Nil)

			time.Sleep(30 * time.Minute)
			at, err := rdb.Eval(ctx, `
				local t = redis.call('TIME')
				redis.call('ZADD', KEYS[1], t[1], 'job')
				redis.call('RPUSH', KEYS[2], 'job')
				return redis.call('ZSCORE', KEYS[1], 'job')`, []string{"delayed", "ready"}).Int64()
			require.NoError(t, err)
			require.Equal(t, epoch.Add(time.Hour).Unix(), at)
			require.Equal(t, time.Hour, <-worker)
		})
	}
	require.Less(t, time.Since(begun), 30*time.Second)
}
