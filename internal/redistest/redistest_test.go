package redistest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	RegisterSubprocess("hello", func() {
		fmt.Println("noise")
		fmt.Println("hello " + os.Getenv("WHO"))
		time.Sleep(time.Minute) // until it is killed
	})
	RegisterSubprocess("server", func() { // starts a server and hangs
		s, err := launch(os.Getenv("DIR"))
		if err != nil {
			panic(err)
		}
		fmt.Println("addr " + s.Addr)
		time.Sleep(time.Minute)
	})
	Main(m)
}

func TestEachBackendStoresAndRunsScripts(t *testing.T) {
	RequireServer(t)
	seen := map[string]bool{}
	EachWithCluster(t, func(t *testing.T, b *Backend) {
		seen[b.Name] = true
		ctx, rdb := t.Context(), b.Client()
		require.Equal(t, b.Name != "embedded", b.Real())
		require.Equal(t, b.Name == "cluster", b.Options() == nil)
		require.Equal(t, b.Name == "cluster", b.Cluster() != nil)
		for _, q := range []string{"a", "b", "c", "d"} { // several slots
			key := b.Prefix + ":{" + q + "}:ready"
			require.NoError(t, redis.NewScript(`return redis.call('RPUSH', KEYS[1], ARGV[1])`).
				Run(ctx, rdb, []string{key}, "job").Err())
		}
		require.Len(t, b.Keys(), 4)
		b.Flush()
		require.Empty(t, b.Keys())
	})
	require.Equal(t, map[string]bool{"embedded": true, "redis": true, "cluster": true}, seen)
}

func TestBackendsDoNotSeeEachOther(t *testing.T) {
	for name, open := range map[string]func(testing.TB) *Backend{"embedded": Embedded, "redis": Redis} {
		t.Run(name, func(t *testing.T) {
			a, b := open(t), open(t)
			require.NotEqual(t, a.Prefix, b.Prefix)
			require.NoError(t, a.Client().Set(t.Context(), "plain", 1, 0).Err())
			if os.Getenv("REDRIVE_TEST_REDIS") == "" {
				require.Zero(t, b.Client().DBSize(t.Context()).Val())
			}
			require.NoError(t, a.Client().Set(t.Context(), a.Prefix+":k", 1, 0).Err())
			b.Flush()
			require.Len(t, a.Keys(), 1)
			require.NoError(t, a.Client().Del(t.Context(), "plain").Err())
		})
	}
}

// What the test writes is gone afterwards, also where tests share a server.
func TestBackendLeavesNothingBehind(t *testing.T) {
	RequireServer(t)
	var after *Backend
	t.Run("writes", func(t *testing.T) {
		after = OnCluster(t)
		require.NoError(t, after.Client().Set(t.Context(), after.Prefix+":k", 1, 0).Err())
	})
	after.t = t
	require.Empty(t, after.Keys())
}

func TestEmbeddedLivesInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Embedded(t)
		ctx, rdb := t.Context(), b.Client()
		require.NoError(t, rdb.Set(ctx, b.Prefix+":k", "v", time.Hour).Err())
		time.Sleep(time.Hour)
		require.ErrorIs(t, rdb.Get(ctx, b.Prefix+":k").Err(), redis.Nil)
	})
}

func TestServerComesBackOnTheSamePortAndDirectory(t *testing.T) {
	s := StartServer(t, "--appendonly", "yes", "--appendfsync", "always")
	ctx, rdb := t.Context(), s.Client()
	require.NoError(t, rdb.Set(ctx, "k", "v", 0).Err())
	addr := s.Addr
	s.Stop()
	require.Error(t, s.admin().Ping(ctx).Err())
	s.Start()
	require.Equal(t, addr, s.Addr)
	require.Equal(t, "v", rdb.Get(ctx, "k").Val())
	s.Shutdown()
	require.Error(t, s.admin().Ping(ctx).Err())
	s.Start()
	require.Equal(t, "v", rdb.Get(ctx, "k").Val())
}

func TestPausedServerAnswersAfterResume(t *testing.T) {
	s := StartServer(t)
	c := s.Client()
	require.NoError(t, c.Ping(t.Context()).Err())
	s.Pause()
	answered := make(chan error, 1)
	go func() { answered <- c.Ping(context.Background()).Err() }()
	select {
	case <-answered:
		t.Fatal("a paused server answered")
	case <-time.After(200 * time.Millisecond):
	}
	s.Resume()
	require.NoError(t, <-answered)
}

func TestPausedServerCanBeStopped(t *testing.T) {
	s := StartServer(t)
	s.Pause()
	s.Stop()
	s.Start()
	require.NoError(t, s.Client().Ping(t.Context()).Err())
}

func TestCommandCountCountsCallsInsideScriptsToo(t *testing.T) {
	s := StartServer(t)
	ctx, rdb := t.Context(), s.Client()
	for range 3 {
		require.NoError(t, rdb.Incr(ctx, "n").Err())
	}
	require.NoError(t, rdb.Eval(ctx, `return redis.call('INCR', KEYS[1])`, []string{"n"}).Err())
	require.EqualValues(t, 4, s.CommandCount("INCR"))
	require.EqualValues(t, 5, s.CommandCount("incr", "eval"))
	require.Greater(t, s.CommandCount(), int64(5))
}

func TestServerThatCannotStartSaysWhy(t *testing.T) {
	RequireServer(t)
	_, err := launch(t.TempDir(), "--no-such-option", "1")
	require.ErrorContains(t, err, "no-such-option")
}

func TestClusterSpreadsItsSlots(t *testing.T) {
	c := StartCluster(t)
	require.Same(t, c, StartCluster(t))
	rdb := redis.NewClusterClient(c.Options())
	defer rdb.Close()
	owners := map[string]bool{}
	for i := range 30 {
		n, err := rdb.MasterForKey(t.Context(), strconv.Itoa(i))
		require.NoError(t, err)
		owners[n.Options().Addr] = true
	}
	require.Len(t, owners, 3)
	// A real cluster refuses what is not declared to be in one slot.
	require.ErrorContains(t, rdb.Eval(t.Context(), `return 1`, []string{"a", "b"}).Err(), "CROSSSLOT")
}

func TestSentinelFailsOver(t *testing.T) {
	for name, fail := range map[string]func(*Sentinel){
		"on request": (*Sentinel).Failover,
		"after a crash": func(s *Sentinel) {
			s.Master.Stop()
			s.AwaitFailover(s.Master.Addr)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := StartSentinel(t)
			rdb := redis.NewFailoverClient(s.Options())
			defer rdb.Close()
			require.Equal(t, s.Master.Addr, s.MasterAddr())
			require.NoError(t, rdb.Set(t.Context(), "k", "v", 0).Err())
			require.NoError(t, rdb.Wait(t.Context(), 1, 5*time.Second).Err())
			fail(s)
			require.Equal(t, s.Replica.Addr, s.MasterAddr())
			require.Eventually(t, func() bool {
				return rdb.Set(t.Context(), "after", "1", 0).Err() == nil && rdb.Get(t.Context(), "k").Val() == "v"
			}, upWithin, 20*time.Millisecond)
		})
	}
}

func TestSubprocessRunsTheRegisteredFunction(t *testing.T) {
	p := StartSubprocess(t, "hello", "WHO=ann")
	require.Equal(t, "ann", p.WaitLine("hello "))
	p.Kill()
	require.False(t, p.ProcessState.Exited(), "it was killed, it did not exit")

	err := Subprocess(t, "nobody").Run()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 2, exit.ExitCode())
}

func TestServerDiesWithAKilledTestProcess(t *testing.T) {
	RequireServer(t)
	if cmd := exec.Command("true"); func() bool { dieWithParent(cmd); return cmd.SysProcAttr == nil }() {
		t.Skip("only Linux can do this")
	}
	p := StartSubprocess(t, "server", "DIR="+t.TempDir())
	s := &Server{Addr: p.WaitLine("addr ")}
	rdb := s.admin()
	defer rdb.Close()
	require.NoError(t, rdb.Ping(t.Context()).Err())
	p.Kill()
	require.Eventually(t, func() bool { return rdb.Ping(t.Context()).Err() != nil }, 5*time.Second, 10*time.Millisecond)
}

// This binary runs itself with no server in reach.
func TestMissingServerSkipsOrFails(t *testing.T) {
	if os.Getenv("REDRIVE_TEST_MISSING") != "" {
		StartServer(t)
		return
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	for required, want := range map[string]string{"": "SKIP", "1": "FAIL"} {
		cmd := exec.Command(exe, "-test.run=^TestMissingServerSkipsOrFails$", "-test.v")
		cmd.Env = append(os.Environ(), "REDRIVE_TEST_MISSING=1", "REDRIVE_REDIS_SERVER=/nonexistent",
			"REDRIVE_TEST_REDIS=", "REDRIVE_REQUIRE_REDIS="+required)
		out, _ := cmd.CombinedOutput()
		require.Contains(t, string(out), "--- "+want)
		require.Contains(t, string(out), "apt-get install redis-server")
	}
}
