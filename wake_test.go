package redrive_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
)

// TestI12_ADelayedJobDoesNotWaitForTheWorkerThatKnowsOfIt: two workers with one slot each
// serve two queues. One hears of a delayed job in the first queue, then of a job in the
// second that blocks its slot. The other is idle, and must get the delayed job in time,
// also when the one that knows is about to stop.
func TestI12_ADelayedJobDoesNotWaitForTheWorkerThatKnowsOfIt(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		for _, stops := range []bool{false, true} {
			for range 4 { // who hears of what is up to chance
				delayedJobBehindAFullWorker(t, b, stops)
			}
		}
	})
}

func delayedJobBehindAFullWorker(t *testing.T, b *redistest.Backend, stops bool) {
	r := newRig(t, b)
	soon := redrive.NewTask[number, redrive.None]("soon", redrive.TaskOptions{Queue: "one"})
	block := redrive.NewTask[number, redrive.None]("block", redrive.TaskOptions{Queue: "two", Timeout: redrive.NoTimeout})
	began, release, blocks := make(chan struct{}, 1), make(chan struct{}), make(chan int, 1)
	var workers []*running
	for i := range 2 {
		mux := redrive.NewMux()
		soon.Handle(mux, redrive.NoResult(func(context.Context, *redrive.Job[number]) error {
			began <- struct{}{}
			return nil
		}))
		block.Handle(mux, redrive.NoResult(func(context.Context, *redrive.Job[number]) error {
			blocks <- i
			<-release
			return nil
		}))
		workers = append(workers, r.start(mux, redrive.WorkerOptions{
			Concurrency: 1, Lease: time.Minute, Queues: []redrive.Queue{{Name: "one"}, {Name: "two"}},
		}))
		// Idle and listening before the next starts, and before there are jobs.
		time.Sleep(30 * time.Millisecond)
	}
	_, err := soon.Enqueue(r.ctx(), r.client, number{}, &redrive.EnqueueOptions{Delay: 150 * time.Millisecond})
	require.NoError(t, err)
	time.Sleep(30 * time.Millisecond) // somebody has heard of it
	_, err = block.Enqueue(r.ctx(), r.client, number{}, nil)
	require.NoError(t, err)
	full := <-blocks
	stopped := make(chan error, 1)
	if stops {
		go func() { stopped <- workers[full].stop() }()
	}
	late := false
	select {
	case <-began:
	case <-time.After(5 * time.Second):
		late = true
	}
	close(release)
	require.False(t, late, "the delayed job waits although a worker is idle")
	if stops {
		require.NoError(t, <-stopped)
	}
	for _, w := range workers {
		require.NoError(t, w.stop())
	}
}
