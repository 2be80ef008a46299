package redrive_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
)

// A job that cannot be decoded is requeued, and still cannot: its story goes on.
func TestAMalformedJobKeepsItsHistoryWhenItDiesAgain(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		base := b.Prefix + ":{default}:"
		require.NoError(t, r.rdb.HSet(r.ctx(), base+"jobs", "garbage", "{{{").Err())
		require.NoError(t, r.rdb.RPush(r.ctx(), base+"ready", "garbage").Err())
		r.start(redrive.NewMux(), redrive.WorkerOptions{})
		letters := r.client.DeadLetters("default")
		for generation := range 3 {
			r.eventually(func(s redrive.QueueStats) bool { return s.Dead == 1 }, "not dead")
			e, err := letters.Get(r.ctx(), "garbage")
			require.NoError(t, err)
			require.Equal(t, generation, e.Generation)
			require.Len(t, e.Errors, generation+1)
			require.Equal(t, redrive.ReasonMalformed, e.Reason)
			require.Equal(t, "{{{", string(e.Raw))
			if generation == 2 {
				break
			}
			n, err := letters.Requeue(r.ctx(), "garbage")
			require.NoError(t, err)
			require.Equal(t, 1, n)
		}
	})
}
