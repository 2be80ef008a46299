package redrive_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/faultnet"
	"github.com/redrive-go/redrive/internal/redistest"
)

// TestI6_EveryDeadLetterScriptsReplyIsLost loses the reply of the k-th call of each
// operation.
func TestI6_EveryDeadLetterScriptsReplyIsLost(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		clean := newRig(t, b)
		m := newMorgue(t, clean, redrive.DeadLetterOptions{})
		lossy, proxy := faulty(t, b, 1)
		d := lossy.client.DeadLetters("default")
		ops := map[string]func(ids []string) error{
			"delete":  func(ids []string) error { _, err := d.Delete(m.ctx(), ids...); return err },
			"purge":   func([]string) error { _, err := d.Purge(m.ctx(), redrive.DeadLetterFilter{}); return err },
			"requeue": func(ids []string) error { _, err := d.Requeue(m.ctx(), ids...); return err },
			"redrive": func([]string) error { _, err := d.Redrive(m.ctx(), redrive.RedriveOptions{}); return err },
			"review": func(ids []string) error {
				rs, err := d.Review(m.ctx(), "brittle", 10, time.Minute)
				for _, r := range rs {
					if e := r.Requeue(m.ctx()); e != nil && !errors.Is(e, redrive.ErrReviewLost) {
						return e
					}
				}
				return err
			},
		}
		for name, op := range ops {
			for k := 1; k <= 4; k++ {
				m.fixed.Store(false)
				ids := m.bury(brittle, 3)
				m.fixed.Store(true)
				before := m.stats("default")
				lost := proxy.DropReply(faultnet.Commands("evalsha", "eval"), k)
				require.NoError(t, op(ids), "%s, call %d", name, k)
				lost.Remove()
				m.drained()
				s := m.stats("default")
				require.Zero(t, s.Dead, "%s, call %d", name, k)
				again := s.Succeeded - before.Succeeded
				if strings.Contains("requeue redrive review", name) {
					require.EqualValues(t, 3, again, "%s, call %d", name, k)
					require.EqualValues(t, 3, s.Requeued-before.Requeued)
				} else {
					require.Zero(t, again)
					require.EqualValues(t, 3, s.Deleted-before.Deleted)
				}
			}
		}
	})
}

// TestI6_HooksAndRetentionSurviveLostReplies loses the k-th reply of a worker that
// buries, calls hooks and drops.
func TestI6_HooksAndRetentionSurviveLostReplies(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		lossy, proxy := faulty(t, b, 1)
		var mu sync.Mutex
		heard, dropped := make(map[string]int), 0
		m := newMorgue(t, lossy, redrive.DeadLetterOptions{
			MaxCount: 4,
			OnDead: func(_ context.Context, e *redrive.DeadLetterEntry) error {
				mu.Lock()
				defer mu.Unlock()
				heard[e.TaskID]++
				return nil
			},
			OnDrop: func(_ context.Context, _, _ string, n int) {
				mu.Lock()
				defer mu.Unlock()
				dropped += n
			},
		})
		m.rig = newRig(t, b) // only the worker is lossy
		const rounds = 12
		hits := 0
		for k := 1; k <= rounds; k++ {
			lost := proxy.DropReply(faultnet.Commands("evalsha", "eval"), k)
			ids := m.bury(brittle, 2)
			require.Eventually(t, func() bool {
				mu.Lock()
				defer mu.Unlock()
				return heard[ids[0]] > 0 && heard[ids[1]] > 0
			}, patience, time.Millisecond, "reply %d", k)
			hits += lost.Hits()
			lost.Remove()
		}
		m.eventually(func(s redrive.QueueStats) bool { return s.Dead == 4 && s.Dropped == 2*rounds-4 }, "not trimmed")
		require.Eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return dropped == 2*rounds-4 }, patience, time.Millisecond)
		require.Greater(t, hits, rounds/2, "hardly any reply was lost")
		require.EqualValues(t, 2*rounds, m.stats("default").Died)
	})
}
