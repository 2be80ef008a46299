package redrive_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
)

func TestRedriveMovesWhatMatchesAtItsRate(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		letters, rate := 1000, 500.0
		if os.Getenv("REDRIVE_LONG") != "" && b.Real() {
			letters = 10_000
		}
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{MaxCount: redrive.KeepAll})
		m.bury(brittle, letters)
		keep := m.bury(frail, 3)
		only := redrive.DeadLetterFilter{Task: "brittle"}
		dry, err := m.letters().Redrive(m.ctx(), redrive.RedriveOptions{Filter: only, DryRun: true})
		require.NoError(t, err)
		require.Equal(t, letters, dry.Moved)
		require.EqualValues(t, letters+3, m.stats("default").Dead)

		// Stopped in the middle, and gone on with: jobs that die again, as these all
		// do, are not redriven in the same run.
		ctx, cancel := context.WithCancel(context.Background())
		steps := 0
		first, err := m.letters().Redrive(ctx, redrive.RedriveOptions{Filter: only, Rate: rate, Progress: func(r redrive.RedriveReport) {
			if steps++; r.Moved >= letters/4 {
				cancel()
			}
		}})
		require.ErrorIs(t, err, context.Canceled)
		require.Greater(t, steps, 5, "in steps")
		only.Until = first.Until
		wide, stop := context.WithTimeout(context.Background(), 2*time.Minute)
		defer stop()
		second, err := m.letters().Redrive(wide, redrive.RedriveOptions{Filter: only, Rate: rate})
		require.NoError(t, err)
		require.Equal(t, letters, first.Moved+second.Moved)
		for _, r := range []redrive.RedriveReport{first, second} {
			require.InDelta(t, rate, float64(r.Moved)/r.Elapsed.Seconds(), rate/10, "letters a second")
		}
		m.eventually(func(s redrive.QueueStats) bool { return s.Ready+s.Active == 0 && s.Dead == int64(letters+3) }, "not all dead again")
		m.mu.Lock()
		defer m.mu.Unlock()
		for id, n := range m.runs {
			if m.last[id].Task == "brittle" {
				require.Equal(t, 2, n, "job %s", id)
			}
		}
		require.Equal(t, 2, m.runs[keep[0]], "a letter that did not match was moved")
	})
}

func init() {
	redistest.RegisterSubprocess("redriver", func() {
		client := processClient()
		_, err := client.DeadLetters("default").Redrive(context.Background(), redrive.RedriveOptions{Rate: 400, Progress: func(r redrive.RedriveReport) {
			fmt.Println("moved", r.Moved)
		}})
		fmt.Println("done", err)
	})
}

func TestI6_ARedriveThatIsKilledNeitherDoublesNorLoses(t *testing.T) {
	t.Parallel()
	m := newMorgue(t, newRig(t, redistest.Redis(t)), redrive.DeadLetterOptions{})
	const letters = 1500
	ids := m.bury(brittle, letters)
	m.fixed.Store(true)
	for range 3 { // each goes on where the one before was killed, wherever that was
		p := m.subprocess("redriver")
		for range 5 {
			p.WaitLine("moved ")
		}
		time.Sleep(rand.N(50 * time.Millisecond))
		p.Kill()
		require.Positive(t, m.stats("default").Dead, "it was through already")
	}
	_, err := m.letters().Redrive(m.ctx(), redrive.RedriveOptions{})
	require.NoError(t, err)
	m.drained()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		require.Equal(t, 2, m.runs[id], "job %s", id)
	}
	s := m.stats("default")
	require.EqualValues(t, letters, s.Succeeded)
	require.Zero(t, s.Dead)
}

func TestRedriveTakesTheOldestUpToItsLimit(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{})
		m.bury(brittle, 20)
		m.bury(frail, 5)
		ids := m.list(redrive.DeadLetterFilter{Task: "brittle"})
		m.fixed.Store(true)
		first := redrive.DeadLetterFilter{Task: "brittle", Limit: 7}
		dry, err := m.letters().Redrive(m.ctx(), redrive.RedriveOptions{Filter: first, DryRun: true})
		require.NoError(t, err)
		require.Equal(t, []int{7, 7}, []int{dry.Matched, dry.Moved})
		before := m.stats("default")
		require.EqualValues(t, 25, before.Dead, "a dry run changes nothing")
		require.Zero(t, before.Requeued)
		report, err := m.letters().Redrive(m.ctx(), redrive.RedriveOptions{Filter: first})
		require.NoError(t, err)
		require.Equal(t, []int{7, 7}, []int{report.Matched, report.Moved})
		m.drained()
		require.Equal(t, ids[7:], m.list(redrive.DeadLetterFilter{Task: "brittle"}))
		require.Len(t, m.list(redrive.DeadLetterFilter{Task: "frail"}), 5)
		byText, err := m.letters().Redrive(m.ctx(), redrive.RedriveOptions{
			Filter: redrive.DeadLetterFilter{Reason: redrive.ReasonExhausted, ErrorContains: "frail 3 "},
		})
		require.NoError(t, err)
		require.Equal(t, 1, byText.Moved)
		m.drained()
		require.EqualValues(t, 8, m.stats("default").Succeeded)
	})
}

func TestTwoRedrivesShareTheLetters(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{})
		const letters = 1200
		ids := m.bury(brittle, letters)
		m.fixed.Store(true)
		var wg sync.WaitGroup
		var reports [2]redrive.RedriveReport
		var errs [2]error
		for i := range reports {
			wg.Go(func() { reports[i], errs[i] = m.letters().Redrive(m.ctx(), redrive.RedriveOptions{Rate: 2000}) })
		}
		wg.Wait()
		require.NoError(t, errors.Join(errs[:]...))
		require.Equal(t, letters, reports[0].Moved+reports[1].Moved)
		m.drained()
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, id := range ids {
			require.Equal(t, 2, m.runs[id], "job %s", id)
		}
	})
}
