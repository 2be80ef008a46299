package redrive_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
)

// TestI1_AJobIsNotDroppedForALockThatItsOwnAttemptLeftBehind: Redis was away when an
// attempt released its lock. The next one finds itself in its way, and waits.
func TestI1_AJobIsNotDroppedForALockThatItsOwnAttemptLeftBehind(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		left := store.OpenLock(r.rdb, b.Prefix, "act", "act")
		_, held, err := left.Acquire(r.ctx(), "owner", "job x at a worker that is gone", 200*time.Millisecond, 1)
		require.NoError(t, err)
		require.Nil(t, held)
		mux := redrive.NewMux()
		act.Handle(mux, func(context.Context, *redrive.Job[string]) (string, error) { return "ran", nil },
			redrive.Singleton(r.rdb, redrive.SingletonOptions{Prefix: b.Prefix, Logger: quiet}))
		receipt, err := act.Enqueue(r.ctx(), r.client, "", &redrive.EnqueueOptions{ID: "x"})
		require.NoError(t, err)
		r.start(mux, redrive.WorkerOptions{})
		got, err := receipt.Wait(r.ctx())
		require.NoError(t, err)
		require.Equal(t, "ran", got)
		require.Positive(t, r.stats(redrive.DefaultQueue).Snoozed)
	})
}
