package faultnet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/faultnet"
	"github.com/redrive-go/redrive/internal/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// bed is a backend, a client that goes through a proxy and never retries, and
// one that goes around it.
type bed struct {
	*faultnet.Proxy
	rdb    *redis.Client
	direct redis.UniversalClient
	key    string
}

func each(t *testing.T, f func(t *testing.T, b *bed)) {
	redistest.Each(t, func(t *testing.T, back *redistest.Backend) { f(t, lay(t, back)) })
	// A real port, as other processes see it.
	t.Run("port", func(t *testing.T) {
		back := redistest.Redis(t)
		p := faultnet.New(t, back.Addr, 1)
		f(t, front(t, back, p, func(o *redis.Options) { o.Addr, o.Dialer = p.Addr(), nil }))
	})
}

func lay(t *testing.T, back *redistest.Backend) *bed {
	p := faultnet.New(t, back.Addr, 1)
	if dial := back.Options().Dialer; dial != nil {
		p = faultnet.NewDialer(t, dial, 1)
	}
	return front(t, back, p, func(o *redis.Options) { o.Dialer = p.Dialer() })
}

func front(t *testing.T, back *redistest.Backend, p *faultnet.Proxy, set func(*redis.Options)) *bed {
	opts := back.Options()
	set(opts)
	opts.MaxRetries = -1
	opts.ContextTimeoutEnabled = true
	opts.DialerRetries = 1
	rdb := redis.NewClient(opts)
	t.Cleanup(func() { _ = rdb.Close() })
	return &bed{Proxy: p, rdb: rdb, direct: back.Client(), key: back.Prefix + ":n"}
}

func TestProxyPassesEverythingThrough(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		big := strings.Repeat("x\r\n$5\r\n", 30_000) // looks like frames, and is not
		cmds, err := b.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for range 20 {
				p.Set(ctx, b.key, big, 0)
				p.Get(ctx, b.key)
				p.Get(ctx, b.key+":none")
				p.HGetAll(ctx, b.key+":none")
				p.Do(ctx, "NONSENSE")
			}
			return nil
		})
		require.Error(t, err)
		for i := 0; i < len(cmds); i += 5 {
			require.Equal(t, big, cmds[i+1].(*redis.StringCmd).Val())
			require.ErrorIs(t, cmds[i+2].Err(), redis.Nil)
			require.NoError(t, cmds[i+3].Err())
			require.ErrorContains(t, cmds[i+4].Err(), "unknown command")
		}
		_, err = b.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.Del(ctx, b.key)
			p.Incr(ctx, b.key)
			return nil
		})
		require.NoError(t, err)
		got, err := b.rdb.Eval(ctx, `return {1, {2, false, 'three'}, {}}`, nil).Slice()
		require.NoError(t, err)
		require.Equal(t, []any{int64(1), []any{int64(2), nil, "three"}, []any{}}, got)
	})
}

func TestSubscriptionsPassInBothProtocols(t *testing.T) {
	for _, protocol := range []int{2, 3} {
		t.Run(fmt.Sprint("RESP", protocol), func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, back *redistest.Backend) {
				p := lay(t, back)
				opts := *p.rdb.Options()
				opts.Protocol = protocol
				rdb := redis.NewClient(&opts)
				defer rdb.Close()
				ctx := t.Context()
				sub := rdb.Subscribe(ctx, "a", "b")
				defer sub.Close()
				for range 2 {
					_, err := sub.Receive(ctx)
					require.NoError(t, err)
				}
				require.NoError(t, sub.Ping(ctx))
				require.NoError(t, p.direct.Publish(ctx, "b", "hello").Err())
				msg, err := sub.ReceiveMessage(ctx)
				require.NoError(t, err)
				require.Equal(t, "hello", msg.Payload)
			})
		})
	}
}

func TestDropReplyRunsTheCommandAndLosesTheAnswer(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		rule := b.DropReply(faultnet.Commands("incr"), 2)
		require.NoError(t, b.rdb.Incr(ctx, b.key).Err())
		require.Zero(t, rule.Hits())
		require.ErrorIs(t, b.rdb.Incr(ctx, b.key).Err(), io.EOF)
		<-rule.Fired()
		require.Equal(t, "2", b.direct.Get(ctx, b.key).Val(), "the command ran")
		require.EqualValues(t, 3, b.rdb.Incr(ctx, b.key).Val(), "and the rule was for one")
		require.Equal(t, 3, rule.Seen())
		require.Equal(t, 1, rule.Hits())
	})
}

// go-redis resends; this is the trap that I6 is about.
func TestDropReplyMakesARetryingClientRunACommandTwice(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		opts := *b.rdb.Options()
		opts.MaxRetries = 3
		rdb := redis.NewClient(&opts)
		defer rdb.Close()
		b.DropReply(faultnet.Commands("RPUSH"), 1)
		require.NoError(t, rdb.RPush(t.Context(), b.key, "once").Err())
		require.EqualValues(t, 2, b.direct.LLen(t.Context(), b.key).Val())
	})
}

// On the bare connection: go-redis fails a whole pipeline when it breaks off.
func TestDropReplyWithinAPipeline(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		opts := b.rdb.Options()
		c, err := opts.Dialer(ctx, "tcp", opts.Addr)
		require.NoError(t, err)
		defer c.Close()
		b.DropReply(faultnet.Commands("ECHO"), 3)
		_, err = io.WriteString(c, strings.Repeat("*2\r\n$4\r\necho\r\n$1\r\na\r\n", 5))
		require.NoError(t, err)
		got, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, strings.Repeat("$1\r\na\r\n", 2), string(got))
	})
}

func TestDropRequestKeepsTheCommandFromRedis(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.DropRequest(faultnet.Commands("INCR"), 1)
		require.Error(t, b.rdb.Incr(ctx, b.key).Err())
		require.EqualValues(t, 1, b.rdb.Incr(ctx, b.key).Val())
	})
}

func TestRepeatRunsTheCommandSoOftenAndGivesOneAnswer(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		for _, first := range []bool{true, false} {
			require.NoError(t, b.direct.Del(ctx, b.key).Err())
			rule := b.Repeat(faultnet.Commands("INCR"), 0, 4, first)
			cmds, err := b.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
				p.Incr(ctx, b.key)
				p.Get(ctx, b.key)
				p.Incr(ctx, b.key)
				return nil
			})
			require.NoError(t, err)
			want := []int64{4, 8}
			if first {
				want = []int64{1, 5}
			}
			require.Equal(t, want[0], cmds[0].(*redis.IntCmd).Val())
			require.Equal(t, "4", cmds[1].(*redis.StringCmd).Val())
			require.Equal(t, want[1], cmds[2].(*redis.IntCmd).Val())
			require.Equal(t, 2, rule.Hits())
			rule.Remove()
			require.EqualValues(t, 9, b.rdb.Incr(ctx, b.key).Val(), "the replies are in step")
		}
	})
}

// A half-open connection swallows what is sent; the next one works.
func TestHangLeavesConnectionsHalfOpen(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		require.NoError(t, b.rdb.Incr(t.Context(), b.key).Err())
		b.Hang()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, b.rdb.Incr(ctx, b.key).Err(), os.ErrDeadlineExceeded)
		require.EqualValues(t, 2, b.rdb.Incr(t.Context(), b.key).Val(), "the other one did not reach Redis")
		require.Equal(t, 2, b.Connections())
		b.Cut()
		require.Eventually(t, func() bool { return b.Connections() == 0 }, 10*time.Second, time.Millisecond)
	})
}

func TestRefusedCommandsAreAnsweredInTheirTurn(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		rule := b.Refuse(faultnet.Commands("DECR"), 0, "LOADING Redis is loading the dataset in memory")
		cmds, err := b.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			p.Decr(ctx, b.key)
			p.Incr(ctx, b.key)
			p.Decr(ctx, b.key)
			p.Decr(ctx, b.key)
			p.Incr(ctx, b.key)
			p.Decr(ctx, b.key)
			return nil
		})
		require.Error(t, err)
		for _, i := range []int{0, 2, 3, 5} {
			require.ErrorContains(t, cmds[i].Err(), "LOADING")
		}
		require.EqualValues(t, 1, cmds[1].(*redis.IntCmd).Val())
		require.EqualValues(t, 2, cmds[4].(*redis.IntCmd).Val())
		require.ErrorContains(t, b.rdb.Decr(ctx, b.key).Err(), "LOADING", "one alone is answered, too")
		rule.Remove()
		require.EqualValues(t, 1, b.rdb.Decr(ctx, b.key).Val())
	})
}

func TestRefuseReplyRunsTheCommand(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.RefuseReply(faultnet.Commands("INCR"), 1, "READONLY You can't write against a read only replica.")
		require.ErrorContains(t, b.rdb.Incr(ctx, b.key).Err(), "READONLY")
		require.EqualValues(t, 2, b.rdb.Incr(ctx, b.key).Val())
	})
}

func TestDelayHoldsTheReplyAndDelayRequestTheCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // virtual time: the delays are exact
		b := lay(t, redistest.Embedded(t))
		ctx := t.Context()
		require.NoError(t, b.rdb.Ping(ctx).Err()) // a connection is in the pool
		for name, c := range map[string]struct {
			add  func(faultnet.Match, int, time.Duration) *faultnet.Rule
			runs bool // halfway, the command has run
		}{"reply": {b.Delay, true}, "request": {b.DelayRequest, false}} {
			key := b.key + name
			c.add(faultnet.Commands("INCR"), 1, 2*time.Second)
			begun := time.Now()
			time.AfterFunc(time.Second, func() {
				if ran := b.direct.Exists(ctx, key).Val() == 1; ran != c.runs {
					t.Errorf("%s: after half the delay, ran = %v", name, ran)
				}
			})
			require.NoError(t, b.rdb.Incr(ctx, key).Err())
			require.Equal(t, 2*time.Second, time.Since(begun), name)
		}
	})
}

func TestCutClosesWhatIsOpenOnly(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		count := b.Count(faultnet.Commands("BLPOP"))
		popped := make(chan error, 1)
		go func() { popped <- b.rdb.BLPop(context.Background(), 0, b.key).Err() }()
		require.Eventually(t, func() bool { return count.Seen() == 1 }, 5*time.Second, time.Millisecond)
		b.Cut()
		require.Error(t, <-popped)
		require.NoError(t, b.rdb.Ping(ctx).Err())
	})
}

func TestDownRefusesUntilUp(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		require.NoError(t, b.rdb.Ping(ctx).Err())
		b.Down()
		require.Error(t, b.rdb.Ping(ctx).Err())
		require.Eventually(t, func() bool { return b.Connections() == 0 }, 5*time.Second, time.Millisecond)
		err := b.rdb.Ping(ctx).Err()
		require.True(t, errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET), "%v", err)
		b.Up()
		require.Eventually(t, func() bool { return b.rdb.Ping(ctx).Err() == nil }, 5*time.Second, time.Millisecond)
	})
}

func TestBlackholeHoldsBytesUntilHealed(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		require.NoError(t, b.rdb.Ping(ctx).Err())
		b.Blackhole()
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		err := b.rdb.Incr(short, b.key).Err()
		require.True(t, errors.Is(err, context.DeadlineExceeded) || isTimeout(err), "%v", err)
		require.NotZero(t, b.Connections(), "the connection stays open")
		require.Zero(t, b.direct.Exists(ctx, b.key).Val(), "nothing got through")
		b.Heal()
		// The command was on its way and arrives after all.
		require.Eventually(t, func() bool { return b.direct.Get(ctx, b.key).Val() == "1" }, 5*time.Second, time.Millisecond)
		require.NoError(t, b.rdb.Ping(ctx).Err())
	})
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func TestScriptsMatchBySHAHoweverTheyAreCalled(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		one, two := redis.NewScript("return '1 "+b.key+"'"), redis.NewScript("return '2 "+b.key+"'")
		ones, all := b.Count(faultnet.Scripts(one.Hash())), b.Count(faultnet.Scripts())
		require.NoError(t, one.Run(ctx, b.rdb, nil).Err()) // EVALSHA, NOSCRIPT, EVAL
		require.NoError(t, one.Run(ctx, b.rdb, nil).Err()) // EVALSHA
		require.NoError(t, two.Run(ctx, b.rdb, nil).Err())
		require.Equal(t, 3, ones.Seen())
		require.Equal(t, 5, all.Seen())
	})
}

func TestFlakyFollowsTheSeed(t *testing.T) {
	fates := func(seed uint64) (string, string) {
		back := redistest.Embedded(t)
		p := faultnet.NewDialer(t, back.Options().Dialer, seed)
		opts := back.Options()
		opts.Dialer, opts.MaxRetries = p.Dialer(), -1
		rdb := redis.NewClient(opts)
		defer rdb.Close()
		rule := p.Flaky(faultnet.Commands("INCR"), 0.3, time.Millisecond)
		var out strings.Builder
		for range 200 {
			if rdb.Incr(t.Context(), back.Prefix+":n").Err() == nil {
				out.WriteByte('.')
			} else {
				out.WriteByte('x')
			}
		}
		require.InDelta(t, 60, rule.Hits(), 30)
		// How many ran tells lost requests from lost replies.
		return out.String(), back.Client().Get(t.Context(), back.Prefix+":n").Val()
	}
	fates1, ran1 := fates(7)
	fates2, ran2 := fates(7)
	other, _ := fates(8)
	require.Equal(t, fates1, fates2)
	require.Equal(t, ran1, ran2)
	require.NotEqual(t, fates1, other)
	require.Contains(t, fates1, "x")
}

func TestLargePipelineOverAPortDoesNotStall(t *testing.T) {
	back := redistest.Redis(t)
	p := faultnet.New(t, back.Addr, 1)
	b := front(t, back, p, func(o *redis.Options) { o.Addr = p.Addr() })
	ctx := t.Context()
	require.NoError(t, b.direct.Set(ctx, b.key, strings.Repeat("v", 1<<16), 0).Err())
	_, err := b.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for range 500 { // 30 MB back, and 30 MB there
			p.Get(ctx, b.key)
			p.Set(ctx, b.key+"2", strings.Repeat("w", 1<<16), 0)
		}
		return nil
	})
	require.NoError(t, err)
}

func TestConcurrentClientsThroughFaults(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		ctx := t.Context()
		b.Flaky(faultnet.Commands("INCR"), 0.1, time.Millisecond)
		var wg sync.WaitGroup
		var mu sync.Mutex
		acked := 0
		for range 10 {
			wg.Go(func() {
				for range 50 {
					if b.rdb.Incr(ctx, b.key).Err() == nil {
						mu.Lock()
						acked++
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		n, err := b.direct.Get(ctx, b.key).Int()
		require.NoError(t, err)
		require.Less(t, acked, 500)
		require.GreaterOrEqual(t, n, acked)
	})
}

func TestWorksInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := lay(t, redistest.Embedded(t))
		ctx := t.Context()
		opts := *b.rdb.Options()
		opts.ReadTimeout = -1
		rdb := redis.NewClient(&opts)
		defer rdb.Close()
		require.NoError(t, rdb.Ping(ctx).Err())
		b.Blackhole()
		begun := time.Now()
		time.AfterFunc(10*time.Minute, b.Heal)
		require.NoError(t, rdb.Ping(ctx).Err())
		require.Equal(t, 10*time.Minute, time.Since(begun))
	})
}

func TestCloseEndsABlackholedProxy(t *testing.T) {
	back := redistest.Redis(t)
	p := faultnet.New(nil, back.Addr, 1)
	opts := back.Options()
	opts.Addr = p.Addr()
	rdb := redis.NewClient(opts)
	defer rdb.Close()
	require.NoError(t, rdb.Ping(t.Context()).Err())
	p.Blackhole()
	p.Close()
	p.Close()
	_, err := p.Dialer()(t.Context(), "tcp", "")
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}
