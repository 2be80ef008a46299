package redrive_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
)

// toil is the task of the tests of named faults: every seventh job fails once, every
// eleventh snoozes once, every thirteenth dies.
var toil = redrive.NewTask[number, int]("toil", redrive.TaskOptions{Retry: fast, ResultTTL: time.Minute})

// A siege is a server under load from producers and workers while a fault befalls it.
// It keeps its books outside of Redis: what was acknowledged, and each run with the
// counters that the job had when it began, which are the cause of the run.
type siege struct {
	t      *testing.T
	rdb    redis.UniversalClient // of producers and workers
	admin  redis.UniversalClient // sees Redis as it is
	client *redrive.Client
	queue  string

	mu    sync.Mutex
	acked map[string]int // id → N
	runs  map[string][]redrive.Message
	lost  map[string]int // attempts whose end was refused, as another owned the job

	begun, settled atomic.Int64
	stops          []func() error // of the workers
	produced       sync.WaitGroup
	enough         chan struct{}
	end            func()           // closes enough, and waits for the producers
	refusals       func(error) bool // errors of an enqueue that say that nothing was enqueued
}

func besiege(t *testing.T, rdb, admin redis.UniversalClient) *siege {
	t.Helper()
	s := &siege{
		t: t, rdb: rdb, admin: admin, queue: redrive.DefaultQueue, acked: make(map[string]int),
		runs: make(map[string][]redrive.Message), lost: make(map[string]int), enough: make(chan struct{}),
		refusals: func(err error) bool { return errors.Is(err, redrive.ErrUnavailable) },
	}
	s.end = sync.OnceFunc(func() { close(s.enough); s.produced.Wait() })
	t.Cleanup(s.end)
	var err error
	s.client, err = redrive.NewClient(rdb, redrive.ClientOptions{Logger: quiet, EnqueueTimeout: patience})
	require.NoError(t, err)
	return s
}

// mux serves toil; mw stands around it.
func (s *siege) mux(mw ...redrive.Middleware) *redrive.Mux {
	mux := redrive.NewMux()
	toil.Handle(mux, func(_ context.Context, j *redrive.Job[number]) (int, error) {
		s.mu.Lock()
		s.runs[j.ID] = append(s.runs[j.ID], *j.Message)
		s.mu.Unlock()
		s.begun.Add(1)
		switch {
		case j.Args.N%13 == 0:
			return 0, redrive.Permanent(errors.New("dies"))
		case j.Args.N%7 == 0 && j.Retries == 0:
			return 0, errors.New("fails once")
		case j.Args.N%11 == 0 && j.Snoozes == 0:
			return 0, redrive.Snooze(time.Millisecond)
		}
		return j.Args.N, nil
	}, mw...)
	return mux
}

// work starts workers.
func (s *siege) work(n int, mux *redrive.Mux, opts redrive.WorkerOptions) {
	s.t.Helper()
	opts.Logger, opts.Queues = quiet, []redrive.Queue{{Name: s.queue}}
	opts.Trace = &redrive.WorkerTrace{
		JobSettled: func(*redrive.Message, redrive.JobEnd) { s.settled.Add(1) },
		JobLost: func(m *redrive.Message) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.lost[m.ID]++
		},
	}
	for range n {
		w, err := redrive.NewWorker(s.rdb, mux, opts)
		require.NoError(s.t, err)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		stop := sync.OnceValue(func() error { cancel(); return <-done })
		s.stops = append(s.stops, stop)
		s.t.Cleanup(func() { _ = stop() })
	}
}

// produce starts producers, which enqueue until enough is closed, a millisecond apart.
// An enqueue whose fate is unknown is made again with its id.
func (s *siege) produce(n int) {
	for p := range n {
		s.produced.Go(func() {
			for i := p; ; i += n {
				select {
				case <-s.enough:
					return
				case <-time.After(time.Millisecond):
				}
				opts := &redrive.EnqueueOptions{Queue: s.queue, ID: fmt.Sprintf("job-%d", i)}
				for {
					_, err := toil.Enqueue(context.Background(), s.client, number{i}, opts)
					if err == nil {
						s.mu.Lock()
						s.acked[opts.ID] = i
						s.mu.Unlock()
						break
					}
					var unknown *redrive.AmbiguousError
					if !errors.As(err, &unknown) && !s.refusals(err) {
						s.t.Errorf("enqueue %d: %v", i, err)
						return
					}
				}
			}
		})
	}
}

// progress waits until jobs are settled that were not when it was called.
func (s *siege) progress(jobs int64) {
	s.t.Helper()
	before := s.settled.Load()
	require.Eventually(s.t, func() bool { return s.settled.Load() >= before+jobs }, patience, time.Millisecond, "no progress")
}

// lift ends the production, waits until the queue is empty, stops the workers, and
// holds the books against each other and against Redis.
func (s *siege) lift() {
	s.t.Helper()
	s.end()
	var q redrive.QueueStats
	require.Eventually(s.t, func() bool {
		var err error
		q, err = s.stats()
		return err == nil && q.Ready+q.Delayed+q.Active == 0
	}, patience, 5*time.Millisecond, "the queue does not drain: %+v", &q)
	for _, stop := range s.stops {
		require.NoError(s.t, stop())
	}
	s.check()
}

func (s *siege) stats() (redrive.QueueStats, error) {
	client, err := redrive.NewClient(s.admin, redrive.ClientOptions{Logger: quiet})
	require.NoError(s.t, err)
	return client.Stats(context.Background(), s.queue)
}

// check: every acknowledged job ran as often as its own failures say and no more, with
// its payload; every other run has a counter of the job as its cause. The figures of
// Redis agree, and nothing is left behind.
func (s *siege) check() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.NotEmpty(s.t, s.acked)
	dead, runs := int64(0), 0
	for id, n := range s.acked {
		want := 1
		switch {
		case n%13 == 0:
			dead++
		case n%7 == 0 && n%11 == 0:
			want = 3
		case n%7 == 0 || n%11 == 0:
			want = 2
		}
		runs += want
		require.Len(s.t, s.runs[id], want, "job %s: runs without a cause, or none: %+v", id, s.runs[id])
		for i, m := range s.runs[id] {
			require.Equal(s.t, fmt.Sprintf(`{"N":%d}`, n), string(m.Payload))
			require.Equal(s.t, i, m.Retries+m.Snoozes, "job %s, run %d", id, i)
			require.Zero(s.t, m.Crashes+m.Interrupts, "job %s, run %d", id, i)
		}
	}
	require.Len(s.t, s.runs, len(s.acked), "something ran that was not acknowledged")
	require.Empty(s.t, s.lost)
	q, err := s.stats()
	require.NoError(s.t, err)
	require.EqualValues(s.t, len(s.acked), q.Enqueued)
	require.EqualValues(s.t, dead, q.Dead)
	require.Equal(s.t, dead, q.Died)
	require.EqualValues(s.t, len(s.acked), q.Succeeded+q.Died)
	require.EqualValues(s.t, runs-len(s.acked), q.Retried+q.Snoozed)
	require.Zero(s.t, q.Crashed+q.Interrupted+q.Discarded+q.Workers)
	findings, err := store.Audit(context.Background(), s.admin, redrive.DefaultPrefix)
	require.NoError(s.t, err)
	require.Empty(s.t, findings, "I5")
	s.t.Logf("%d jobs, %d runs", len(s.acked), runs)
}

// during calls f again and again, every so often, until done.
func during(every time.Duration, f func()) (done func()) {
	end := make(chan struct{})
	var loop sync.WaitGroup
	loop.Go(func() {
		for {
			f()
			select {
			case <-end:
				return
			case <-time.After(every):
			}
		}
	})
	return sync.OnceFunc(func() { close(end); loop.Wait() })
}

// under returns a siege of a server of its own that has begun to work.
func under(t *testing.T, args ...string) (*siege, *redistest.Server) {
	t.Helper()
	server := redistest.StartServer(t, args...)
	s := besiege(t, server.Client(), server.Client())
	s.work(2, s.mux(), redrive.WorkerOptions{})
	s.produce(4)
	s.progress(20)
	return s, server
}

var (
	bg     = context.Background()
	inStep = regexp.MustCompile(`state=online`)
)

func TestFault_ScriptsAreFlushedAllTheTime(t *testing.T) {
	t.Parallel()
	s, server := under(t)
	admin := server.Client()
	flushes := 0
	done := during(50*time.Millisecond, func() {
		if admin.ScriptFlush(bg).Err() == nil {
			flushes++
		}
	})
	time.Sleep(time.Second)
	done()
	require.Greater(t, flushes, 3)
	s.lift()
	// Scripts went by their text again and again: it was a storm.
	require.Greater(t, server.CommandCount("eval"), int64(flushes))
}

func TestFault_AMasterIsReadOnlyForAWhile(t *testing.T) {
	t.Parallel()
	s, server := under(t)
	admin := server.Client()
	for range 3 {
		// A replica of nobody keeps its data and refuses writes.
		require.NoError(t, admin.Do(bg, "REPLICAOF", "127.0.0.1", "1").Err())
		require.ErrorContains(t, admin.Set(bg, "k", "v", 0).Err(), "READONLY")
		time.Sleep(200 * time.Millisecond)
		require.NoError(t, admin.Do(bg, "REPLICAOF", "NO", "ONE").Err())
		s.progress(20)
	}
	s.lift()
}

func TestFault_AServerThatLoadsIsWaitedFor(t *testing.T) {
	t.Parallel()
	// Loading takes a while for each key, and looks at clients after every 1,024.
	s, server := under(t, "--appendonly", "yes", "--appendfsync", "always", "--key-load-delay", "50",
		"--loading-process-events-interval-bytes", "1024")
	admin := server.Client()
	_, err := admin.Pipelined(bg, func(p redis.Pipeliner) error {
		for i := range 4_200 {
			p.Set(bg, fmt.Sprint("ballast:", i), "x", 0)
		}
		return nil
	})
	require.NoError(t, err)
	server.Stop()
	var loading atomic.Bool
	probe := redis.NewClient(&redis.Options{Addr: server.Addr, MaxRetries: -1, DialerRetries: 1})
	defer probe.Close()
	done := during(5*time.Millisecond, func() {
		if err := probe.Get(bg, "k").Err(); err != nil && strings.Contains(err.Error(), "LOADING") {
			loading.Store(true)
		}
	})
	server.Start()
	s.progress(50)
	done()
	require.True(t, loading.Load(), "nobody saw it loading")
	s.lift()
}

func TestFault_AServerThatIsBusyIsWaitedFor(t *testing.T) {
	t.Parallel()
	s, server := under(t, "--lua-time-limit", "20")
	admin := server.Client()
	for range 3 {
		ended := make(chan error, 1)
		hog := redis.NewClient(&redis.Options{Addr: server.Addr, MaxRetries: -1, ReadTimeout: patience})
		go func() { ended <- hog.Eval(bg, "while true do end", nil).Err() }()
		require.Eventually(t, func() bool {
			err := admin.Get(bg, "k").Err()
			return err != nil && redis.HasErrorPrefix(err, "BUSY")
		}, patience, time.Millisecond)
		time.Sleep(200 * time.Millisecond)
		require.NoError(t, admin.ScriptKill(bg).Err())
		require.Error(t, <-ended)
		require.NoError(t, hog.Close())
		s.progress(20)
	}
	s.lift()
}

func TestFault_ConnectionsAreKilledAllTheTime(t *testing.T) {
	t.Parallel()
	s, server := under(t)
	admin := server.Client()
	var killed atomic.Int64
	done := during(20*time.Millisecond, func() {
		for _, kind := range []string{"normal", "pubsub"} {
			n, _ := admin.Do(bg, "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes").Int64()
			killed.Add(n)
		}
	})
	time.Sleep(time.Second)
	done()
	require.Greater(t, killed.Load(), int64(20))
	s.lift()
}

func TestFault_RightsAreTakenAwayAndGivenBack(t *testing.T) {
	t.Parallel()
	server := redistest.StartServer(t)
	admin := server.Client()
	set := func(rules ...any) {
		require.NoError(t, admin.Do(bg, append([]any{"ACL", "SETUSER", "worker"}, rules...)...).Err())
	}
	set("on", ">pw", "~*", "&*", "+@all")
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr, Username: "worker", Password: "pw"})
	t.Cleanup(func() { _ = rdb.Close() })
	s := besiege(t, rdb, admin)
	var refused atomic.Int64
	s.refusals = func(err error) bool {
		refused.Add(1)
		time.Sleep(time.Millisecond)
		return redis.IsPermissionError(err)
	}
	s.work(2, s.mux(), redrive.WorkerOptions{})
	s.produce(4)
	for _, rights := range [][2]string{{"-@scripting", "+@scripting"}, {"resetkeys", "~*"}} {
		s.progress(20)
		set(rights[0])
		before := refused.Load()
		require.Eventually(t, func() bool { return refused.Load() > before+20 }, patience, time.Millisecond)
		set(rights[1])
	}
	s.progress(20)
	s.lift()
}
