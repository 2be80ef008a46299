package redrive_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
)

func init() { redistest.RegisterSubprocess("worker", workerProcess) }

// slow is the task of the worker process; its argument says how a job behaves.
var slow = redrive.NewTask[string, redrive.None]("slow", redrive.TaskOptions{Retry: fast})

// workerProcess serves the default queue until SIGTERM and prints what happens:
// "start id starts retries crashes interrupts", "end id", "lost id", "exit error".
func workerProcess() {
	db, _ := strconv.Atoi(os.Getenv("DB"))
	rdb := redis.NewClient(&redis.Options{Addr: os.Getenv("ADDR"), DB: db})
	mux := redrive.NewMux()
	slow.Handle(mux, redrive.NoResult(func(ctx context.Context, j *redrive.Job[string]) error {
		fmt.Println("start", j.ID, j.Starts, j.Retries, j.Crashes, j.Interrupts)
		switch j.Args {
		case "suicide":
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		case "wait":
			<-ctx.Done()
			return ctx.Err()
		case "pause": // deaf, until the file is there
			for {
				if _, err := os.Stat(os.Getenv("GO_ON")); err == nil {
					return nil
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
		return nil
	}))
	concurrency, _ := strconv.Atoi(os.Getenv("CONCURRENCY"))
	shutdown, _ := time.ParseDuration(os.Getenv("SHUTDOWN"))
	w, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{
		Prefix: os.Getenv("PREFIX"), Lease: time.Second, Concurrency: concurrency, ShutdownTimeout: shutdown, Logger: quiet,
		Trace: &redrive.WorkerTrace{
			JobSettled: func(m *redrive.Message, e redrive.JobEnd) { fmt.Println("end", m.ID, e.Action) },
			JobLost:    func(m *redrive.Message) { fmt.Println("lost", m.ID) },
		},
	})
	if err != nil {
		panic(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fmt.Println("exit", w.Run(ctx))
}

// process starts a worker process on the rig's backend.
func (r *rig) process(env ...string) *redistest.Process {
	return redistest.StartSubprocess(r.t, "worker", append(env,
		"ADDR="+r.b.Addr, fmt.Sprintf("DB=%d", r.b.Options().DB), "PREFIX="+r.b.Prefix)...)
}

// started is one line of a worker process.
type started struct {
	id                                   string
	starts, retries, crashes, interrupts int
}

func waitStarted(p *redistest.Process) (s started) {
	_, err := fmt.Sscan(p.WaitLine("start "), &s.id, &s.starts, &s.retries, &s.crashes, &s.interrupts)
	if err != nil {
		panic(err)
	}
	return s
}

func TestI9_KilledWorkersJobRunsAgainWithinLease(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Redis(t))
	receipt, err := slow.Enqueue(r.ctx(), r.client, "wait", nil)
	require.NoError(t, err)
	first := r.process()
	require.Equal(t, started{id: receipt.ID, starts: 1}, waitStarted(first))
	first.Kill()
	killed := time.Now()
	second := r.process()
	again := waitStarted(second)
	took := time.Since(killed)
	require.Equal(t, started{id: receipt.ID, starts: 2, crashes: 1}, again, "no retry is used")
	const lease = time.Second
	// The second process starts after the kill and must itself be in touch for a
	// lease: its own start is not what is measured.
	require.LessOrEqual(t, took, lease+time.Second+startup(t))
	second.Kill()
}

// startup measures how long the start of a process takes on this machine now.
func startup(t *testing.T) time.Duration {
	t.Helper()
	begin := time.Now()
	p := redistest.StartSubprocess(t, "nothing")
	require.NoError(t, p.Wait())
	return time.Since(begin)
}

func init() { redistest.RegisterSubprocess("nothing", func() {}) }

func TestI8_AJobThatKillsItsProcessEveryTimeIsACrashLoop(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Redis(t))
	receipt, err := slow.Enqueue(r.ctx(), r.client, "suicide", nil)
	require.NoError(t, err)
	for crash := range 3 {
		p := r.process()
		require.Equal(t, started{id: receipt.ID, starts: crash + 1, crashes: crash}, waitStarted(p))
		_ = p.Wait()
	}
	r.start(redrive.NewMux(), redrive.WorkerOptions{Lease: time.Second}) // knows no task: it buries all the same
	r.eventually(func(s redrive.QueueStats) bool { return s.Dead == 1 }, "not dead")
	l := r.letter("default", receipt.ID)
	require.Equal(t, "crash-loop", l["reason"])
	require.EqualValues(t, 3, l["crashes"])
	require.EqualValues(t, 0, l["retries"])
	require.EqualValues(t, 3, l["starts"])
}

func TestI15_SIGTERMDuringFiftyJobsSettlesTheFinishedAndPutsTheRestToTheFront(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Redis(t))
	const jobs = 50
	args := make([]string, jobs)
	for i := range args {
		if args[i] = "wait"; i%5 == 0 {
			args[i] = "now"
		}
	}
	receipts, err := slow.EnqueueMany(r.ctx(), r.client, args, nil)
	require.NoError(t, err)
	p := r.process("CONCURRENCY=50", "SHUTDOWN=2s")
	for range jobs {
		waitStarted(p)
	}
	r.eventually(func(s redrive.QueueStats) bool { return s.Succeeded == jobs/5 }, "the finished are not settled")
	require.NoError(t, r.client.Pause(r.ctx(), "default"))
	last, err := slow.Enqueue(r.ctx(), r.client, "now", &redrive.EnqueueOptions{ID: "behind"})
	require.NoError(t, err)
	begin := time.Now()
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	require.Equal(t, "<nil>", p.WaitLine("exit "))
	took := time.Since(begin) // the end of the process itself takes the race detector a second
	require.NoError(t, p.Wait())
	require.Less(t, took, 2*time.Second, "ShutdownTimeout")
	require.Greater(t, took, time.Second, "handlers had no time to finish")

	s := r.stats("default")
	require.EqualValues(t, jobs*4/5, s.Interrupted)
	require.Zero(t, s.Retried+s.Dead+s.Crashed+s.Active)
	ready, err := r.rdb.LRange(r.ctx(), r.b.Prefix+":{default}:ready", 0, -1).Result()
	require.NoError(t, err)
	require.Len(t, ready, jobs*4/5+1)
	require.Equal(t, last.ID, ready[len(ready)-1], "what was put back is not at the front")
	for i, receipt := range receipts {
		if i%5 != 0 {
			require.Contains(t, ready, receipt.ID)
		} else {
			require.NotContains(t, ready, receipt.ID)
		}
	}
	require.NoError(t, r.client.Resume(r.ctx(), "default"))
	next := r.process("CONCURRENCY=50")
	for range jobs * 4 / 5 {
		st := waitStarted(next)
		if st.id == last.ID {
			st = waitStarted(next)
		}
		require.Equal(t, started{id: st.id, starts: 2, interrupts: 1}, st)
	}
	next.Kill()
	r.start(redrive.NewMux(), redrive.WorkerOptions{Lease: time.Second})
	r.eventually(func(s redrive.QueueStats) bool { return s.Active == 0 }, "the killed worker's jobs are not back")
}

func TestI15_HandlersThatIgnoreTheirContextDoNotHoldUpTheShutdown(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[number, redrive.None]("deaf", redrive.TaskOptions{})
		mux := redrive.NewMux()
		began, release := make(chan struct{}, 2), make(chan struct{})
		t.Cleanup(func() { close(release) })
		task.Handle(mux, redrive.NoResult(func(context.Context, *redrive.Job[number]) error {
			began <- struct{}{}
			<-release
			return nil
		}))
		w := r.start(mux, redrive.WorkerOptions{ShutdownTimeout: 300 * time.Millisecond})
		_, err := task.EnqueueMany(r.ctx(), r.client, make([]number, 2), nil)
		require.NoError(t, err)
		receive(t, began, "start")
		receive(t, began, "start")
		begin := time.Now()
		require.ErrorIs(t, w.stop(), redrive.ErrHandlersStuck)
		require.Less(t, time.Since(begin), 550*time.Millisecond)
		s := r.stats("default")
		require.EqualValues(t, 2, s.Ready, "back in the queue")
		require.Zero(t, s.Retried+s.Crashed)
	})
}

// TestI4_AZombieChangesNothing stops a worker process past its lease while it
// runs a job, lets another finish the job, and wakes the first.
func TestI4_AZombieChangesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Redis(t))
	goOn := t.TempDir() + "/go-on"
	receipt, err := slow.Enqueue(r.ctx(), r.client, "pause", nil)
	require.NoError(t, err)
	zombie := r.process("GO_ON=" + goOn)
	waitStarted(zombie)
	require.NoError(t, zombie.Process.Signal(syscall.SIGSTOP))

	mux := redrive.NewMux()
	running, finish := make(chan redrive.Message, 1), make(chan struct{})
	slow.Handle(mux, redrive.NoResult(func(_ context.Context, j *redrive.Job[string]) error {
		running <- *j.Message
		<-finish
		return nil
	}))
	r.start(mux, redrive.WorkerOptions{Lease: time.Second})
	m := receive(t, running, "second start")
	require.Equal(t, receipt.ID, m.ID)
	require.Equal(t, 1, m.Crashes)

	// The zombie returns success for a job that another is running.
	require.NoError(t, os.WriteFile(goOn, nil, 0o600))
	require.NoError(t, zombie.Process.Signal(syscall.SIGCONT))
	require.Equal(t, receipt.ID, zombie.WaitLine("lost "))
	s := r.stats("default")
	require.EqualValues(t, 1, s.Active, "the zombie ended the job of another")
	require.Zero(t, s.Succeeded)
	close(finish)
	r.drained()
	require.EqualValues(t, 1, r.stats("default").Succeeded)
	zombie.Kill()
}

// TestI1_RedisStopsForTenSecondsUnderLoad stops a server that syncs every write,
// under load, and starts it again: workers and producers go on by themselves,
// nothing acknowledged is lost, and no finished job runs again.
func TestI1_RedisStopsForTenSecondsUnderLoad(t *testing.T) {
	t.Parallel()
	server := redistest.StartServer(t, "--appendonly", "yes", "--appendfsync", "always")
	rdb := server.Client()
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{EnqueueTimeout: patience})
	require.NoError(t, err)
	task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})
	mux := redrive.NewMux()
	var mu sync.Mutex
	ran := make(map[string]int)
	settled := make(map[string]int)
	again := make(map[string]int) // runs after the job was settled
	task.Handle(mux, redrive.NoResult(func(_ context.Context, j *redrive.Job[number]) error {
		mu.Lock()
		defer mu.Unlock()
		ran[j.ID]++
		if settled[j.ID] > 0 {
			again[j.ID]++
		}
		return nil
	}))
	var back atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	for range 2 {
		w, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{Logger: quiet, Trace: &redrive.WorkerTrace{
			JobSettled: func(m *redrive.Message, _ redrive.JobEnd) {
				mu.Lock()
				defer mu.Unlock()
				settled[m.ID]++
			},
			RedisBack: func(string, time.Duration) { back.Add(1) },
		}})
		require.NoError(t, err)
		go func() { done <- w.Run(ctx) }()
	}
	// A producer that goes on until told, over the outage.
	stop, produced := make(chan struct{}), make(chan map[string]bool)
	go func() {
		acked := make(map[string]bool)
		for n := 0; ; n++ {
			select {
			case <-stop:
				produced <- acked
				return
			default:
			}
			receipt, err := task.Enqueue(context.Background(), client, number{n}, nil)
			var unknown *redrive.AmbiguousError
			switch {
			case err == nil:
				acked[receipt.ID] = true
			case !errors.As(err, &unknown):
				t.Errorf("enqueue: %v", err)
			}
		}
	}()
	time.Sleep(500 * time.Millisecond)
	server.Stop()
	time.Sleep(10 * time.Second)
	server.Start()
	up := time.Now()
	mu.Lock()
	before := len(settled)
	mu.Unlock()
	require.Eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(settled) > before }, patience, time.Millisecond)
	t.Logf("first job settled %v after the server answered", time.Since(up))
	time.Sleep(500 * time.Millisecond)
	close(stop)
	acked := <-produced
	require.Eventually(t, func() bool {
		s, err := client.Stats(context.Background(), "default")
		return err == nil && s.Ready+s.Active+s.Delayed == 0
	}, patience, 5*time.Millisecond)
	cancel()
	require.NoError(t, errors.Join(<-done, <-done))

	require.NotZero(t, back.Load())
	require.Greater(t, len(acked), before, "nothing was enqueued after the outage")
	for id := range acked {
		require.Equal(t, 1, ran[id], "job %s", id)
		require.Equal(t, 1, settled[id], "job %s", id)
	}
	require.Empty(t, again, "finished jobs ran again")
}
