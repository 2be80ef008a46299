package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
)

// Each step is made twice with the same arguments: the second changes nothing and
// gets the same answer (I6).
func TestEffectGoesThroughItsStates(t *testing.T) {
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		ctx, rdb := t.Context(), b.Client()
		s := store.OpenIdempotency(rdb)
		key := func() string { return b.Keys()[0] }
		dump := func() map[string]string {
			if len(b.Keys()) == 0 {
				return nil
			}
			return rdb.HGetAll(ctx, key()).Val()
		}
		base := store.EffectClaim{
			Prefix: b.Prefix, Task: "pay", Key: "order 7", Owner: "q/a", Attempt: 10, Fingerprint: "f",
			Lease: time.Hour, TTL: time.Hour,
		}
		claim := func(c store.EffectClaim) (store.EffectState, int64, string) {
			t.Helper()
			before := dump()
			state, fence, text, err := s.Claim(ctx, &c)
			require.NoError(t, err)
			after := dump()
			if state != store.EffectClaimed {
				require.Equal(t, before, after, "a claim that was refused wrote")
			}
			again, fence2, text2, err := s.Claim(ctx, &c)
			require.NoError(t, err)
			require.Equal(t, state, again)
			require.Equal(t, fence, fence2)
			require.Equal(t, text, text2)
			require.Equal(t, after, dump(), "the second claim wrote")
			return state, fence, string(text)
		}
		held := func(f func(*store.EffectClaim) (bool, error), c store.EffectClaim) bool {
			t.Helper()
			before := dump()
			ok, err := f(&c)
			require.NoError(t, err)
			after := dump()
			if !ok {
				require.Equal(t, before, after, "a step that was refused wrote")
			}
			again, err := f(&c)
			require.NoError(t, err)
			require.Equal(t, ok, again)
			return ok
		}
		extend := func(c *store.EffectClaim) (bool, error) { return s.Extend(ctx, c) }
		complete := func(c *store.EffectClaim) (bool, error) { return s.Complete(ctx, c, []byte("result"), "") }
		with := func(f func(c *store.EffectClaim)) store.EffectClaim {
			c := base
			f(&c)
			return c
		}

		state, fence, _ := claim(base)
		require.Equal(t, store.EffectClaimed, state)
		base.Fence = fence
		require.Greater(t, rdb.PTTL(ctx, key()).Val(), base.Lease, "the record outlives its lease")

		other := with(func(c *store.EffectClaim) { c.Owner = "q/b" })
		state, _, _ = claim(other)
		require.Equal(t, store.EffectBusy, state)
		state, _, _ = claim(with(func(c *store.EffectClaim) { c.Owner, c.Fingerprint = "q/b", "g" }))
		require.Equal(t, store.EffectReused, state)

		// A later attempt of the job takes over at once; the earlier one can do nothing.
		later := with(func(c *store.EffectClaim) { c.Attempt = 11 })
		state, later.Fence, _ = claim(later)
		require.Equal(t, store.EffectClaimed, state)
		require.Greater(t, later.Fence, fence)
		state, _, _ = claim(base)
		require.Equal(t, store.EffectOvertaken, state)
		for name, c := range map[string]store.EffectClaim{
			"attempt": base,
			"fence":   with(func(c *store.EffectClaim) { c.Attempt = 11 }),
			"owner":   with(func(c *store.EffectClaim) { c.Attempt, c.Fence, c.Owner = 11, later.Fence, "q/b" }),
		} {
			require.False(t, held(extend, c), name)
			require.False(t, held(complete, c), name)
			before := dump()
			require.NoError(t, s.Release(ctx, &c))
			require.Equal(t, before, dump(), name)
		}
		require.True(t, held(extend, later))

		// A job that was edited takes its own claim over with another payload.
		edited := with(func(c *store.EffectClaim) { c.Attempt, c.Fingerprint = 12, "g" })
		state, edited.Fence, _ = claim(edited)
		require.Equal(t, store.EffectClaimed, state)
		require.NoError(t, s.Release(ctx, &edited))
		require.NoError(t, s.Release(ctx, &edited))
		require.Empty(t, b.Keys(), "released is absent")
		require.False(t, held(extend, edited))
		require.False(t, held(complete, edited))

		// A lease that lapses lets others in; until they come its holder may complete.
		short := with(func(c *store.EffectClaim) { c.Lease, c.Attempt = time.Millisecond, 13 })
		state, short.Fence, _ = claim(short)
		require.Equal(t, store.EffectClaimed, state)
		require.Greater(t, short.Fence, edited.Fence, "over a record that was gone")
		time.Sleep(20 * time.Millisecond)
		state, _, _ = claim(with(func(c *store.EffectClaim) { c.Owner, c.Fingerprint = "q/b", "g" }))
		require.Equal(t, store.EffectReused, state)
		other.Attempt = 1
		state, other.Fence, _ = claim(other)
		require.Equal(t, store.EffectClaimed, state)
		require.Greater(t, other.Fence, short.Fence)
		require.False(t, held(complete, short))

		require.True(t, held(complete, other))
		require.LessOrEqual(t, rdb.PTTL(ctx, key()).Val(), other.TTL, "the TTL runs from the completion")
		require.NoError(t, s.Release(ctx, &other))
		require.False(t, held(extend, other))
		for _, c := range []store.EffectClaim{base, other} {
			state, _, text := claim(c)
			require.Equal(t, store.EffectDone, state)
			require.Equal(t, "result", text)
		}
		state, _, _ = claim(edited)
		require.Equal(t, store.EffectReused, state)

		bare := with(func(c *store.EffectClaim) { c.Key = "order 8" })
		_, bare.Fence, _ = claim(bare)
		require.True(t, held(func(c *store.EffectClaim) (bool, error) { return s.Complete(ctx, c, nil, "too large") }, bare))
		state, _, text := claim(bare)
		require.Equal(t, store.EffectDoneBare, state)
		require.Equal(t, "too large", text)
	})
}

func TestEffectHasOneKeyPerPrefixTaskAndKey(t *testing.T) {
	b := redistest.Embedded(t)
	s := store.OpenIdempotency(b.Client())
	n := 0
	for _, prefix := range []string{b.Prefix, b.Prefix + ":idem", b.Prefix + ":x"} {
		for _, task := range []string{"a", "a:b", "b"} {
			for _, key := range []string{"", "b", "a:b", "}", "\x00", "\xff", "\xfe"} {
				state, _, _, err := s.Claim(t.Context(), &store.EffectClaim{Prefix: prefix, Task: task, Key: key, Lease: time.Hour, TTL: time.Hour})
				require.NoError(t, err)
				require.Equal(t, store.EffectClaimed, state)
				n++
				require.Len(t, b.Keys(), n, "%s %s %q", prefix, task, key)
			}
		}
	}
}

func TestEffectOfAKeyThatHoldsSomethingElseIsAnError(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		ctx, rdb := t.Context(), b.Client()
		s := store.OpenIdempotency(rdb)
		c := store.EffectClaim{Prefix: b.Prefix, Task: "a", Key: "k", Lease: time.Hour, TTL: time.Hour}
		_, _, _, err := s.Claim(ctx, &c)
		require.NoError(t, err)
		key := b.Keys()[0]
		require.NoError(t, rdb.Set(ctx, key, "x", 0).Err())
		_, _, _, err = s.Claim(ctx, &c)
		require.ErrorContains(t, err, "claim the idempotency key")
		require.ErrorContains(t, err, "WRONGTYPE")
		_, err = s.Extend(ctx, &c)
		require.ErrorContains(t, err, "extend the idempotency key")
		require.ErrorContains(t, err, "WRONGTYPE")
		require.False(t, store.Transient(err))
		require.Equal(t, "x", rdb.Get(ctx, key).Val())
	})
}
