package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOutput(t *testing.T) {
	t.Setenv("REDIS_URL", "")
	var out strings.Builder
	require.NoError(t, run(t.Context(), &out))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 5, out.String())
	require.Equal(t, "first job: runs alone with report-7", lines[1])
	require.Regexp(t, `^second job: discarded: redrive: already running: lock ".*report-7" is held by job \S+ at \S+ since \S+$`, lines[2])
	require.Equal(t, "first job: completed", lines[3])
	require.Equal(t, "the resource refused a write of the old holder: stale fencing token", lines[4])
}
