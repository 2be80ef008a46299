package redrive_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/faultnet"
	"github.com/redrive-go/redrive/internal/redistest"
)

// hasty returns a client that waits so little for a server that it sends its commands
// again, up to four times in all, while the server still has the first.
func hasty(t *testing.T, addr string) *redis.Client {
	rdb := redis.NewClient(&redis.Options{Addr: addr, ReadTimeout: 50 * time.Millisecond, MaxRetries: 3})
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// TestFault_AServerThatIsPausedDoublesNothing pauses clients, and the whole process,
// for longer than the client's patience.
func TestFault_AServerThatIsPausedDoublesNothing(t *testing.T) {
	t.Parallel()
	server := redistest.StartServer(t)
	s := besiege(t, hasty(t, server.Addr), server.Client())
	s.work(2, s.mux(), redrive.WorkerOptions{})
	s.produce(4)
	admin := server.Client()
	for _, pause := range []func(){
		func() { require.NoError(t, admin.Do(bg, "CLIENT", "PAUSE", "300", "ALL").Err()) },
		func() { require.NoError(t, admin.Do(bg, "CLIENT", "PAUSE", "300", "WRITE").Err()) },
		func() { server.Pause(); time.Sleep(300 * time.Millisecond); server.Resume() },
	} {
		s.progress(20)
		pause()
		time.Sleep(100 * time.Millisecond)
	}
	s.progress(20)
	s.lift()
}

// TestFault_ASlowNetworkDoublesNothing delays every answer, some of them past the
// client's patience.
func TestFault_ASlowNetworkDoublesNothing(t *testing.T) {
	t.Parallel()
	server := redistest.StartServer(t)
	proxy := faultnet.New(t, server.Addr, 1)
	s := besiege(t, hasty(t, proxy.Addr()), server.Client())
	scripts := faultnet.Scripts()
	n := 0
	slow := proxy.Delay(func(cmd []string) bool {
		if !scripts(cmd) {
			return false
		}
		n++
		return n%10 == 0
	}, 0, 120*time.Millisecond)
	proxy.Delay(scripts, 0, 3*time.Millisecond)
	s.work(2, s.mux(), redrive.WorkerOptions{})
	s.produce(4)
	s.progress(200)
	slow.Remove()
	require.Greater(t, slow.Hits(), 5)
	s.lift()
}

// TestFault_HalfOpenConnectionsAreGivenUp leaves all connections half open: nothing
// comes back, and nobody says that they are closed.
func TestFault_HalfOpenConnectionsAreGivenUp(t *testing.T) {
	t.Parallel()
	server := redistest.StartServer(t)
	proxy := faultnet.New(t, server.Addr, 1)
	rdb := redis.NewClient(&redis.Options{Addr: proxy.Addr(), ReadTimeout: 300 * time.Millisecond})
	t.Cleanup(func() { _ = rdb.Close() })
	s := besiege(t, rdb, server.Client())
	s.work(2, s.mux(), redrive.WorkerOptions{})
	s.produce(4)
	for range 2 {
		s.progress(50)
		proxy.Hang()
		begin := time.Now()
		s.progress(50)
		require.Less(t, time.Since(begin), 15*time.Second, "work stood still for longer than the connections were waited for")
	}
	s.lift()
}

// TestFault_APoolThatIsEmptyStarvesNothing gives producers and idempotency a pool of one connection that somebody else occupies most of the time,
// and workers a client that cannot be copied, with a pool of two.
func TestFault_APoolThatIsEmptyStarvesNothing(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 2} {
		t.Run(fmt.Sprint("of ", size), func(t *testing.T) {
			t.Parallel()
			server := redistest.StartServer(t)
			own := redis.NewClient(&redis.Options{Addr: server.Addr, PoolSize: size, PoolTimeout: 300 * time.Millisecond})
			t.Cleanup(func() { _ = own.Close() })
			var rdb redis.UniversalClient = own
			if size == 2 {
				rdb = opaque{own}
			}
			s := besiege(t, rdb, server.Client())
			mux := s.mux(redrive.Idempotent(rdb, redrive.IdempotencyOptions{Logger: quiet}))
			hog := during(20*time.Millisecond, func() {
				_ = own.BLPop(bg, time.Second, "nothing").Err()
			})
			s.work(2, mux, redrive.WorkerOptions{})
			s.produce(4)
			s.progress(60)
			hog()
			s.lift()
		})
	}
}

// TestFault_AFullRedisDrainsToNothing fills a server until it refuses jobs. Workers
// drain it to nothing, with results, retries and locks, delayed jobs and dead letters;
// a pause can be ended; then enqueues work again.
func TestFault_AFullRedisDrainsToNothing(t *testing.T) {
	t.Parallel()
	server := redistest.StartServer(t, "--maxmemory-policy", "noeviction")
	rdb := server.Client()
	s := besiege(t, rdb, server.Client())
	enqueue := func(i int) error {
		o := &redrive.EnqueueOptions{ID: fmt.Sprintf("job-%d", i)}
		if i%5 == 0 {
			o.Delay = time.Duration(i) * time.Millisecond
		}
		_, err := toil.Enqueue(bg, s.client, number{i}, o)
		if err == nil {
			s.acked[o.ID] = i
		}
		return err
	}
	for i := range 500 {
		require.NoError(t, enqueue(i))
	}
	require.NoError(t, s.client.Pause(bg, redrive.DefaultQueue))
	require.NoError(t, rdb.ConfigSet(bg, "maxmemory", "1").Err())
	for i := 500; i < 510; i++ {
		require.ErrorIs(t, enqueue(i), redrive.ErrBackpressure)
	}
	q, err := s.stats()
	require.NoError(t, err)
	require.EqualValues(t, 500, q.Ready+q.Delayed, "a refused enqueue writes nothing")
	s.work(2, s.mux(redrive.Singleton(rdb, redrive.SingletonOptions{Logger: quiet,
		Key: func(m *redrive.Message) string { return m.ID }})), redrive.WorkerOptions{})
	require.NoError(t, s.client.Resume(bg, redrive.DefaultQueue), "the pause of a full redis can be ended")
	require.Eventually(t, func() bool {
		q, err := s.stats()
		return err == nil && q.Ready+q.Delayed+q.Active == 0
	}, patience, 5*time.Millisecond)
	require.NoError(t, rdb.ConfigSet(bg, "maxmemory", "0").Err())
	for i := 500; i < 510; i++ {
		require.NoError(t, enqueue(i))
	}
	s.lift()
}

// TestFault_ACoordinatedFailoverLosesAndDoublesNothing moves the master's part to its
// replica and back while producers and workers go on: Redis hands over when the two
// are in step, so everything acknowledged must be there.
func TestFault_ACoordinatedFailoverLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	one := redistest.StartServer(t, "--repl-diskless-sync-delay", "0")
	two := redistest.StartReplica(t, one, "--repl-diskless-sync-delay", "0")
	var mu sync.Mutex
	addr := one.Addr
	rdb := redis.NewClient(&redis.Options{Addr: "moves", Dialer: moving(&mu, &addr)})
	t.Cleanup(func() { _ = rdb.Close() })
	admin := redis.NewClient(&redis.Options{Addr: "moves", Dialer: moving(&mu, &addr), ConnMaxLifetime: time.Millisecond})
	t.Cleanup(func() { _ = admin.Close() })
	s := besiege(t, rdb, admin)
	s.work(2, s.mux(), redrive.WorkerOptions{})
	s.produce(4)
	for _, next := range []*redistest.Server{two, one} {
		s.progress(50)
		old := two
		if next == two {
			old = one
		}
		c := old.Client()
		require.NoError(t, c.Do(bg, "FAILOVER").Err())
		master := next.Client()
		require.Eventually(t, func() bool {
			role, err := master.Do(bg, "ROLE").Slice()
			return err == nil && role[0] == "master"
		}, patience, time.Millisecond)
		time.Sleep(100 * time.Millisecond) // clients go on asking the old one
		mu.Lock()
		addr = next.Addr
		mu.Unlock()
		s.progress(50)
		require.Eventually(t, func() bool {
			info, err := master.Info(bg, "replication").Result()
			return err == nil && inStep.MatchString(info)
		}, patience, 5*time.Millisecond)
	}
	s.lift()
}

// TestFault_ACrashOfTheMasterLosesNothingThatWasReplicated stops a master for good
// while its jobs run; the sentinel promotes the replica. What the master had not passed
// on is gone: an end that is missing there is the recorded cause of a second run.
func TestFault_ACrashOfTheMasterLosesNothingThatWasReplicated(t *testing.T) {
	t.Parallel()
	sentinel := redistest.StartSentinel(t)
	rdb := redis.NewFailoverClient(sentinel.Options())
	t.Cleanup(func() { _ = rdb.Close() })
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{Logger: quiet, EnqueueTimeout: patience})
	require.NoError(t, err)
	const jobs = 2000
	receipts, err := toil.EnqueueMany(bg, client, make([]number, jobs), nil)
	require.NoError(t, err)
	replica := sentinel.Replica.Client()
	require.Eventually(t, func() bool {
		return replica.HLen(bg, "redrive:{default}:jobs").Val() == jobs
	}, patience, time.Millisecond)

	var mu sync.Mutex
	runs, settled := make(map[string]int), make(map[string]time.Time)
	mux := redrive.NewMux()
	toil.Handle(mux, func(ctx context.Context, j *redrive.Job[number]) (int, error) {
		mu.Lock()
		runs[j.ID]++
		mu.Unlock()
		sleepFor(ctx, 2*time.Millisecond)
		return 1, nil
	})
	w, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{Logger: quiet, Trace: &redrive.WorkerTrace{
		JobSettled: func(m *redrive.Message, _ redrive.JobEnd) {
			mu.Lock()
			defer mu.Unlock()
			if _, again := settled[m.ID]; !again {
				settled[m.ID] = time.Now()
			}
		},
	}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(bg)
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(cancel)
	ends := func() int { mu.Lock(); defer mu.Unlock(); return len(settled) }
	require.Eventually(t, func() bool { return ends() > jobs/10 }, patience, time.Millisecond)
	was := sentinel.MasterAddr()
	sentinel.Master.Stop()
	crash := time.Now()
	sentinel.AwaitFailover(was)
	require.Eventually(t, func() bool { return ends() == jobs }, patience, time.Millisecond)
	require.Eventually(t, func() bool {
		s, err := client.Stats(bg, redrive.DefaultQueue)
		return err == nil && s.Ready+s.Active+s.Delayed == 0
	}, patience, time.Millisecond)
	cancel()
	require.NoError(t, <-done)
	twice := 0
	for _, r := range receipts {
		require.Positive(t, runs[r.ID], "job %s is lost", r.ID)
		if runs[r.ID] == 1 {
			continue
		}
		twice++
		require.True(t, settled[r.ID].After(crash.Add(-time.Second)), "job %s ran again though it had ended long before the crash", r.ID)
	}
	t.Logf("%d of %d jobs ran again, since the replica had not heard of their end", twice, jobs)
}
