package store_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
)

func TestI10_ALocksTokensRiseThoughAllKeysAreLost(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		ctx, rdb := t.Context(), b.Client()
		l := store.OpenLock(rdb, b.Prefix, "scope", "name")
		last := int64(0)
		for i, owner := range []string{"a", "b", "c", "d"} {
			if i == 2 {
				require.NoError(t, rdb.Del(ctx, b.Keys()...).Err())
			}
			token, held, err := l.Acquire(ctx, owner, owner, time.Minute, 1)
			require.NoError(t, err)
			require.Nil(t, held)
			require.Greater(t, token, last)
			last = token
			released, err := l.Release(ctx, owner, time.Minute)
			require.NoError(t, err)
			require.True(t, released)
		}
	})
}

// TestI11_NobodyEndsOrRevivesTheHoldOfAnother has every call of a lock made by who
// does not hold it, before and after the hold lapses.
func TestI11_NobodyEndsOrRevivesTheHoldOfAnother(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		ctx, rdb := t.Context(), b.Client()
		l := store.OpenLock(rdb, b.Prefix, "scope", "name")
		holder := func() string {
			t.Helper()
			_, held, err := l.Acquire(ctx, "x", "x", time.Minute, 1)
			require.NoError(t, err)
			require.NotNil(t, held, "nobody holds it")
			return held.Holder
		}
		_, held, err := l.Acquire(ctx, "a", "a", time.Minute, 1)
		require.NoError(t, err)
		require.Nil(t, held)
		for _, f := range []func() (bool, error){
			func() (bool, error) { return l.Renew(ctx, "x", time.Minute) },
			func() (bool, error) { return l.Release(ctx, "never", time.Minute) },
		} {
			ok, err := f()
			require.NoError(t, err)
			require.False(t, ok)
			require.Equal(t, "a", holder())
		}

		// The hold of a lapses.
		for _, key := range b.Keys() {
			if rdb.Type(ctx, key).Val() == "zset" {
				require.NoError(t, rdb.ZAdd(ctx, key, redis.Z{Score: 1, Member: "a"}).Err())
			}
		}
		ok, err := l.Renew(ctx, "a", time.Minute)
		require.NoError(t, err)
		require.False(t, ok, "a hold that lapsed is not revived")
		_, held, err = l.Acquire(ctx, "b", "b", time.Minute, 1)
		require.NoError(t, err)
		require.Nil(t, held)
		ok, err = l.Renew(ctx, "a", time.Minute)
		require.NoError(t, err)
		require.False(t, ok)
		ok, err = l.Release(ctx, "a", time.Minute)
		require.NoError(t, err)
		require.False(t, ok)
		require.Equal(t, "b", holder())
	})
}
