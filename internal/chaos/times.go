package main

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"
)

// Bounds of the times, and how many faults there must be at least.
const (
	recoveryGrace = time.Second
	firstWithin   = time.Second
	longRun       = 1_000_000 // jobs
	longKills     = 300
	longRestarts  = 12
)

// times measures how long recovery took.
func (e *evidence) times(v *verdict) {
	killed := make(map[string]fault) // by process
	for _, f := range e.faults {
		switch f.kind {
		case faultKill:
			killed[f.target] = f
		case faultRedisStall:
			v.redisStalls++
		case faultStall:
			v.stalls++
		}
	}
	lease := int64(e.side.lease())
	for n := range e.jobs {
		starts := e.jobs[n].starts
		for i := range starts[:max(0, len(starts)-1)] {
			s, next := &starts[i], &starts[i+1]
			k, ok := killed[e.processes[s.process].name]
			if !ok || s.fate != fateOpen || next.at < k.from {
				continue // it had ended, or another had taken it over before
			}
			if !e.side.confirms() && s.returned > 0 && s.outcome != succeeds {
				continue // a retry, which may have been written
			}
			took := time.Duration(next.at - k.from)
			v.allRecoveries = append(v.allRecoveries, took)
			if !e.survivor(k.from, min(next.at, k.from+lease+int64(recoveryGrace))) {
				continue
			}
			if len(v.recoveries) == 0 || took > slices.Max(v.recoveries) {
				v.slowest = fmt.Sprintf("%s was killed %v before: %s", k.target, took, e.story(&e.jobs[n], n))
			}
			v.recoveries = append(v.recoveries, took)
		}
	}
	v.firstDones, v.firstRuns = e.first()
	slices.Sort(v.recoveries)
	slices.Sort(v.allRecoveries)
}

// survivor reports whether some worker was alive and in touch with Redis the whole
// time: one that may judge a worker that was killed at its beginning. Where there is
// none, as in an outage of Redis, recovery takes a lease more once there is one.
func (e *evidence) survivor(from, to int64) bool {
	return slices.ContainsFunc(e.processes, func(p life) bool {
		return strings.HasPrefix(p.name, roleWorker) && p.began > 0 && p.began < from &&
			faultOf(&p, from, to, faultKill, faultTerm, "end") == "" && (p.ended == 0 || p.ended > to) &&
			!slices.ContainsFunc(p.out, func(o span) bool { return o.from <= to && o.to >= from })
	})
}

// first measures, for each restart of Redis, when the first success was confirmed
// after Redis answered again, and when the first run that began after it returned.
func (e *evidence) first() (dones, runs []time.Duration) {
	var ups []int64
	for _, f := range e.faults {
		if f.kind == faultRestart && f.happened {
			ups = append(ups, f.to)
		}
	}
	slices.Sort(ups)
	const none = time.Duration(1<<63 - 1)
	dones, runs = slices.Repeat([]time.Duration{none}, len(ups)), slices.Repeat([]time.Duration{none}, len(ups))
	note := func(times []time.Duration, began, at int64) {
		if i := sort.Search(len(ups), func(i int) bool { return ups[i] > began }) - 1; i >= 0 {
			times[i] = min(times[i], time.Duration(at-ups[i]))
		}
	}
	for n := range e.jobs {
		for i := range e.jobs[n].starts {
			s := &e.jobs[n].starts[i]
			if s.fate == fateDone {
				note(dones, s.settled, s.settled)
			}
			if s.returned > 0 {
				note(runs, s.at, s.returned)
			}
		}
	}
	if !e.side.confirms() {
		dones = nil
	}
	return dones, runs
}

// checkFaults: every planned fault happened, but for one in ten that the end of the
// run, or a fault in the way, may have kept from it.
func (e *evidence) checkFaults(v *verdict) {
	for _, f := range e.faults {
		if f.happened {
			v.faults[f.kind]++
		}
	}
	least := make(map[string]int)
	for kind, n := range e.Planned {
		least[kind] = (n*9 + 9) / 10
	}
	if e.Jobs >= longRun {
		least[faultKill] = max(least[faultKill], longKills)
		least[faultRestart] = max(least[faultRestart], longRestarts)
	}
	for _, kind := range sortedKeys(least) {
		if v.faults[kind] < least[kind] {
			v.missing = append(v.missing, fmt.Sprintf("%s happened %d times, planned were %d, and %d are needed",
				kind, v.faults[kind], e.Planned[kind], least[kind]))
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, cmp.Compare[string])
	return keys
}

// quantile of sorted times: the least of which at least the share q is no longer.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(float64(len(sorted))*q+0.999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// violations lists what must not be, each with its first examples. They are
// judgements on redrive, whose promises they are; of another side, they are facts.
func (v *verdict) violations() []string {
	var out []string
	none := func(what string, found []string) {
		if len(found) > 0 {
			out = append(out, fmt.Sprintf("%d %s, the first: %s", len(found), what, joinFirst(found)))
		}
	}
	none("lost", v.lost)
	none("not finished", v.unfinished)
	none("not acknowledged", v.unacknowledged)
	none("unexpected", v.unexpected)
	none("unexplained duplicates", v.unexplained)
	none("stale effects", v.stale)
	none("unexplained overlaps", v.unexplainedOverlaps)
	none("early starts", v.early)
	none("retries used up by something else than a failure", v.burned)
	none("findings in Redis", v.books)
	none("kinds of faults too rare", v.missing)
	lease := redriveSide{}.lease()
	if len(v.recoveries) < v.faults[faultKill] {
		out = append(out, fmt.Sprintf("%d recoveries were measured of %d kills", len(v.recoveries), v.faults[faultKill]))
	}
	if p99 := quantile(v.recoveries, 0.99); p99 > lease+recoveryGrace {
		out = append(out, fmt.Sprintf("recovery after kill -9 took %v (p99), and may take %v: %s", p99, lease+recoveryGrace, v.slowest))
	}
	if len(v.firstDones) == 0 {
		out = append(out, "no first completion after a restart of Redis was measured")
	} else if most := slices.Max(v.firstDones); most > firstWithin {
		out = append(out, fmt.Sprintf("the first completion after a restart of Redis took %v, and may take %v", most, firstWithin))
	}
	return out
}

func joinFirst(found []string) string {
	const few = 3
	text := ""
	for i, f := range found[:min(few, len(found))] {
		if i > 0 {
			text += " // "
		}
		text += f
	}
	return text
}
