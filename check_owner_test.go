package redrive_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
)

// The lease that a check gives is one like any other: renewed, or taken over.
func TestAnOwnerThatACheckFoundIsTakenOverWhenItsLeaseLapses(t *testing.T) {
	t.Parallel()
	h := newHospital(t, redistest.Embedded(t))
	ctx := h.ctx()
	require.NoError(t, h.rdb.Del(ctx, h.key("workers")).Err())
	require.Equal(t, []string{"ghost"}, h.check(true).Finding(redrive.DamageOwnerGone).IDs)
	lease, err := h.rdb.ZScore(ctx, h.key("workers"), "ghost").Result()
	require.NoError(t, err)
	require.InDelta(t, time.Now().Add(30*time.Second).UnixMilli(), lease, 20_000)

	require.NoError(t, h.rdb.ZAdd(ctx, h.key("workers"), redis.Z{Member: "ghost", Score: 1}).Err())
	reaped := make(chan string, 2)
	mux := redrive.NewMux()
	mux.Handle("ward", redrive.HandlerFunc(func(context.Context, *redrive.Message) ([]byte, error) { return nil, nil }))
	h.start(mux, redrive.WorkerOptions{Lease: redrive.MinLease, Trace: &redrive.WorkerTrace{
		JobReaped: func(_, id, worker string, crashes int) {
			if worker == "ghost" && crashes == 1 {
				reaped <- id
			}
		},
	}})
	require.ElementsMatch(t, []string{"a0", "a1"}, []string{receive(t, reaped, "take-over"), receive(t, reaped, "take-over")})
}

// TestI4_AnOwnerThatACheckCouldNotSeeChangesNothing: both lists of owners are gone,
// so a check cannot know of the worker, and puts its jobs back.
func TestI4_AnOwnerThatACheckCouldNotSeeChangesNothing(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		h := newHospital(t, b)
		ctx := h.ctx()
		owned, err := h.store.Owned(ctx, "ghost")
		require.NoError(t, err)
		require.Len(t, owned, 2)
		require.NoError(t, h.rdb.Del(ctx, h.key("workers"), h.key("owners")).Err())
		require.ElementsMatch(t, []string{"a0", "a1"}, h.check(true).Finding(redrive.DamageNotIndexed).IDs)

		after := h.dump()
		a0 := store.Owned{ID: "a0", Token: owned["a0"]}
		by := store.Settler{Worker: "ghost", Call: "late"}
		settled, err := h.store.Finish(ctx, by, store.Succeeded, []store.Done{{Owned: a0}})
		require.NoError(t, err)
		require.Equal(t, []int{0}, settled.Refused)
		settled, err = h.store.Putback(ctx, by, []store.Putback{{Owned: a0, Counter: store.Retried}})
		require.NoError(t, err)
		require.Equal(t, []int{0}, settled.Refused)
		settled, err = h.store.Bury(ctx, by, []store.Burial{{Owned: a0, Task: "ward", Reason: "exhausted", Entry: []byte("{}")}})
		require.NoError(t, err)
		require.Equal(t, []int{0}, settled.Refused)
		require.Equal(t, after, h.dump())

		// It comes back with a heartbeat, and owns nothing.
		beat, err := h.store.Beat(ctx, "ghost", time.Hour)
		require.NoError(t, err)
		require.Zero(t, beat.Owned)
		require.False(t, beat.Held)
		settled, err = h.store.Finish(ctx, by, store.Succeeded, []store.Done{{Owned: a0}})
		require.NoError(t, err)
		require.Equal(t, []int{0}, settled.Refused)
		b.Audit()
		require.Len(t, h.drain(), 10)
	})
}

// A worker that lives and whose lease alone was lost keeps its jobs.
func TestAWorkerWhoseLeaseIsLostKeepsItsJobs(t *testing.T) {
	t.Parallel()
	h := newHospital(t, redistest.Embedded(t))
	ctx := h.ctx()
	owned, err := h.store.Owned(ctx, "ghost")
	require.NoError(t, err)
	require.NoError(t, h.rdb.Del(ctx, h.key("workers")).Err())
	beat, err := h.store.Beat(ctx, "ghost", time.Hour)
	require.NoError(t, err)
	require.Equal(t, 2, beat.Owned)
	settled, err := h.store.Finish(ctx, store.Settler{Worker: "ghost", Call: "2"}, store.Succeeded,
		[]store.Done{{Owned: store.Owned{ID: "a0", Token: owned["a0"]}}})
	require.NoError(t, err)
	require.Empty(t, settled.Refused)
}

// A worker that runs a job whose payload is gone has it in memory: it ends the job.
func TestAJobWithoutPayloadIsLeftToTheWorkerThatRunsIt(t *testing.T) {
	t.Parallel()
	h := newHospital(t, redistest.Embedded(t))
	ctx := h.ctx()
	require.NoError(t, h.rdb.HDel(ctx, h.key("jobs"), "a0").Err())
	before := h.dump()
	f := h.check(true).Finding(redrive.DamageNoPayload)
	require.Equal(t, redrive.CheckFinding{Damage: redrive.DamageNoPayload, Found: 1, IDs: []string{"a0"}}, f)
	require.Equal(t, before, h.dump())
	owned, err := h.store.Owned(ctx, "ghost")
	require.NoError(t, err)
	settled, err := h.store.Finish(ctx, store.Settler{Worker: "ghost", Call: "2"}, store.Succeeded,
		[]store.Done{{Owned: store.Owned{ID: "a0", Token: owned["a0"]}}})
	require.NoError(t, err)
	require.Empty(t, settled.Refused)
	report := h.check(true)
	require.True(t, report.Sound(), "%s", report)
}

// I14: mending is legal on a Redis that takes no more.
func TestAFullRedisIsMended(t *testing.T) {
	t.Parallel()
	server := redistest.StartServer(t)
	rdb, ctx := server.Client(), t.Context()
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{Logger: quiet})
	require.NoError(t, err)
	_, err = ward.EnqueueMany(ctx, client, make([]number, 10), nil)
	require.NoError(t, err)
	require.NoError(t, rdb.Del(ctx, "redrive:{default}:ready").Err())
	require.NoError(t, rdb.HSet(ctx, "redrive:{default}:letters", "l", "{}").Err())
	require.NoError(t, rdb.ConfigSet(ctx, "maxmemory", "1").Err())
	_, err = ward.Enqueue(ctx, client, number{}, nil)
	require.ErrorIs(t, err, redrive.ErrBackpressure)

	report, err := client.Check(ctx, "default", true)
	require.NoError(t, err)
	require.Equal(t, 10, report.Finding(redrive.DamageNotIndexed).Mended, "%s", report)
	require.Equal(t, 1, report.Finding(redrive.DamageLetterMisfiled).Mended, "%s", report)
	require.EqualValues(t, 10, rdb.LLen(ctx, "redrive:{default}:ready").Val())
}

func TestCheckRefusesBadNamesAndSaysWhenRedisIsGone(t *testing.T) {
	t.Parallel()
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", DialerRetries: 1, MaxRetries: -1})
	defer rdb.Close()
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	require.NoError(t, err)
	_, err = client.Check(t.Context(), "{}", true)
	require.ErrorContains(t, err, "queue name")
	report, err := client.Check(t.Context(), "mail", true)
	require.ErrorIs(t, err, redrive.ErrUnavailable)
	require.True(t, report.Sound())
}
