package store_test

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/store"
)

// What scenes put on the stage before the call.

// ms is a time of the stage's clock.
func (s *stage) ms(d time.Duration) int64 { return int64(s.clock)/1000 + d.Milliseconds() }

// us is a token of that time.
func (s *stage) us(d time.Duration) string { return fmt.Sprint(int64(s.clock) + d.Microseconds()) }

// set performs commands that must succeed.
func (s *stage) set(f func(ctx context.Context, p redis.Pipeliner)) {
	s.t.Helper()
	ctx := s.t.Context()
	_, err := s.bare.Pipelined(ctx, func(p redis.Pipeliner) error {
		f(ctx, p)
		return nil
	})
	require.NoError(s.t, err)
}

func (s *stage) hset(key string, pairs ...any) {
	s.t.Helper()
	s.set(func(ctx context.Context, p redis.Pipeliner) { p.HSet(ctx, key, pairs...) })
}

func (s *stage) zadd(key string, score int64, members ...string) {
	s.t.Helper()
	s.set(func(ctx context.Context, p redis.Pipeliner) {
		for _, m := range members {
			p.ZAdd(ctx, key, redis.Z{Score: float64(score), Member: m})
		}
	})
}

func (s *stage) push(key string, values ...any) {
	s.t.Helper()
	s.set(func(ctx context.Context, p redis.Pipeliner) { p.RPush(ctx, key, values...) })
}

func (s *stage) payloads(ids ...string) {
	s.t.Helper()
	for _, id := range ids {
		s.hset(s.keys.Jobs, id, "payload-"+id)
	}
}

// ready has jobs wait.
func (s *stage) ready(ids ...string) {
	s.t.Helper()
	s.payloads(ids...)
	for _, id := range ids {
		s.push(s.keys.Ready, id)
	}
}

// delayed has jobs wait until a time of the stage's clock.
func (s *stage) delayed(due time.Duration, ids ...string) {
	s.t.Helper()
	s.payloads(ids...)
	s.zadd(s.keys.Delayed, s.ms(due), ids...)
}

// lease gives workers a lease that ends then.
func (s *stage) lease(ends time.Duration, workers ...string) {
	s.t.Helper()
	s.zadd(s.keys.Workers, s.ms(ends), workers...)
	s.zadd(s.keys.Owners, 0, workers...)
}

// owns has a live worker own jobs.
func (s *stage) owns(worker, token string, ids ...string) {
	s.t.Helper()
	s.lease(30*time.Second, worker)
	s.payloads(ids...)
	for _, id := range ids {
		s.hset(s.keys.Worker(worker), id, token)
	}
}

// buried makes dead letters that died then.
func (s *stage) buried(task, reason string, died time.Duration, ids ...string) {
	s.t.Helper()
	k := &s.keys
	s.set(func(ctx context.Context, p redis.Pipeliner) {
		for _, id := range ids {
			z := redis.Z{Score: float64(s.ms(died)), Member: id}
			p.HSet(ctx, k.Letters, id, "letter-"+id)
			p.ZAdd(ctx, k.Dead, z)
			p.ZAdd(ctx, k.DeadTask(task), z)
			p.ZAdd(ctx, k.Why(reason), z)
		}
		p.ZAdd(ctx, k.DeadTasks, redis.Z{Member: task})
	})
}

// hooked has a hook wait for letters, the first of which is due then.
func (s *stage) hooked(task string, due time.Duration, ids ...string) {
	s.t.Helper()
	s.zadd(s.keys.TaskHooks(task), s.ms(due), ids...)
	s.zadd(s.keys.Hooks, s.ms(due), task)
}

// ids are as many names of one length.
func ids(n int) []string { return expand("001", fmt.Sprintf("%03d", n), "j#") }

// owned pairs ids with a token.
func owned(token string, ids ...string) []store.Owned {
	out := make([]store.Owned, len(ids))
	for i, id := range ids {
		out[i] = store.Owned{ID: id, Token: token}
	}
	return out
}

// call makes the call of the scene.
func call[T any](s *stage, f func(context.Context) (T, error)) T {
	s.t.Helper()
	v, err := f(s.t.Context())
	require.NoError(s.t, err)
	return v
}

// raw makes the call of the scene with arguments of its own.
func (s *stage) raw(script string, keys []string, argv ...any) {
	s.t.Helper()
	require.NoError(s.t, store.TranscriptScripts()[script].Eval(s.t.Context(), s.rdb, keys, argv...).Err())
}
