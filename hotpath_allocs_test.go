//go:build !race

package redrive

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Allocations are what a job's cost in Go follows, and they can be counted where
// a clock cannot be trusted. A budget that fails is to be won back, or raised with
// a reason. The race detector makes pools forget, hence the build constraint.

func TestHandlerChainStaysInItsAllocationBudget(t *testing.T) {
	h, m := hotHandler(nil), hotMessage()
	allocs := testing.AllocsPerRun(1000, func() {
		if _, err := h.Process(t.Context(), m); err != nil {
			t.Error(err)
		}
	})
	require.LessOrEqual(t, allocs, 10.0, "per job: decode, timeout, Retry, handler")
}

func TestEncodeJobStaysInItsAllocationBudget(t *testing.T) {
	c, args := hotClient(t), []hotArgs{{Data: strings.Repeat("x", 89)}}
	allocs := testing.AllocsPerRun(1000, func() {
		if _, err := hotTask.encode(c, args, &EnqueueOptions{Queue: "default"}); err != nil {
			t.Error(err)
		}
	})
	require.LessOrEqual(t, allocs, 6.0, "per job: payload, id, envelope, slice of jobs")
}
