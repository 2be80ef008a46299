package model_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/redrive-go/redrive/internal/memnet"
	"github.com/redrive-go/redrive/internal/model"
	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
)

// backend is a Redis whose clock stands still unless it is moved.
type backend struct {
	name, prefix string
	rdb          redis.UniversalClient
	// pass sets the clock, ms since the epoch, and ages TTLs.
	pass func(ctx context.Context, now int64, by time.Duration) error
}

// inProcess starts a miniredis, whose clock can be set.
func inProcess(t *testing.T) backend {
	mini := miniredis.NewMiniRedis()
	first, err := mini.Dial() // starts it without a port
	require.NoError(t, err)
	require.NoError(t, first.Close())
	t.Cleanup(mini.Close)
	rdb := redis.NewClient(&redis.Options{
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			near, far := memnet.Pipe()
			mini.Server().ServeConn(far)
			return near, nil
		},
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	t.Cleanup(func() { _ = rdb.Close() })
	pass := func(_ context.Context, now int64, by time.Duration) error {
		mini.SetTime(time.UnixMilli(now).Add(model.Fraction))
		mini.FastForward(by)
		return nil
	}
	return backend{name: "embedded", prefix: "model", rdb: rdb, pass: pass}
}

// server uses a redis-server: scripts read the clock from a key, and TTLs are cut.
func server(t *testing.T) backend {
	r := redistest.Redis(t)
	b := backend{name: "redis", prefix: r.Prefix, rdb: r.Client()}
	clock := &scriptClock{key: b.prefix + "-clock", sums: map[string]string{}}
	t.Cleanup(func() { _ = b.rdb.Del(context.Background(), clock.key).Err() })
	b.rdb.AddHook(clock)
	b.pass = func(ctx context.Context, now int64, by time.Duration) error {
		if err := b.rdb.HSet(ctx, clock.key, "s", now/1000, "us", now%1000*1000+model.Fraction.Microseconds()).Err(); err != nil {
			return err
		}
		keys, err := b.keys(ctx)
		if err != nil || by == 0 {
			return err
		}
		left, err := each(ctx, b.rdb, keys, func(p redis.Pipeliner, _ int, key string) *redis.DurationCmd { return p.PTTL(ctx, key) })
		if err != nil {
			return err
		}
		_, err = b.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, key := range keys {
				if left := left[i].Val(); left > 0 {
					p.PExpire(ctx, key, left-by)
				}
			}
			return nil
		})
		return err
	}
	return b
}

func (b *backend) keys(ctx context.Context) ([]string, error) {
	var keys []string
	it := b.rdb.Scan(ctx, 0, b.prefix+":*", 1000).Iterator()
	for it.Next(ctx) {
		keys = append(keys, it.Val())
	}
	return keys, it.Err()
}

// each asks something about every key in one round trip.
func each[C redis.Cmder](ctx context.Context, rdb redis.UniversalClient, keys []string, ask func(p redis.Pipeliner, i int, key string) C) ([]C, error) {
	answers := make([]C, len(keys))
	_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, key := range keys {
			answers[i] = ask(p, i, key)
		}
		return nil
	})
	return answers, err
}

// open empties the queue, starts the clock and returns the queue.
func (b *backend) open(t *rapid.T) *queue {
	keys, err := b.keys(t.Context())
	require.NoError(t, err)
	if len(keys) > 0 {
		require.NoError(t, b.rdb.Del(t.Context(), keys...).Err())
	}
	require.NoError(t, b.pass(t.Context(), model.Start, 0))
	return &queue{t: t, b: b, q: store.Open(b.rdb, b.prefix, "q"), now: model.Start}
}

// dump reads all that the queue holds, by the last part of its key's name.
func (q *queue) dump() map[string]any {
	ctx, rdb, dump := q.t.Context(), q.b.rdb, map[string]any{}
	keys, err := q.b.keys(ctx)
	require.NoError(q.t, err)
	types, err := each(ctx, rdb, keys, func(p redis.Pipeliner, _ int, key string) *redis.StatusCmd { return p.Type(ctx, key) })
	require.NoError(q.t, err)
	left, err := each(ctx, rdb, keys, func(p redis.Pipeliner, _ int, key string) *redis.DurationCmd { return p.PTTL(ctx, key) })
	require.NoError(q.t, err)
	values, err := each(ctx, rdb, keys, func(p redis.Pipeliner, i int, key string) redis.Cmder {
		switch types[i].Val() {
		case "hash":
			return p.HGetAll(ctx, key)
		case "list":
			return p.LRange(ctx, key, 0, -1)
		case "zset":
			return p.ZRangeWithScores(ctx, key, 0, -1)
		}
		return p.Get(ctx, key)
	})
	require.NoError(q.t, err)
	for i, key := range keys {
		var value any
		switch cmd := values[i].(type) {
		case *redis.MapStringStringCmd:
			value = cmd.Val()
		case *redis.StringSliceCmd:
			value = cmd.Val()
		case *redis.ZSliceCmd:
			scores := map[string]int64{}
			for _, z := range cmd.Val() {
				scores[z.Member.(string)] = int64(z.Score)
			}
			value = scores
		case *redis.StringCmd:
			value = cmd.Val()
		}
		if left := left[i].Val(); left > 0 {
			value = fmt.Sprint(value) + model.TTL(left)
		}
		dump[strings.TrimPrefix(key, q.b.prefix+":{q}:")] = value
	}
	return dump
}

// state shows a dump as the model shows its state.
func (q *queue) state(dump map[string]any) map[string]string {
	state := map[string]string{}
	for key, value := range dump {
		kind, _, _ := strings.Cut(key, ":")
		switch kind {
		case "w":
			owned := map[string]string{}
			for id, token := range value.(map[string]string) {
				if !strings.HasPrefix(id, "#") {
					owned[id] = q.name(token)
				}
			}
			value = owned
		case "stats":
			counters := map[string]string{}
			for name, n := range value.(map[string]string) {
				if name != "token" {
					counters[name] = n
				}
			}
			value = counters
		case "p", "m":
			text := value.(string)
			value = "remembered" + text[strings.LastIndex(text, " for "):]
		}
		if hash, ok := value.(map[string]string); !ok || len(hash) > 0 {
			state[key] = fmt.Sprint(value)
		}
	}
	return state
}

// audit checks I5.
func (q *queue) audit() {
	found, err := store.Audit(q.t.Context(), q.b.rdb, q.b.prefix)
	require.NoError(q.t, err)
	require.Empty(q.t, found, "I5 on %s", q.b.name)
}
