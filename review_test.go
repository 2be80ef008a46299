package redrive_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/faultnet"
	"github.com/redrive-go/redrive/internal/redistest"
)

func TestReviewsComeBackWhenTheReviewerDies(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{})
		ids := m.bury(brittle, 4)
		const lease = 700 * time.Millisecond
		mine, err := m.letters().Review(m.ctx(), "brittle", 3, lease)
		require.NoError(t, err)
		require.Len(t, mine, 3)
		rest, err := m.letters().Review(m.ctx(), "brittle", 10, time.Minute)
		require.NoError(t, err)
		require.Len(t, rest, 1, "what is under review is nobody else's")
		require.NoError(t, rest[0].Release(m.ctx()))
		m.fixed.Store(true)
		require.NoError(t, mine[0].Resolve(m.ctx()))
		require.NoError(t, mine[1].Requeue(m.ctx()))
		// The reviewer dies over the third one.
		var again []*redrive.ReviewedLetter
		require.Eventually(t, func() bool {
			got, err := m.letters().Review(m.ctx(), "brittle", 10, time.Minute)
			require.NoError(t, err)
			again = append(again, got...)
			return len(again) == 2
		}, patience, 20*time.Millisecond)
		require.ErrorIs(t, mine[2].Resolve(m.ctx()), redrive.ErrReviewLost)
		for _, r := range again {
			require.Contains(t, ids, r.TaskID)
			require.NoError(t, r.Resolve(m.ctx()))
		}
		m.drained()
		s := m.stats("default")
		require.Zero(t, s.Dead)
		require.EqualValues(t, 3, s.Drained)
		require.EqualValues(t, 1, s.Succeeded)
	})
}

// reviewerLease outlasts the start of the review's witnesses, on a slow machine too.
const reviewerLease = 3 * time.Second

func init() {
	redistest.RegisterSubprocess("reviewer", func() {
		got, err := processClient().DeadLetters("default").Review(context.Background(), "brittle", 20, reviewerLease)
		for i, r := range got {
			fmt.Println("has", r.TaskID)
			if i < 5 {
				err = errors.Join(err, r.Resolve(context.Background()))
				fmt.Println("resolved", r.TaskID)
			}
		}
		fmt.Println("thinks", err)
		select {}
	})
}

func TestAReviewersProcessThatIsKilledLosesNoLetter(t *testing.T) {
	t.Parallel()
	m := newMorgue(t, newRig(t, redistest.Redis(t)), redrive.DeadLetterOptions{})
	m.bury(brittle, 25)
	ids := m.list(redrive.DeadLetterFilter{}) // in the order of their deaths
	p := m.subprocess("reviewer")
	for i := range 20 {
		require.Equal(t, ids[i], p.WaitLine("has "), "oldest first")
	}
	took := time.Now() // it took them before
	require.Equal(t, "<nil>", p.WaitLine("thinks "))
	p.Kill()

	seen := make(map[string]int)
	collect := func() {
		got, err := m.letters().Review(m.ctx(), "brittle", 100, time.Minute)
		require.NoError(t, err)
		for _, r := range got {
			seen[r.TaskID]++
		}
	}
	collect()
	if time.Since(took) < reviewerLease/2 {
		require.Len(t, seen, 5, "what a dead reviewer holds is nobody else's before the lease lapses")
	}
	require.Eventually(t, func() bool { collect(); return len(seen) >= 20 }, patience, 20*time.Millisecond)
	for i, id := range ids {
		want := 1
		if i < 5 {
			want = 0 // resolved
		}
		require.Equal(t, want, seen[id], "letter %d", i)
	}
	require.EqualValues(t, 20, m.stats("default").Dead, "a review removes nothing")
}

// TestI6_AReviewAndEachOfItsEndsSurviveLostReplies loses the k-th reply of a review,
// until there is no k-th.
func TestI6_AReviewAndEachOfItsEndsSurviveLostReplies(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{})
		lossy, proxy := faulty(t, b, 1)
		k := 1
		for more := true; more; k++ {
			m.fixed.Store(false)
			ids := m.bury(brittle, 3)
			m.fixed.Store(true)
			before := m.stats("default")
			lost := proxy.DropReply(faultnet.Commands("evalsha", "eval"), k)
			got, err := lossy.client.DeadLetters("default").Review(m.ctx(), "brittle", 10, time.Minute)
			require.NoError(t, err, "reply %d", k)
			require.Len(t, got, 3, "reply %d", k)
			require.NoError(t, got[0].Resolve(m.ctx()), "reply %d", k)
			require.NoError(t, got[1].Requeue(m.ctx()), "reply %d", k)
			require.NoError(t, got[2].Release(m.ctx()), "reply %d", k)
			more = lost.Hits() > 0
			lost.Remove()
			m.drained()
			require.Equal(t, []string{got[2].TaskID}, m.list(redrive.DeadLetterFilter{}), "reply %d", k)
			n, err := m.letters().Delete(m.ctx(), ids...)
			require.NoError(t, err, "released, so anybody's: reply %d", k)
			require.Equal(t, 1, n)
			s := m.stats("default")
			require.EqualValues(t, 1, s.Drained-before.Drained, "reply %d", k)
			require.EqualValues(t, 1, s.Requeued-before.Requeued, "reply %d", k)
			require.EqualValues(t, 1, s.Succeeded-before.Succeeded, "reply %d", k)
			m.b.Audit()
		}
		require.Greater(t, k-1, 4, "review, resolve, requeue and release are a call each")
	})
}
