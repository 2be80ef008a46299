package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOneRunsAndTheOtherIsToldWhoDoes(t *testing.T) {
	t.Setenv("REDIS_URL", "")
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out))
	require.Regexp(t, `^first job:  running
second job: already_running
  key    catalogue/42
  holder job [0-9a-f-]{36} at \S+-[0-9a-f]{16}
  since  \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S*
first job:  completed
third job:  completed
late write of the first job: refused: a later holder has written
$`, out.String())
}
