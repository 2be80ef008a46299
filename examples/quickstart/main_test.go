package main

import (
	"bytes"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

const want = `mail.welcome {"to":"ann"}     attempt 1  done
mail.welcome {"to":"bob"}     attempt 1  failed: mail server is busy; again in WAIT
mail.welcome {"to":"nobody"}  attempt 1  dead letter: no such address
mail.welcome {"to":"bob"}     attempt 2  failed: mail server is busy; again in WAIT
mail.welcome {"to":"bob"}     attempt 3  done

ann      welcome, ann
bob      welcome, bob
nobody   dead letter: no such address (permanent)
`

var wait = regexp.MustCompile(`again in \d+ms`)

func runIt(t *testing.T) string {
	t.Helper()
	var out bytes.Buffer
	began := time.Now()
	require.NoError(t, run(t.Context(), &out))
	require.Less(t, time.Since(began), 10*time.Second)
	return wait.ReplaceAllString(out.String(), "again in WAIT")
}

func TestQuickstartNeedsNoServer(t *testing.T) {
	t.Setenv("REDIS_URL", "")
	require.Equal(t, "REDIS_URL is not set: using a Redis inside this process.\n\n"+want, runIt(t))
}

func TestQuickstartUsesTheServerItIsGiven(t *testing.T) {
	server := redistest.StartServer(t)
	t.Setenv("REDIS_URL", "redis://"+server.Addr)
	for range 2 { // what the first run left behind does not disturb the second
		require.Equal(t, "Using the Redis at "+server.Addr+".\n\n"+want, runIt(t))
	}
}
