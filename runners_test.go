package redrive_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
)

// A quickWorker serves a gated task that has shown to be quick: what is claimed
// together is run by one goroutine from then on.
type quickWorker struct {
	*rig
	*running
	task    *redrive.Task[number, int]
	blocked *atomic.Int32
	release chan struct{}
}

func startQuickWorker(t *testing.T, b *redistest.Backend, slots int, trace *redrive.WorkerTrace) *quickWorker {
	t.Helper()
	w := &quickWorker{rig: newRig(t, b), release: make(chan struct{})}
	mux := redrive.NewMux()
	w.task, w.blocked = gated(mux, w.release)
	w.running = w.start(mux, redrive.WorkerOptions{Concurrency: slots, Trace: trace})
	args := make([]number, 500)
	for i := range args {
		args[i].N = 1
	}
	_, err := w.task.EnqueueMany(w.ctx(), w.client, args, nil)
	require.NoError(t, err)
	w.drained()
	return w
}

// TestAQuickTaskThatBlocksHoldsUpNothingClaimedWithIt blocks every handler of a batch
// of a task whose handlers have returned at once till then: the others start within
// about a millisecond, all of them, and not one in each.
func TestAQuickTaskThatBlocksHoldsUpNothingClaimedWithIt(t *testing.T) {
	t.Parallel()
	const slots = 20
	block := func(t *testing.T, b *redistest.Backend) (spread time.Duration) {
		var first, last atomic.Int64
		w := startQuickWorker(t, b, slots, &redrive.WorkerTrace{JobStarted: func(m *redrive.Message) {
			if string(m.Payload) == `{"N":0}` {
				now := time.Now().UnixNano()
				first.CompareAndSwap(0, now)
				last.Store(now)
			}
		}})
		_, err := w.task.EnqueueMany(w.ctx(), w.client, make([]number, slots), nil)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return w.blocked.Load() == slots }, patience, time.Millisecond,
			"handlers wait behind one that was quick before")
		close(w.release)
		w.drained()
		require.NoError(t, w.stop())
		return time.Duration(last.Load() - first.Load())
	}
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) { block(t, b) })
	t.Run("virtual time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			t.Cleanup(func() { time.Sleep(2 * time.Second) }) // go-redis gives its dials up
			require.LessOrEqual(t, block(t, redistest.Embedded(t)), 2*time.Millisecond)
		})
	})
}

// TestAQuickTaskThatBlocksHoldsUpNoSettle has the last job of a batch block until the
// first is settled.
func TestAQuickTaskThatBlocksHoldsUpNoSettle(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		w := startQuickWorker(t, b, 2, nil)
		receipts, err := w.task.EnqueueMany(w.ctx(), w.client, []number{{1}, {0}}, nil)
		require.NoError(t, err)
		_, err = receipts[0].Wait(w.ctx())
		require.NoError(t, err)
		close(w.release)
		w.drained()
		require.NoError(t, w.stop())
	})
}

// TestJobsAreSettledWhileOthersOfTheirBatchWaitForAProcessor claims far more jobs than
// there are processors to run them. Which goroutine a processor takes next is up to the
// scheduler of Go, so that a batch now and then goes by before the answer is looked at.
func TestJobsAreSettledWhileOthersOfTheirBatchWaitForAProcessor(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		jobs := 100 * runtime.GOMAXPROCS(0)
		var begun, before atomic.Int64 // before: how many had begun by the first settle
		task := redrive.NewTask[number, redrive.None]("busy", redrive.TaskOptions{})
		mux := redrive.NewMux()
		task.Handle(mux, redrive.NoResult(func(context.Context, *redrive.Job[number]) error {
			begun.Add(1)
			for until := time.Now().Add(2 * time.Millisecond); time.Now().Before(until); {
			}
			return nil
		}))
		for range 5 {
			begun.Store(0)
			before.Store(0)
			_, err := task.EnqueueMany(r.ctx(), r.client, make([]number, jobs), nil)
			require.NoError(t, err)
			w := r.start(mux, redrive.WorkerOptions{Concurrency: jobs, Trace: &redrive.WorkerTrace{
				JobSettled: func(*redrive.Message, redrive.JobEnd) { before.CompareAndSwap(0, begun.Load()) },
			}})
			r.drained()
			require.NoError(t, w.stop())
			if before.Load() < int64(jobs) {
				return
			}
		}
		t.Error("the first end is written after the last handler has begun")
	})
}
