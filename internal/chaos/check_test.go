package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestACleanRunHasNoViolations(t *testing.T) {
	v := newScene(t, "redrive").judge()
	require.Empty(t, v.violations())
	require.Empty(t, v.unexplained)
	require.Positive(t, v.duplicates[causeFailure])
	require.Equal(t, 1, v.faults[faultRestart])
	require.Equal(t, []time.Duration{401 * time.Millisecond}, v.firstDones)
}

// Each defect is written into a clean run. found says what the checker must count.
func TestTheCheckerFindsEveryDefect(t *testing.T) {
	const late = 9000 // after everything that a clean run has
	tests := map[string]struct {
		defect func(s *scene)
		found  func(v *verdict) any
		want   any
	}{
		"acknowledged and never run": {func(s *scene) {
			s.settings.Jobs++
			s.load.jobs++
			s.enqueue(sceneJobs, 2000)
		}, func(v *verdict) any { return len(v.lost) }, 1},
		"run, refused, and never run again": {func(s *scene) {
			s.settings.Jobs++
			s.enqueue(sceneJobs, 2000)
			s.run("w0-001", sceneJobs, 2001, succeeds, fateRefused, 0)
		}, func(v *verdict) any { return len(v.lost) }, 1},
		"run, refused after an outage, and missing from the books": {func(s *scene) {
			n := s.extra()
			a := s.begin("w1-001", n, 3000, 0)
			s.fault(faultBlackhole, "w1-001", 3001, 6000)
			s.finish("w1-001", a, n, 3002, succeeds, fateOpen)
			s.settle("w1-001", a, n, 6001, fateRefused)
			s.dump += fmt.Sprintf("stat succeeded %d\n", s.succeeded()-1)
		}, func(v *verdict) any { return []int{v.unheard, len(v.books)} }, []int{1, 1}},
		"a permanent failure without a dead letter": {func(s *scene) {
			n := s.kind(func(j job) bool { return j.outcome == failsDead })
			s.dump = withoutLine(s.dump, fmt.Sprintf("dead %s permanent", jobID(n)))
		}, func(v *verdict) any { return len(v.lost) }, 1},
		"still waiting at the end": {func(s *scene) {
			s.dump += "pending " + jobID(3) + " ready\n"
		}, func(v *verdict) any { return len(v.unfinished) }, 1},
		"never acknowledged": {func(s *scene) {
			s.settings.Jobs++
			s.line("p0-001", lineIntent, 2000, "", sceneJobs, 1, 0)
		}, func(v *verdict) any { return len(v.unacknowledged) }, 1},
		"run and never enqueued": {func(s *scene) {
			s.settings.Jobs++
			s.run("w0-001", sceneJobs, 2001, succeeds, fateDone, 0)
		}, func(v *verdict) any { return len(v.unexpected) }, 1},
		"run before its enqueue": {func(s *scene) {
			s.settings.Jobs++
			s.enqueue(sceneJobs, 2000)
			s.run("w0-001", sceneJobs, 1999, succeeds, fateDone, 0)
		}, func(v *verdict) any { return len(v.unexpected) }, 1},
		"an id that nobody made": {func(s *scene) {
			s.run("w0-001", sceneJobs+10, 2001, succeeds, fateDone, 0)
		}, func(v *verdict) any { return len(v.unexpected) }, 1},
		"another payload": {func(s *scene) {
			s.line("w1-001", lineStart, late, "", 1, int64(s.plain(0)), 1, 0, 0, 0, 12345)
		}, func(v *verdict) any { return len(v.unexpected) }, 1},
		"a dead letter of a job that succeeds": {func(s *scene) {
			s.dump += "dead " + jobID(s.plain(0)) + " exhausted\n"
		}, func(v *verdict) any { return len(v.unexpected) }, 1},
		"run again for no reason": {func(s *scene) {
			s.run("w1-001", s.plain(0), late, succeeds, fateRefused, 0)
		}, func(v *verdict) any { return len(v.unexplained) }, 1},
		"run again after a kill that came when it was done": {func(s *scene) {
			s.fault(faultKill, "w0-001", late-100, late-99)
			s.run("w1-001", s.plain(0), late, succeeds, fateRefused, 0)
		}, func(v *verdict) any { return len(v.unexplained) }, 1},
		"taken from a worker that was stopped for less than its lease": {func(s *scene) {
			n := s.extra()
			a := s.begin("w1-001", n, 3000, 0)
			s.fault(faultStop, "w1-001", 3001, 3300)
			s.run("w0-001", n, 3400, succeeds, fateDone, 0)
			s.finish("w1-001", a, n, 3500, succeeds, fateRefused)
		}, func(v *verdict) any { return []int{len(v.unexplained), len(v.unexplainedOverlaps)} }, []int{1, 1}},
		"taken from a worker that had been cut off for a moment, a while ago": {func(s *scene) {
			n := s.extra()
			a := s.begin("w1-001", n, 3000, 0)
			s.fault(faultBlackhole, "w1-001", 3001, 3200)
			s.run("w0-001", n, 6000, succeeds, fateDone, 0)
			s.finish("w1-001", a, n, 6001, succeeds, fateRefused)
		}, func(v *verdict) any { return []int{len(v.unexplained), len(v.unexplainedOverlaps)} }, []int{1, 1}},
		"taken from a worker that had been cut off before, and was back": {func(s *scene) {
			n := s.extra()
			s.fault(faultBlackhole, "w1-001", 3000, 5000)
			a := s.begin("w1-001", n, 8000, 0)
			s.run("w0-001", n, 8500, succeeds, fateDone, 0)
			s.finish("w1-001", a, n, 8600, succeeds, fateRefused)
		}, func(v *verdict) any { return []int{len(v.unexplained), len(v.unexplainedOverlaps)} }, []int{1, 1}},
		"refused in a shutdown": {func(s *scene) {
			n := s.extra()
			s.fault(faultTerm, "w1-001", 3001, 4500)
			s.run("w1-001", n, 3002, succeeds, fateRefused, 0)
			s.run("w0-001", n, 3003, succeeds, fateDone, 0)
		}, func(v *verdict) any { return len(v.unexplained) }, 1},
		"run again after another process was killed": {func(s *scene) {
			n := s.extra()
			s.begin("w1-001", n, 3000, 0)
			s.fault(faultKill, "w2-001", 3001, 3002)
			s.run("w0-001", n, 6000, succeeds, fateDone, 0)
		}, func(v *verdict) any { return len(v.unexplained) }, 1},
		"run again after a second enqueue that added nothing": {func(s *scene) {
			n := s.extra()
			s.line("p0-001", lineIntent, 2500, "", int64(n), 2, hashOf(s.load.job(n).payload))
			s.line("p0-001", lineAck, 2501, "", int64(n), 1)
			s.run("w0-001", n, 3000, succeeds, fateDone, 0)
			s.run("w0-001", n, 3001, succeeds, fateRefused, 0)
		}, func(v *verdict) any { return len(v.unexplained) }, 1},
		"given back without a shutdown": {func(s *scene) {
			n := s.extra()
			s.run("w1-001", n, 3000, cancelled, fateReleased, 0)
			s.run("w0-001", n, 3001, succeeds, fateDone, 0)
		}, func(v *verdict) any { return len(v.unexplained) }, 1},
		"done twice": {func(s *scene) {
			s.run("w1-001", s.plain(0), late, succeeds, fateDone, 0)
		}, func(v *verdict) any { return len(v.stale) }, 1},
		"done and dead": {func(s *scene) {
			n := s.kind(func(j job) bool { return j.outcome == failsDead })
			s.run("w1-001", n, late, succeeds, fateDone, 0)
		}, func(v *verdict) any { return len(v.stale) }, 1},
		"ended by a worker that it had been taken from": {func(s *scene) {
			n := s.extra()
			a := s.begin("w1-001", n, 3000, 0)
			s.fault(faultStop, "w1-001", 3001, 6000)
			s.line("w0-001", lineReaped, 5200, "w1-001-0123456789abcdef", int64(n), 1)
			s.finish("w1-001", a, n, 6001, succeeds, fateDone)
		}, func(v *verdict) any { return len(v.stale) }, 1},
		"two handlers at once": {func(s *scene) {
			n := s.extra()
			a := s.begin("w1-001", n, 3000, 0)
			s.run("w0-001", n, 3100, succeeds, fateDone, 0)
			s.finish("w1-001", a, n, 3200, succeeds, fateRefused)
		}, func(v *verdict) any { return len(v.unexplainedOverlaps) }, 1},
		"delayed, and early": {func(s *scene) {
			n := s.kind(func(j job) bool { return j.delay > 300*time.Millisecond })
			s.run("w1-001", n, int64(1000+n)+100, succeeds, fateRefused, 0)
		}, func(v *verdict) any { return len(v.early) }, 1},
		"a kill that burned a retry": {func(s *scene) {
			n := s.extra()
			s.begin("w1-001", n, 3000, 0)
			s.fault(faultKill, "w1-001", 3001, 3002)
			s.run("w0-001", n, 5100, succeeds, fateDone, 1)
		}, func(v *verdict) any { return []int{len(v.burned), len(v.unexplained)} }, []int{1, 0}},
		"Redis counts more ends than jobs": {func(s *scene) {
			s.dump += fmt.Sprintf("stat succeeded %d\n", sceneJobs+1)
		}, func(v *verdict) any { return len(v.books) }, 1},
		"an audit with a finding": {func(s *scene) {
			s.dump += "audit queue chaos: job x is nowhere\n"
		}, func(v *verdict) any { return len(v.books) }, 1},
		"a fault that was planned and did not happen": {func(s *scene) {
			s.settings.Planned[faultFlush] = 1
		}, func(v *verdict) any { return len(v.missing) }, 1},
		"a fault that is not shown to have happened": {func(s *scene) {
			s.settings.Planned[faultDrop] = 1
			s.line(nemesisName, lineFault, 2000, faultDrop+" w0-001", 1e9, 2e9, 0)
		}, func(v *verdict) any { return len(v.missing) }, 1},
		"a stop that the process did not feel": {func(s *scene) {
			s.plan(faultStop, "w0-001", 5000, 7500)
		}, func(v *verdict) any { return len(v.missing) }, 1},
		"a stop that the process felt for less than its lease": {func(s *scene) {
			s.plan(faultStop, "w0-001", 5000, 7500)
			s.line("w0-001", lineGap, 5401, "", 5000e6)
		}, func(v *verdict) any { return len(v.missing) }, 1},
		"faults that happened too rarely": {func(s *scene) {
			for i := range int64(8) {
				s.fault(faultCut, "w0-001", 5000+i, 5000+i)
			}
			s.settings.Planned[faultCut] = 10
		}, func(v *verdict) any { return len(v.missing) }, 1},
		"a recovery that took too long": {func(s *scene) {
			n := s.extra()
			s.begin("w1-001", n, 3000, 0)
			s.fault(faultKill, "w1-001", 3001, 3002)
			s.run("w0-001", n, 6002, succeeds, fateDone, 0)
		}, func(v *verdict) any { return v.recoveries }, []time.Duration{3001 * time.Millisecond}},
		"kills that no recovery followed": {func(s *scene) {
			s.fault(faultKill, "w1-001", 3001, 3002)
		}, func(v *verdict) any { return len(v.recoveries) }, 0},
		"a first completion that took too long": {func(s *scene) {
			s.fault(faultRestart, "*", 3000, 7000)
			s.run("w0-001", s.extra(), 8001, succeeds, fateDone, 0)
		}, func(v *verdict) any { return v.firstDones[1] }, 1001 * time.Millisecond},
		"no completion at all after a restart": {func(s *scene) {
			s.fault(faultRestart, "*", late, late+1)
		}, func(v *verdict) any { return v.firstDones[1] > time.Hour }, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, "redrive")
			test.defect(s)
			v := s.judge()
			require.Equal(t, test.want, test.found(v))
			require.NotEmpty(t, v.violations())
		})
	}
}

// What looks like a defect and has a cause is none.
func TestTheCheckerAcceptsWhatFaultsExplain(t *testing.T) {
	tests := map[string]struct {
		story func(s *scene, n int)
		cause string
	}{
		"killed at work": {func(s *scene, n int) {
			s.begin("w1-001", n, 3000, 0)
			s.fault(faultKill, "w1-001", 3001, 3002)
			s.run("w0-001", n, 5100, succeeds, fateDone, 0)
		}, faultKill},
		"killed when its retry was confirmed": {func(s *scene, n int) {
			s.run("w1-001", n, 3000, fails, fateRetry, 0)
			s.fault(faultKill, "w1-001", 3001, 3002)
			s.run("w0-001", n, 9000, succeeds, fateDone, 1)
		}, causeFailure},
		"killed between the return and its confirmation": {func(s *scene, n int) {
			s.run("w1-001", n, 3000, succeeds, fateOpen, 0)
			s.fault(faultKill, "w1-001", 3001, 3002)
			s.run("w0-001", n, 5100, succeeds, fateDone, 0)
		}, faultKill},
		"stopped past its lease, and refused afterwards": {func(s *scene, n int) {
			a := s.begin("w1-001", n, 3000, 0)
			s.fault(faultStop, "w1-001", 3001, 6000)
			s.line("w1-001", lineGap, 6001, "", 3001e6)
			s.run("w0-001", n, 5100, succeeds, fateDone, 0)
			s.finish("w1-001", a, n, 6002, succeeds, fateRefused)
		}, faultStop},
		"stopped between claim and start": {func(s *scene, n int) {
			s.fault(faultStop, "w1-001", 3001, 6000)
			s.line("w1-001", lineGap, 6001, "", 3001e6)
			s.run("w0-001", n, 5100, succeeds, fateDone, 0)
			s.run("w1-001", n, 6002, succeeds, fateRefused, 0)
		}, faultStop},
		"started late by a claim from before, while another runs that is then killed": {func(s *scene, n int) {
			s.fault(faultStop, "w1-001", 3001, 6000)
			s.line("w1-001", lineGap, 6001, "", 3001e6)
			s.begin("w2-001", n, 5100, 0)
			s.run("w1-001", n, 6002, succeeds, fateRefused, 0)
			s.fault(faultKill, "w2-001", 6500, 6501)
			s.run("w0-001", n, 8600, succeeds, fateDone, 0)
		}, faultKill},
		"cut off, and given back when nobody had taken it": {func(s *scene, n int) {
			a := s.begin("w1-001", n, 3000, 0)
			s.fault(faultBlackhole, "w1-001", 3001, 6000)
			s.finish("w1-001", a, n, 6100, cancelled, fateReleased)
			s.run("w1-001", n, 6101, succeeds, fateDone, 0)
		}, faultBlackhole},
		"interrupted by a shutdown": {func(s *scene, n int) {
			a := s.begin("w1-001", n, 3000, 0)
			s.fault(faultTerm, "w1-001", 3001, 4500)
			s.finish("w1-001", a, n, 4300, cancelled, fateReleased)
			s.run("w0-001", n, 4301, succeeds, fateDone, 0)
		}, faultTerm},
		"enqueued again after it had run": {func(s *scene, n int) {
			s.run("w1-001", n, 3000, succeeds, fateDone, 0)
			s.line("p0-001", lineNoAnswer, 3100, "timeout", int64(n))
			s.line("p0-001", lineIntent, 3101, "", int64(n), 2, hashOf(s.load.job(n).payload))
			s.line("p0-001", lineAck, 3102, "", int64(n), 0)
			s.run("w1-001", n, 3103, succeeds, fateDone, 0)
		}, causeAgain},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, "redrive")
			n := s.extra()
			before := s.judge().duplicates
			test.story(s, n)
			v := s.judge()
			require.Empty(t, slices.Concat(v.unexplained, v.unexplainedOverlaps, v.stale, v.lost, v.unexpected))
			require.LessOrEqual(t, quantile(v.recoveries, 1), 3*time.Second)
			require.Equal(t, before[test.cause]+1, v.duplicates[test.cause], v.duplicates)
		})
	}
}

// Of a side that does not tell what was confirmed, only the faults are left to go by.
func TestTheCheckerKnowsOnlyFaultsWhereNothingIsConfirmed(t *testing.T) {
	for name, test := range map[string]struct {
		kind, target string
		at           int64
		unexplained  int
	}{
		"a fault in time":                 {faultCut, "w1-001", 3100, 0},
		"an outage":                       {faultRestart, "*", 3100, 0},
		"of another process":              {faultCut, "w0-001", 3100, 1},
		"before it":                       {faultCut, "w1-001", 2000, 1},
		"a lease after it":                {faultCut, "w1-001", 34_000, 1},
		"of the producer, at the enqueue": {faultUnheard, "p0-001", 2000, 0},
		"of the producer, later":          {faultUnheard, "p0-001", 3100, 1},
		"a flush loses nobody":            {faultFlush, "*", 3100, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, "asynq")
			n := s.extra()
			s.run("w1-001", n, 3000, succeeds, fateOpen, 0)
			s.fault(test.kind, test.target, test.at, test.at+1)
			s.run("w0-001", n, 90_000, succeeds, fateOpen, 0)
			v := s.judge()
			require.Len(t, v.unexplained, test.unexplained)
			require.Equal(t, 1, v.twice)
		})
	}
}

func TestALineThatAKillCutShortIsNoLine(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(dir, "w0-001")
	require.NoError(t, err)
	j.write(lineStart, "", 1, 2, 3)
	j.write(lineReturn, "the\ncause", 4)
	_, err = j.f.WriteString("S 123 4")
	require.NoError(t, err)
	var got []string
	require.NoError(t, readJournal(filepath.Join(dir, "w0-001"+journalSuffix), func(e *entry) {
		require.Positive(t, e.t)
		got = append(got, fmt.Sprintf("%c %v %q", e.kind, e.n[:3], e.text))
	}))
	require.Equal(t, []string{`S [1 2 3] ""`, `E [4 0 0] "the cause"`}, got)
	for _, bad := range []string{"", "S", "S x", "S 1 2x", "S 1 2 3 4 5 6 7 8 9 10"} {
		_, err := parseEntry([]byte(bad))
		require.Error(t, err, bad)
	}
}

func TestThePlanFollowsFromTheSeed(t *testing.T) {
	const length = 70 * time.Second
	a, b, c := newPlan(1, 4, 2, length), newPlan(1, 4, 2, length), newPlan(2, 4, 2, length)
	require.Equal(t, a, b)
	require.NotEqual(t, a, c)
	require.Equal(t, a.counts(), c.counts())
	require.GreaterOrEqual(t, a.counts()[faultKill], 20)
	require.GreaterOrEqual(t, a.counts()[faultRestart], 3)
	for _, e := range a {
		require.Greater(t, e.at, time.Duration(0))
		require.Less(t, e.at, length)
		if e.kind == faultStop {
			require.Greater(t, e.hold, redriveLease)
		}
	}
	long := newPlan(1, 4, 2, lengthFor(longRun))
	require.GreaterOrEqual(t, long.counts()[faultKill], longKills)
	require.GreaterOrEqual(t, long.counts()[faultRestart], longRestarts)
}

func TestTheWorkloadHasEveryKindOfJob(t *testing.T) {
	w := workload{3, 10_000}
	n := map[outcome]int{}
	delayed, works := 0, 0
	for i := range w.jobs {
		j := w.job(i)
		require.Equal(t, j, w.job(i))
		require.Equal(t, i, jobNumber(jobID(i)))
		n[j.outcome]++
		if j.delay > 0 {
			delayed++
		}
		if j.work > redriveLease {
			works++
		}
	}
	require.InDelta(t, 200, n[fails], 60)
	require.InDelta(t, 30, n[failsDead], 25)
	require.InDelta(t, 100, delayed, 40)
	require.Positive(t, works, "some jobs take longer than a lease")
}
