package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
)

// The calls of a reaper have the worker's name in them, and names may have colons.
func TestI6_ACallWithColonsIsRemembered(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		ctx := t.Context()
		q := store.Open(b.Client(), b.Prefix, "q")
		_, err := q.Enqueue(ctx, "lane", 1, true, []store.NewJob{{ID: "a", Envelope: []byte("x")}})
		require.NoError(t, err)
		_, err = q.Beat(ctx, "host:1", time.Minute)
		require.NoError(t, err)
		c, err := q.Claim(ctx, store.ClaimCall{Worker: "host:1", Call: 1, N: 1})
		require.NoError(t, err)
		jobs := []store.Done{
			{Owned: store.Owned{ID: "nobody's", Token: "1"}},
			{Owned: store.Owned{ID: "a", Token: c.Jobs[0].Token}},
		}
		for range 2 {
			s, err := q.Finish(ctx, store.Settler{Worker: "host:1", Call: "host:1/1"}, store.Succeeded, jobs)
			require.NoError(t, err)
			require.Equal(t, []int{0}, s.Refused, "the call sent again has another answer")
		}
	})
}
