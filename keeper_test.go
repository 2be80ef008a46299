package redrive

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/redistest"
)

// TestI3_AClaimOnItsWayIsNotPutBack: Redis says that a job is ours, and its claim's
// answer is not here yet. Once is no reason to run it elsewhere; for long it is (I7).
func TestI3_AClaimOnItsWayIsNotPutBack(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		ctx, rdb := t.Context(), b.Client()
		w, err := NewWorker(rdb, NewMux(), WorkerOptions{
			Prefix: b.Prefix, Lease: time.Minute, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
		require.NoError(t, err)
		s := newSession(context.Background(), w)
		defer s.close()
		q := s.queues[0]
		base := b.Prefix + ":{default}:"
		require.NoError(t, q.keeper.beat(ctx))
		require.NoError(t, rdb.HSet(ctx, base+"jobs", "a", "{}").Err())
		require.NoError(t, rdb.HSet(ctx, base+"w:"+s.id, "a", "7").Err())
		for range 3 { // a kick may make beats follow each other at once
			require.NoError(t, q.keeper.beat(ctx))
			require.Zero(t, rdb.LLen(ctx, base+"ready").Val(), "put back while its claim was on its way")
		}
		q.keeper.strange["a"] = stray{token: "7", since: time.Now().Add(-time.Minute / 3)} // a regular beat ago
		require.NoError(t, q.keeper.beat(ctx))
		require.Equal(t, []string{"a"}, rdb.LRange(ctx, base+"ready", 0, -1).Val())
		require.NoError(t, rdb.Del(ctx, base+"workers").Err()) // as a worker that leaves
	})
}

// TestI3_AWorkerOutOfTouchForALeaseCancelsItsHandlers: from then on others may run
// their jobs. What is claimed after it runs under a lease of its own.
func TestI3_AWorkerOutOfTouchForALeaseCancelsItsHandlers(t *testing.T) {
	t.Parallel()
	b := redistest.Embedded(t)
	w, err := NewWorker(b.Client(), NewMux(), WorkerOptions{Prefix: b.Prefix})
	require.NoError(t, err)
	s := newSession(context.Background(), w)
	defer s.close()
	q := s.queues[0]
	lease := q.own(nil)
	q.keeper.held = time.Now().Add(time.Minute)
	q.keeper.lapsed()
	require.NoError(t, lease.Err(), "nobody may take them yet")
	q.keeper.held = time.Now().Add(-time.Millisecond)
	q.keeper.lapsed()
	require.ErrorIs(t, context.Cause(lease), ErrLeaseLost)
	next := q.own(nil)
	q.keeper.lapsed()
	require.NoError(t, next.Err(), "a lease is lost once")
}
