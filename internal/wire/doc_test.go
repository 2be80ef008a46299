package wire

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDocs_ExamplesAreWhatTheClientWrites reads the commands in the document as
// redis-cli would and checks the envelopes in them.
func TestDocs_ExamplesAreWhatTheClientWrites(t *testing.T) {
	doc, err := os.ReadFile("../../docs/wire-format.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```redis\n(.*?)```").FindAllStringSubmatch(string(doc), -1)
	require.Len(t, blocks, 2)
	want := []Envelope{
		{Task: "mail.welcome", EnqueuedAt: noon, Args: []byte(`{"to":"ann"}`)},
		{Task: "mail.welcome", EnqueuedAt: noon, RunAt: noon + 60000, IdempotencyKey: "order-7", Args: []byte(`{"to":"bob"}`)},
	}
	hset := regexp.MustCompile(`(?m)^HSET redrive:\{mail\}:jobs (\S+) '([^']*)'$`)
	for i, block := range blocks {
		lines := strings.Split(strings.TrimSpace(block[1]), "\n")
		require.Equal(t, "MULTI", lines[0])
		require.Equal(t, "EXEC", lines[len(lines)-1])
		m := hset.FindStringSubmatch(block[1])
		require.NotNil(t, m)
		require.Equal(t, string(want[i].Append(nil)), m[2])
		require.Contains(t, []string{
			"RPUSH redrive:{mail}:ready " + m[1],
			"ZADD redrive:{mail}:delayed 1732000060000 " + m[1],
		}, lines[2])
		got, err := ParseEnvelope([]byte(m[2]))
		require.NoError(t, err)
		require.Equal(t, want[i], got)
	}
}
