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

SELECT by db.query, attempt 1, session 1
SELECT by db.query, attempt 2, session 2
SELECT by db.query, attempt 3, session 3
db.query: 42
SELECT by db.report, attempt 1, session 4
db.report failed: no such table (permanent)
sessions opened: 4, still open: 0
`, out.String())
}
