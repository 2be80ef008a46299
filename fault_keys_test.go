package redrive_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/wire"
)

// wound deletes the keys of the queue that match, and reports how many there were.
func (r *rig) wound(pattern string) (n int) {
	r.t.Helper()
	keys, err := r.rdb.Keys(r.ctx(), r.b.Prefix+":{default}:"+pattern).Result()
	require.NoError(r.t, err)
	for _, key := range keys {
		require.NoError(r.t, r.rdb.Del(r.ctx(), key).Err())
	}
	return len(keys)
}

// TestFault_KeysDeletedByHand deletes each key of a queue in turn, while one job runs,
// one waits, one is delayed and one has failed before. The worker survives, the job that
// runs ends, and a job that is enqueued afterwards runs. What becomes of the others is
// what the key held of them; nothing runs twice.
func TestFault_KeysDeletedByHand(t *testing.T) {
	t.Parallel()
	const all = "delayed failed fresh running waiting"
	for key, want := range map[string]struct {
		ran     string // in order of name
		dead    string // buried as malformed
		retries int    // that the failed job remembers
		lost    int    // ends that were refused
		left    int64  // payloads that nobody runs
	}{
		"ready":   {"delayed fresh running", "", 0, 0, 2},
		"jobs":    {"fresh running", "delayed failed waiting", 0, 0, 0},
		"ledger":  {all, "", 0, 0, 0},
		"delayed": {"failed fresh running waiting", "", 2, 0, 1},
		"workers": {all, "", 2, 0, 0},
		"w:*":     {all, "", 2, 1, 1}, // the job that ran did so, and cannot say so
		"stats":   {all, "", 2, 0, 0},
		"bell":    {all, "", 2, 0, 0},
		"p:*":     {all, "", 2, 0, 0},
	} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, redistest.Redis(t))
			var mu sync.Mutex
			runs, retries, lost := make(map[string]int), 0, 0
			began, finish := make(chan struct{}, 1), make(chan struct{})
			mux := redrive.NewMux()
			act.Handle(mux, func(_ context.Context, j *redrive.Job[string]) (string, error) {
				mu.Lock()
				runs[j.ID]++
				if j.ID == "failed" {
					retries = j.Retries
				}
				mu.Unlock()
				if j.ID == "running" {
					began <- struct{}{}
					<-finish
				}
				return "", nil
			})
			enqueue := func(id string, delay time.Duration) *redrive.Receipt[string] {
				receipt, err := act.Enqueue(r.ctx(), r.client, "", &redrive.EnqueueOptions{ID: id, Delay: delay})
				require.NoError(t, err)
				return receipt
			}
			enqueue("running", 0)
			w := r.start(mux, redrive.WorkerOptions{Concurrency: 1, Lease: 2 * time.Second, Trace: &redrive.WorkerTrace{
				JobLost: func(*redrive.Message) { mu.Lock(); defer mu.Unlock(); lost++ },
			}})
			receive(t, began, "start")
			enqueue("waiting", 0)
			enqueue("failed", 0)
			ledger := wire.Ledger{Retries: 2}
			require.NoError(t, r.rdb.HSet(r.ctx(), r.b.Prefix+":{default}:ledger", "failed", ledger.Append(nil)).Err())
			enqueue("delayed", 300*time.Millisecond)
			require.Positive(t, r.wound(key))
			close(finish)
			_, err := enqueue("fresh", 0).Wait(r.ctx())
			require.NoError(t, err)
			r.eventually(func(s redrive.QueueStats) bool {
				return s.Ready+s.Delayed == 0 && s.Active <= want.left && s.Dead == int64(len(strings.Fields(want.dead)))
			}, "the queue does not drain")
			require.NoError(t, w.stop())

			mu.Lock()
			defer mu.Unlock()
			var ran, dead []string
			for id, n := range runs {
				require.Equal(t, 1, n, id)
				ran = append(ran, id)
			}
			slices.Sort(ran)
			require.Equal(t, want.ran, strings.Join(ran, " "))
			for e, err := range r.client.DeadLetters(redrive.DefaultQueue).All(r.ctx(), redrive.DeadLetterFilter{}) {
				require.NoError(t, err)
				require.Equal(t, redrive.ReasonMalformed, e.Reason)
				dead = append(dead, e.TaskID)
			}
			slices.Sort(dead)
			require.Equal(t, want.dead, strings.Join(dead, " "))
			require.Equal(t, want.retries, retries)
			require.Equal(t, want.lost, lost)
			require.Equal(t, want.left, r.rdb.HLen(r.ctx(), r.b.Prefix+":{default}:jobs").Val())
			r.wound("*") // what was done by hand is not in order
		})
	}
}

// TestFault_KeysOfDeadLettersDeletedByHand deletes each key of the dead letters: every
// operation on them ends, and letters that come afterwards are in order.
func TestFault_KeysOfDeadLettersDeletedByHand(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"dead", "letters", "dead:act", "why:permanent", "deadtasks", "reviews", "m:*"} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, redistest.Redis(t), mishap{}, "")
			ids := s.buried(4)
			d := s.client.DeadLetters(redrive.DefaultQueue)
			under, err := d.Review(s.ctx(), "act", 1, time.Minute)
			require.NoError(t, err)
			require.Len(t, under, 1)
			require.Positive(t, s.clean.wound(key))
			for e, err := range d.All(s.ctx(), redrive.DeadLetterFilter{Task: "act"}) {
				require.True(t, err == nil || e != nil, "the list breaks off: %v", err)
			}
			_, err = d.Counts(s.ctx())
			require.NoError(t, err)
			_, err = d.Get(s.ctx(), ids[3])
			require.True(t, err == nil || errors.Is(err, redrive.ErrNoDeadLetter), "%v", err)
			if err := under[0].Release(s.ctx()); err != nil {
				require.ErrorIs(t, err, redrive.ErrReviewLost)
			}
			_, _ = d.Requeue(s.ctx(), ids[0]) // may say that the indexes are damaged, and ends
			_, err = d.Purge(s.ctx(), redrive.DeadLetterFilter{})
			require.NoError(t, err)
			_, err = d.Drain(s.ctx(), "act", 9)
			require.NoError(t, err)
			s.clean.wound("*")

			s.runs = make(map[string]int)
			fresh := s.buried(2)
			n, err := d.Requeue(s.ctx(), fresh...)
			require.NoError(t, err)
			require.Equal(t, 2, n)
			require.Equal(t, "permanent:2 revived:2 enqueued=2 succeeded=2 died=2 requeued=2", s.revived())
		})
	}
}
