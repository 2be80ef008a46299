package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A scene is a run's directory, written by hand: what the checker must see in it.
// Times are in ms.
type scene struct {
	t        *testing.T
	settings settings
	ledgers  map[string]*strings.Builder // by process
	attempts map[string]int64
	dump     string
	load     workload
}

// sceneJobs are the jobs of the scenes: enough that each kind is there.
const sceneJobs = 1000

// newScene is a run without a defect: every job is enqueued at 1000+n and ends well,
// and Redis was restarted and workers were killed, to no harm.
func newScene(t *testing.T, side string) *scene {
	s := &scene{
		t: t, ledgers: map[string]*strings.Builder{}, attempts: map[string]int64{}, load: workload{7, sceneJobs},
		settings: settings{Side: side, Seed: 7, Jobs: sceneJobs, Workers: 2, Producers: 1, Planned: map[string]int{}},
	}
	for n := range sceneJobs {
		s.well(n, int64(1000+n))
	}
	s.books()
	s.line("w0-001", lineBegin, 1, "", 4711)
	s.plan(faultRestart, "*", 500, 600)
	return s
}

// well enqueues a job that goes as it should.
func (s *scene) well(n int, at int64) {
	j := s.load.job(n)
	s.enqueue(n, at)
	at += 1 + j.delay.Milliseconds()
	switch j.outcome {
	case fails:
		s.run("w0-001", n, at, fails, fateRetry, 0)
		s.run("w0-001", n, at+100, succeeds, fateDone, 1)
	case failsDead:
		s.dump += fmt.Sprintf("dead %s permanent\n", jobID(n))
		s.run("w0-001", n, at, failsDead, fateDead, 0)
	default:
		s.run("w0-001", n, at, succeeds, fateDone, 0)
	}
}

// books are what Redis counts when each job has ended once.
func (s *scene) books() {
	all, well := s.settings.Jobs, s.succeeded()
	s.dump += fmt.Sprintf("stat enqueued %d\nstat succeeded %d\nstat died %d\n", all, well, all-well)
}

func (s *scene) line(process string, kind byte, at int64, text string, numbers ...int64) {
	l := s.ledgers[process]
	if l == nil {
		l = new(strings.Builder)
		s.ledgers[process] = l
	}
	fmt.Fprintf(l, "%c %d", kind, at*1e6)
	for _, n := range numbers {
		fmt.Fprintf(l, " %d", n)
	}
	if text != "" {
		l.WriteString(" |" + text)
	}
	l.WriteByte('\n')
}

func (s *scene) enqueue(n int, at int64) {
	s.line("p0-001", lineIntent, at, "", int64(n), 1, hashOf(s.load.job(n).payload))
	s.line("p0-001", lineAck, at, "", int64(n), 0)
}

// begin starts an attempt and returns its number.
func (s *scene) begin(process string, n int, at int64, retries int64) int64 {
	s.attempts[process]++
	s.line(process, lineStart, at, "", s.attempts[process], int64(n), 1+retries, retries, 0, 0, hashOf(s.load.job(n).payload))
	return s.attempts[process]
}

func (s *scene) finish(process string, a int64, n int, at int64, out outcome, f fate) {
	s.line(process, lineReturn, at, "", a, int64(n), int64(out))
	s.settle(process, a, n, at, f)
}

func (s *scene) settle(process string, a int64, n int, at int64, f fate) {
	switch f {
	case fateOpen:
	case fateRefused:
		s.line(process, lineRefused, at, "", a, int64(n))
	default:
		s.line(process, lineConfirmed, at, "", a, int64(n), int64(f))
	}
}

// run is an attempt that lasts no time.
func (s *scene) run(process string, n int, at int64, out outcome, f fate, retries int64) {
	s.finish(process, s.begin(process, n, at, retries), n, at, out, f)
}

// fault happens; plan is a fault that was also meant to.
func (s *scene) fault(kind, target string, from, to int64) {
	s.line(nemesisName, lineFault, to, kind+" "+target, from*1e6, to*1e6, 1)
}

func (s *scene) plan(kind, target string, from, to int64) {
	s.fault(kind, target, from, to)
	s.settings.Planned[kind]++
}

// plain returns the number of a job, the i-th one, that succeeds at once.
func (s *scene) plain(i int) int {
	for n := range sceneJobs {
		if j := s.load.job(n); j.outcome == succeeds && j.delay == 0 && j.work == 0 {
			if i--; i < 0 {
				return n
			}
		}
	}
	panic("no such job")
}

func (s *scene) kind(is func(job) bool) int {
	for n := range sceneJobs {
		if is(s.load.job(n)) {
			return n
		}
	}
	panic("no such job")
}

// judge writes the scene to a directory and has it checked.
func (s *scene) judge() *verdict {
	s.t.Helper()
	dir := s.t.TempDir()
	for process, text := range s.ledgers {
		require.NoError(s.t, os.WriteFile(filepath.Join(dir, process+journalSuffix), []byte(text.String()), 0o600))
	}
	require.NoError(s.t, os.WriteFile(filepath.Join(dir, dumpFile), []byte(s.dump), 0o600))
	require.NoError(s.t, writeSettings(dir, s.settings))
	e, err := load(dir)
	require.NoError(s.t, err)
	return check(e)
}

// extra enqueues one job more, at 2000, that a test may run as it likes, and keeps
// the books of Redis in step.
func (s *scene) extra() int {
	n := s.settings.Jobs
	for ; s.load.job(n).outcome != succeeds || s.load.job(n).delay > 0; n++ {
		s.well(n, 2000)
	}
	s.enqueue(n, 2000)
	s.settings.Jobs = n + 1
	s.books()
	return n
}

// succeeded counts the jobs of the scene that are no dead letters.
func (s *scene) succeeded() int {
	n := 0
	for i := range s.settings.Jobs {
		if s.load.job(i).outcome != failsDead {
			n++
		}
	}
	return n
}

func withoutLine(text, line string) string {
	var kept string
	for _, l := range strings.Split(strings.TrimSpace(text), "\n") {
		if l != line {
			kept += l + "\n"
		}
	}
	return kept
}
