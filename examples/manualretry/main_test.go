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
	require.Equal(t, `REDIS_URL is not set: using a Redis inside this process.

mail-to-ann, attempt 1: retry in about 10ms
mail-to-ann, attempt 2: retry in about 60ms
mail-to-ann, attempt 3: done
mail-to-nobody, attempt 1: dead

ann: sent
nobody: redrive: job mail-to-nobody of task send.email failed (permanent after 0 retries): mail API: 422 Unprocessable Entity
`, out.String())
}
