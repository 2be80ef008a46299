package memredis

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A pass over all keys for every command would make a command on a large
// database cost milliseconds.
func TestAgeingTakesABoundedShareOfTheTime(t *testing.T) {
	s, err := Start()
	require.NoError(t, err)
	defer s.Close()
	ctx, rdb := t.Context(), s.Client()
	_, err = rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range 20_000 {
			p.Set(ctx, fmt.Sprint("k", i), "v", time.Hour)
		}
		return nil
	})
	require.NoError(t, err)

	const calls = 500
	s.age()
	begun := time.Now()
	for range calls {
		require.NoError(t, rdb.Get(ctx, "k1").Err())
	}
	took := time.Since(begun)
	s.ageMu.Lock()
	pass := s.rest / ageShare
	s.ageMu.Unlock()
	require.Positive(t, pass)
	require.Less(t, took, calls*pass/2, "one pass takes %v", pass)
}

func TestExpiryIsNotPutOffByABusyServer(t *testing.T) {
	s, err := Start()
	require.NoError(t, err)
	defer s.Close()
	ctx, rdb := t.Context(), s.Client()
	begun := time.Now()
	require.NoError(t, rdb.Set(ctx, "k", "v", 100*time.Millisecond).Err())
	for rdb.Get(ctx, "k").Err() == nil { // commands without a pause
		require.Less(t, time.Since(begun), 10*time.Second)
	}
	require.GreaterOrEqual(t, time.Since(begun), 95*time.Millisecond)
}
