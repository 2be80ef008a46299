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

// TestI6_ASettleIsRememberedThoughTheClaimBehindItFails: the call that is sent again must
// not hear that its jobs are another's.
func TestI6_ASettleIsRememberedThoughTheClaimBehindItFails(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		p := newProtocol(t, b, b.Client())
		for _, name := range []string{"finish", "put back", "bury"} {
			p.enqueue("a-"+name[:1], "b-"+name[:1])
			mine := p.claim("w", 1)[0]
			s := p.settler("w")
			s.Next = &store.ClaimCall{Worker: "w", Call: p.next(), N: 1}
			end := p.ends(s, ownedBy(mine))[name]
			require.NoError(t, p.rdb.Rename(p.ctx, p.key("ready"), p.key("kept")).Err())
			require.NoError(t, p.rdb.HSet(p.ctx, p.key("ready"), "wrong", 1).Err())
			_, err := end(p.ctx)
			require.ErrorContains(t, err, "WRONGTYPE", name)
			require.NoError(t, p.rdb.Rename(p.ctx, p.key("kept"), p.key("ready")).Err())
			settled, err := end(p.ctx)
			require.NoError(t, err, name)
			require.Empty(t, settled.Refused, name)
			require.Equal(t, []string{"b-" + name[:1]}, idsOf(settled.Claimed.Jobs))
		}
	})
}
