//go:build !race

package store

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Budgets per job of a batch of 50, calls of go-redis included; its reading of
// the reply, one string for each element, is not in them.

func budget(t *testing.T, perJob float64, what string, f func() error) {
	t.Helper()
	allocs := testing.AllocsPerRun(200, func() {
		if err := f(); err != nil {
			t.Error(err)
		}
	})
	require.LessOrEqual(t, allocs/hotBatch, perJob, what)
}

func TestClaimDecodeStaysInItsAllocationBudget(t *testing.T) {
	q := cannedQueue(t, claimReply())
	budget(t, 0.4, "claim: one slice for all jobs", func() error {
		_, err := q.Claim(t.Context(), ClaimCall{Worker: "w", Call: 1, N: hotBatch})
		return err
	})
}

func TestFinishStaysInItsAllocationBudget(t *testing.T) {
	q, done := cannedQueue(t, []string{""}), hotDone()
	budget(t, 0.5, "finish: id and token as arguments", func() error {
		_, err := q.Finish(t.Context(), Settler{Worker: "w", Call: "1"}, Succeeded, done)
		return err
	})
}

func TestEnqueueStaysInItsAllocationBudget(t *testing.T) {
	q, jobs := cannedQueue(t, ""), hotNewJobs()
	budget(t, 0.5, "enqueue: pointers to id and envelope as arguments", func() error {
		_, err := q.Enqueue(t.Context(), "lane", 1, false, jobs)
		return err
	})
}
