package redistest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
)

const (
	clusterNodes = 3
	clusterSlots = 16_384
)

// Cluster is three masters that share the slots. It belongs to the process,
// because forming one takes seconds; tests keep apart by their prefix.
type Cluster struct{ nodes []*Server }

var sharedCluster struct {
	once sync.Once
	c    *Cluster
	err  error
}

// StartCluster returns the process's cluster, formed at the first call. [Main]
// stops it.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	RequireServer(t)
	sharedCluster.once.Do(func() { sharedCluster.c, sharedCluster.err = formCluster() })
	if sharedCluster.err != nil {
		t.Fatalf("redistest: cluster: %v", sharedCluster.err)
	}
	return sharedCluster.c
}

// Addrs returns the addresses of the nodes.
func (c *Cluster) Addrs() []string {
	addrs := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		addrs[i] = n.Addr
	}
	return addrs
}

// Options returns fresh options for a client of the cluster.
func (c *Cluster) Options() *redis.ClusterOptions {
	return &redis.ClusterOptions{Addrs: c.Addrs(), MaintNotificationsConfig: noNotifications()}
}

func formCluster() (*Cluster, error) {
	c := &Cluster{}
	for range clusterNodes {
		dir, err := tempDir()
		if err != nil {
			return nil, err
		}
		n, err := launch(dir, "--cluster-enabled", "yes", "--cluster-node-timeout", "5000")
		if err != nil {
			return nil, err
		}
		onExit(n.kill)
		c.nodes = append(c.nodes, n)
	}
	for i, n := range c.nodes {
		if err := n.join(i, c.nodes[0]); err != nil {
			return nil, err
		}
	}
	for _, n := range c.nodes {
		rdb := n.admin()
		err := waitFor(func(ctx context.Context) error {
			info, err := rdb.ClusterInfo(ctx).Result()
			for _, want := range []string{
				"cluster_state:ok", "cluster_slots_ok:" + strconv.Itoa(clusterSlots),
				"cluster_known_nodes:" + strconv.Itoa(clusterNodes), "cluster_size:" + strconv.Itoa(clusterNodes),
			} {
				if err == nil && !strings.Contains(info, want+"\r\n") {
					err = fmt.Errorf("CLUSTER INFO of %s lacks %s", n.Addr, want)
				}
			}
			return err
		})
		_ = rdb.Close()
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

// join gives the i-th node its slots and introduces it to the first one.
func (s *Server) join(i int, first *Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), upWithin)
	defer cancel()
	rdb := s.admin()
	defer rdb.Close()
	// Without distinct epochs the nodes first have to resolve a collision.
	if err := rdb.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err(); err != nil {
		return err
	}
	var slots []int // ADDSLOTSRANGE is not known before 7.0
	for slot := i * clusterSlots / clusterNodes; slot < (i+1)*clusterSlots/clusterNodes; slot++ {
		slots = append(slots, slot)
	}
	if err := rdb.ClusterAddSlots(ctx, slots...).Err(); err != nil {
		return err
	}
	if s == first {
		return nil
	}
	return rdb.ClusterMeet(ctx, "127.0.0.1", strconv.Itoa(first.port)).Err()
}

// MoveSlot moves a slot, with the keys that it holds, to a node while clients use it,
// as CLUSTER SETSLOT and MIGRATE do it. Whoever moves a slot of the process's cluster
// moves it back in the end.
func (c *Cluster) MoveSlot(t testing.TB, slot, to int) {
	t.Helper()
	from := c.Owner(t, slot)
	if from == to {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), upWithin)
	defer cancel()
	src, dst := c.nodes[from].admin(), c.nodes[to].admin()
	defer src.Close()
	defer dst.Close()
	do := func(rdb *redis.Client, args ...any) any {
		t.Helper()
		reply, err := rdb.Do(ctx, args...).Result()
		if err != nil {
			t.Fatalf("redistest: move slot %d: %v: %v", slot, args, err)
		}
		return reply
	}
	srcID, dstID := do(src, "CLUSTER", "MYID"), do(dst, "CLUSTER", "MYID")
	do(dst, "CLUSTER", "SETSLOT", slot, "IMPORTING", srcID)
	do(src, "CLUSTER", "SETSLOT", slot, "MIGRATING", dstID)
	for {
		// One key at a time: most of the time some of a queue's keys are here, some there.
		keys, _ := do(src, "CLUSTER", "GETKEYSINSLOT", slot, 1).([]any)
		if len(keys) == 0 {
			break
		}
		do(src, append([]any{"MIGRATE", "127.0.0.1", c.nodes[to].port, "", 0, 5000, "REPLACE", "KEYS"}, keys...)...)
	}
	// The new owner first: then nobody takes the slot for lost.
	do(dst, "CLUSTER", "SETSLOT", slot, "NODE", dstID)
	do(src, "CLUSTER", "SETSLOT", slot, "NODE", dstID)
	for i, n := range c.nodes {
		if i != from && i != to {
			rdb := n.admin()
			do(rdb, "CLUSTER", "SETSLOT", slot, "NODE", dstID)
			_ = rdb.Close()
		}
	}
}

// Owner returns which of the nodes a slot belongs to, by its own account.
func (c *Cluster) Owner(t testing.TB, slot int) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), upWithin)
	defer cancel()
	for i, n := range c.nodes {
		rdb := n.admin()
		//lint:ignore SA1019 CLUSTER SHARDS is not known before 7.0
		slots, err := rdb.ClusterSlots(ctx).Result()
		_ = rdb.Close()
		if err != nil {
			t.Fatalf("redistest: owner of slot %d: %v", slot, err)
		}
		for _, s := range slots {
			if s.Start <= slot && slot <= s.End && s.Nodes[0].Addr == n.Addr {
				return i
			}
		}
	}
	t.Fatalf("redistest: slot %d has no owner", slot)
	return -1
}
