package store

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// ErrForgotten: the server does not know a call that was answered. It became the
// master without having heard of it.
var ErrForgotten = errors.New("the server does not know the call")

// Replicated waits until n replicas have what a lane's answered call wrote, at most
// for the time given, and returns how many have. It returns [ErrForgotten] when the
// server that answers now is not the one that performed the call, nor heard of it.
//
// WAIT speaks of what its own connection wrote last, and the call may have gone over
// another one, or have been sent twice. So a write goes ahead of the WAIT in one
// pipeline, which is one connection: replication is one stream, and who has a later
// write has all earlier ones.
func (q *Queue) Replicated(ctx context.Context, lane string, call int64, n int, timeout time.Duration) (int, error) {
	key := q.keys.Lane(lane)
	node, err := q.master(ctx, key)
	if err != nil {
		return 0, q.wrap("wait for replicas", err)
	}
	pipe := node.Pipeline()
	memo := pipe.Get(ctx, key)
	pipe.PExpire(ctx, key, laneTTL)
	acknowledged := pipe.Do(ctx, "WAIT", n, ceilMillis(timeout))
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		if cluster, ok := q.rdb.(*redis.ClusterClient); ok && replied(err, "MOVED", "ASK", "CLUSTERDOWN") {
			cluster.ReloadState(ctx) // a node's own client does not follow
		}
		return 0, q.wrap("wait for replicas", err)
	}
	number, _, _ := strings.Cut(memo.Val(), ":")
	if last, err := strconv.ParseInt(number, 10, 64); err != nil || last < call {
		return 0, q.wrap("wait for replicas", ErrForgotten)
	}
	got, err := acknowledged.Int()
	return got, q.wrap("wait for replicas", err)
}

// master returns a client whose pipelines go over one connection to the node that
// holds the key: a cluster client sends a command without keys to any node.
func (q *Queue) master(ctx context.Context, key string) (redis.UniversalClient, error) {
	if cluster, ok := q.rdb.(*redis.ClusterClient); ok {
		return cluster.MasterForKey(ctx, key)
	}
	return q.rdb, nil
}
