package redrive_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
)

// TestFault_AHotSlotMovesBackAndForth moves the slot of a queue from node to node, key
// by key, while producers and workers use it. A script that finds some of its keys
// gone is refused as a whole and sent again.
func TestFault_AHotSlotMovesBackAndForth(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	rdb, admin := redis.NewClusterClient(cluster.Options()), redis.NewClusterClient(cluster.Options())
	t.Cleanup(func() { _, _ = rdb.Close(), admin.Close() })
	s := besiege(t, rdb, admin)
	s.queue = "hot-slot" // no other test's
	slot := int(admin.ClusterKeySlot(bg, "redrive:{hot-slot}:ready").Val())
	home := cluster.Owner(t, slot)
	t.Cleanup(func() {
		cluster.MoveSlot(t, slot, home)
		for i := range cluster.Addrs() {
			node := redis.NewClient(&redis.Options{Addr: cluster.Addrs()[i]})
			for _, key := range node.Keys(bg, "redrive:{hot-slot}*").Val() {
				_ = node.Del(bg, key).Err()
			}
			_ = node.Close()
		}
	})
	s.work(2, s.mux(), redrive.WorkerOptions{})
	s.produce(4)
	before := tryAgains(t, cluster)
	for i := range 6 {
		s.progress(30)
		cluster.MoveSlot(t, slot, (home+1+i)%len(cluster.Addrs()))
	}
	s.progress(30)
	require.Greater(t, tryAgains(t, cluster), before, "no call met a slot on the move")
	s.lift()
}

// tryAgains counts the calls that found some of their keys gone.
func tryAgains(t *testing.T, c *redistest.Cluster) (n int) {
	for _, addr := range c.Addrs() {
		node := redis.NewClient(&redis.Options{Addr: addr})
		info, err := node.Info(bg, "errorstats").Result()
		require.NoError(t, err)
		require.NoError(t, node.Close())
		_, count, _ := strings.Cut(info, "errorstat_TRYAGAIN:count=")
		var here int
		_, _ = fmt.Sscan(count, &here) // none is none
		n += here
	}
	return n
}
