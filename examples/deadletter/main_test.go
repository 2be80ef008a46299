package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOutput(t *testing.T) {
	t.Setenv("REDIS_URL", "")
	var out strings.Builder
	require.NoError(t, run(t.Context(), &out))
	got := regexp.MustCompile(`"timestamp": "[^"]+"`).ReplaceAllString(out.String(), `"timestamp": "WHEN"`)
	require.Equal(t, `REDIS_URL is not set: using a Redis inside this process.

{
  "args": {
    "file": "report-0.csv"
  },
  "error": "report-0.csv: unknown file format",
  "retries": 3,
  "task_id": "import-0",
  "task_name": "important.import",
  "timestamp": "WHEN"
}
reason: exhausted
attempt 1: report-0.csv: unknown file format
attempt 2: report-0.csv: unknown file format
attempt 3: report-0.csv: unknown file format
attempt 4: report-0.csv: unknown file format

reviewed 1, resolved it by hand
3 are left
requeued 1
redrove 2
3 succeeded, 0 dead letters
`, got)
}
