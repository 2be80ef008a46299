package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"
)

// waitDelay is how long a process has to end when it is interrupted.
const waitDelay = 10 * time.Second

// An outcome is what one run of a package's tests came to.
type outcome struct {
	// failed holds the top-level tests that failed, with what became of those that did
	// not end: "TestX (hangs)", "TestX (crash)".
	failed []string
	passed []string
	took   time.Duration
	// broken says why the run proves nothing: it did not compile, or no test ran.
	broken string
	output string
}

// build compiles the tests of a package.
func build(ctx context.Context, root, pkg, overlay, binary string) error {
	cmd := command(ctx, root, "go", "test", "-c", "-o", binary, "-overlay", overlay, pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("the mutants of %s do not compile: %w\n%s", pkg, err, out)
	}
	return nil
}

// test runs the compiled tests of the package in dir, all where there is no pattern.
func test(ctx context.Context, dir, binary, pattern string, limit time.Duration, env ...string) (o outcome) {
	cmd := command(ctx, dir, "go", "tool", "test2json", binary,
		"-test.v=test2json", "-test.timeout="+limit.String(), "-test.run="+pattern)
	// A test that skips for want of a server would let its mutants live; what kills a
	// mutant is no case for rapid to keep.
	cmd.Env = append(append(os.Environ(), "REDRIVE_REQUIRE_REDIS=1", "RAPID_NOFAILFILE=1"), env...)
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	o = read(out)
	o.took = time.Since(begin)
	if (err == nil) != (len(o.failed) == 0) && o.broken == "" {
		o.broken = fmt.Sprintf("the tests end with %v, and %d of them have failed", err, len(o.failed))
	}
	return o
}

func command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = waitDelay
	return cmd
}

// event is a line of test2json.
type event struct{ Action, Test, Output string }

// read takes in the output of test2json.
func read(out []byte) (o outcome) {
	var text strings.Builder
	running := make(map[string]bool)
	ran := false
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, len(out)+1)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			text.WriteString(lines.Text() + "\n")
			continue
		}
		text.WriteString(e.Output)
		if e.Test == "" || strings.Contains(e.Test, "/") {
			continue
		}
		ran = true
		switch e.Action {
		case "run":
			running[e.Test] = true
		case "pass":
			o.passed = append(o.passed, e.Test)
			delete(running, e.Test)
		case "fail":
			o.failed = append(o.failed, e.Test)
			delete(running, e.Test)
		case "skip":
			delete(running, e.Test)
		}
	}
	o.output = text.String()
	end := " (crash)"
	if strings.Contains(o.output, "panic: test timed out") {
		end = " (hangs)"
	}
	for name := range running {
		o.failed = append(o.failed, name+end)
	}
	slices.Sort(o.failed)
	switch script := badScript.FindString(o.output); {
	case !ran:
		o.broken = "no test ran"
	case script != "":
		o.broken = "is no valid script: " + script
	}
	return o
}

// badScript is what Redis says of a script with a slip of the pen, which any test
// would kill.
var badScript = regexp.MustCompile(`(?i)nonexistent global variable '\w*'|error compiling script[^\n]*|attempt to (call|index|compare|concatenate)[^\n]*`)

// plain is a failed test's name without what became of it.
func plain(failed string) string {
	name, _, _ := strings.Cut(failed, " ")
	return name
}
