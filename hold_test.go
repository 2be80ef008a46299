package redrive

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/faultnet"
	"github.com/redrive-go/redrive/internal/redistest"
)

// TestI11_TheContextsTimeCountsFromBeforeTheCall: Redis may have run an acquisition
// the moment it was sent, however late its answer comes.
func TestI11_TheContextsTimeCountsFromBeforeTheCall(t *testing.T) {
	t.Parallel()
	b := redistest.Embedded(t)
	o := b.Options()
	proxy := faultnet.NewDialer(t, o.Dialer, 1)
	o.Dialer, o.MaxRetries = proxy.Dialer(), -1
	rdb := redis.NewClient(o)
	defer rdb.Close()
	const ttl = time.Minute
	locker, err := NewLocker(rdb, LockerOptions{Prefix: b.Prefix, TTL: ttl})
	require.NoError(t, err)
	require.NoError(t, rdb.Ping(t.Context()).Err())
	const late = time.Second
	rule := proxy.Delay(faultnet.Commands("eval"), 1, late)
	before := time.Now()
	lock, err := locker.TryAcquire(t.Context(), "key")
	require.NoError(t, err)
	require.Equal(t, 1, rule.Hits())
	require.Greater(t, time.Since(before), late)
	live := lock.until.Load().Sub(before) // the hold may end a TTL after before
	require.Less(t, live, ttl*9/10+late/2)
	require.Greater(t, live, ttl/2)
	require.NoError(t, lock.Release(t.Context()))
}
