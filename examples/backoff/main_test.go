package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRetriesWhatTendsToPassAndNothingElse(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out))
	require.Equal(t, `The policy's waits for job rates-1: 575ms 1.778s 3.919s 4.43s 10.696s

rates-1, attempt 1: retry
rates-1, attempt 2: retry
rates-1, attempt 3: done
missing-1, attempt 1: dead

rates-1 answered: 1.25
missing-1 failed: 404 Not Found, permanent
`, out.String())
}
