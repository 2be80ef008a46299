package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain makes the test binary the workers and producers of its own runs.
func TestMain(m *testing.M) {
	if is, err := child(); is {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestChaos is the short run: 100,000 jobs through every kind of fault, within two
// minutes. Every promise that the report judges must hold.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("takes over a minute")
	}
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("REDRIVE_REQUIRE_REDIS") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	const jobs = 100_000
	begun := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	v, err := passage(ctx, settings{Jobs: jobs, Seed: 1, Workers: 4, Producers: 2, Length: lengthFor(jobs)}, "redrive", t.TempDir())
	require.NoError(t, err)
	var text bytes.Buffer
	report(&text, v)
	t.Logf("%v\n%s", time.Since(begun).Round(time.Second), text.String())
	require.Empty(t, v.violations())
	require.Less(t, time.Since(begun), 2*time.Minute)
}
