package redistest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// subprocessEnv names the function that a re-executed test binary runs.
const subprocessEnv = "REDRIVE_SUBPROCESS"

var (
	subprocesses = map[string]func(){}

	atExitMu sync.Mutex
	atExit   []func()
)

// onExit has [Main] call f when the tests are over.
func onExit(f func()) {
	atExitMu.Lock()
	defer atExitMu.Unlock()
	atExit = append(atExit, f)
}

// Main runs the tests of a package, stops the servers that they shared, fails
// when goroutines are left over, and exits. In a process that [Subprocess]
// started it runs the named function instead.
func Main(m *testing.M) {
	if name := os.Getenv(subprocessEnv); name != "" {
		f, ok := subprocesses[name]
		if !ok {
			fmt.Fprintf(os.Stderr, "redistest: no subprocess is registered under %q\n", name)
			os.Exit(2)
		}
		f()
		os.Exit(0)
	}
	code := m.Run()
	atExitMu.Lock()
	stops := atExit
	atExitMu.Unlock()
	for _, stop := range stops {
		stop()
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintf(os.Stderr, "redistest: goroutines are left over: %v\n", err)
			code = 1
		}
	}
	os.Exit(code)
}

// RegisterSubprocess names a function for [Subprocess]. Call it from init or at
// the top of TestMain. The process ends with status 0 when f returns.
func RegisterSubprocess(name string, f func()) {
	if _, ok := subprocesses[name]; ok {
		panic(fmt.Sprintf("redistest: subprocess %q is registered twice", name))
	}
	subprocesses[name] = f
}

// Subprocess returns the command that runs the registered function in a process
// of its own, with env ("KEY=value") added to the environment. It is not
// started. The process is killed when the test ends, if it still runs. Its
// standard error is the test's.
func Subprocess(t testing.TB, name string, env ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	cmd := exec.Command(exe, "-test.run=^$") // no test runs should Main be missing
	cmd.Env = append(os.Environ(), append(env, subprocessEnv+"="+name)...)
	cmd.Stderr = os.Stderr
	dieWithParent(cmd)
	t.Cleanup(func() {
		if cmd.Process != nil && cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd
}

// Process is a running [Subprocess].
type Process struct {
	*exec.Cmd
	// Lines reads the standard output. Read it to its end, or until the line
	// that matters, before Wait.
	Lines *bufio.Scanner

	t testing.TB
}

// StartSubprocess starts [Subprocess] with its standard output on a scanner.
func StartSubprocess(t testing.TB, name string, env ...string) *Process {
	t.Helper()
	cmd := Subprocess(t, name, env...)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("redistest: start subprocess %s: %v", name, err)
	}
	return &Process{Cmd: cmd, Lines: bufio.NewScanner(out), t: t}
}

// WaitLine reads lines until one begins with prefix and returns the rest of it.
// The test fails when the output ends first.
func (p *Process) WaitLine(prefix string) string {
	p.t.Helper()
	for p.Lines.Scan() {
		if rest, ok := strings.CutPrefix(p.Lines.Text(), prefix); ok {
			return rest
		}
	}
	p.t.Fatalf("redistest: the subprocess ended without printing %q (%v)", prefix, p.Lines.Err())
	return ""
}

// Kill kills the process with SIGKILL and waits until it is gone.
func (p *Process) Kill() {
	p.t.Helper()
	if err := p.Process.Kill(); err != nil {
		p.t.Fatalf("redistest: kill subprocess: %v", err)
	}
	_ = p.Wait() // "signal: killed"
}
