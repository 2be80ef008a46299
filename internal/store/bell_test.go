package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
)

// Without a worker that listens, a bell that grew would wake the next ones for nothing.
func TestTheBellHoldsOneElementHoweverOftenItIsRung(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		ctx, rdb := t.Context(), b.Client()
		q := store.Open(rdb, b.Prefix, "q")
		for range 3 {
			require.NoError(t, q.Resume(ctx))
			require.NoError(t, q.Ring(ctx))
		}
		require.EqualValues(t, 1, rdb.LLen(ctx, b.Prefix+":{q}:bell").Val())
		rang, err := q.Listen(ctx, time.Second)
		require.NoError(t, err)
		require.True(t, rang)
		b.Audit()
	})
}
