package redrive_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/faultnet"
	"github.com/redrive-go/redrive/internal/store"
)

// TestI6_AnEnqueueThatWaitsForAReplicaHasTheEffectOfOne plays the mishaps with each
// call of an enqueue that waits for a replica: it succeeds, the job is there once, and
// the replica has it.
func TestI6_AnEnqueueThatWaitsForAReplicaHasTheEffectOfOne(t *testing.T) {
	t.Parallel()
	master, replica := pair(t)
	direct := master.Client()
	for _, script := range store.Scripts() {
		require.NoError(t, script.Load(t.Context(), direct).Err())
	}
	for i, m := range mishaps() {
		for _, call := range []string{"enqueue", "get", "pexpire", "wait"} {
			t.Run(m.name+"/"+call, func(t *testing.T) {
				t.Parallel()
				ctx := t.Context()
				proxy := faultnet.New(t, master.Addr, 1)
				o := master.Options()
				o.Dialer, o.MaxRetries = proxy.Dialer(), -1
				if m.opaque { // only a client of a known kind may wait for replicas
					o.MaxRetries = 3
				}
				rdb := redis.NewClient(o)
				t.Cleanup(func() { _ = rdb.Close() })
				k := store.NewKeys(fmt.Sprint(call, i), redrive.DefaultQueue)
				client, err := redrive.NewClient(rdb, redrive.ClientOptions{
					Prefix: fmt.Sprint(call, i), Logger: quiet, Replicas: 1, ReplicaTimeout: 2 * time.Second,
				})
				require.NoError(t, err)
				var rule *faultnet.Rule
				if m.set != nil {
					rule = m.set(proxy, callsOf(call))
				}
				receipt, err := act.Enqueue(ctx, client, "ok", &redrive.EnqueueOptions{ID: "x"})
				require.NoError(t, err)
				require.False(t, receipt.Duplicate)
				require.True(t, replica.Client().HExists(ctx, k.Jobs, "x").Val())
				require.Equal(t, []string{"x"}, direct.LRange(ctx, k.Ready, 0, -1).Val())
				require.Equal(t, "1", direct.HGet(ctx, k.Stats, "enqueued").Val())
				if rule != nil {
					require.Positive(t, rule.Hits(), "the enqueue does not call %s", call)
				}
			})
		}
	}
}
