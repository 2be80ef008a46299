package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// reconnect is how long after a fault a process may take to renew its lease: the
	// longer the fault, the longer the pause between two tries, up to 600 ms.
	reconnect = 600 * time.Millisecond
	// slack is how much later than it should be a lease may have been renewed before a
	// fault began: hold-ups shorter than a gap are in no ledger.
	slack = gap
)

// A verdict is what the checker finds. The counts of things that must not be are in
// violations as well, with their first examples.
type verdict struct {
	settings
	starts                           int
	lost, unfinished, unacknowledged []string
	unexpected, stale, early         []string
	duplicates                       map[string]int // by cause
	unexplained                      []string
	overlaps                         map[string]int // by cause
	unexplainedOverlaps              []string
	burned                           []string // retries without a failure
	refused                          int      // ends that Redis refused
	unheard                          int      // jobs whose end was written, and then refused when sent again
	twice                            int      // jobs whose handler succeeded more than once
	books                            []string // what Redis's own counts and the audit say
	faults                           map[string]int
	missing                          []string        // faults that did not happen often enough
	recoveries                       []time.Duration // where another worker was in touch all the time
	allRecoveries                    []time.Duration
	firstDones, firstRuns            []time.Duration
	slowest                          string // the job whose recovery took longest
	redisStalls, stalls              int
}

// check reads the evidence once: every job's starts are few, whatever their number.
func check(e *evidence) *verdict {
	v := &verdict{
		settings: e.settings, duplicates: map[string]int{}, overlaps: map[string]int{}, faults: map[string]int{},
	}
	v.unexpected = slices.Clone(e.strange)
	load := workload{e.Seed, e.Jobs}
	for n := range e.jobs {
		h, j := &e.jobs[n], load.job(n)
		v.starts += len(h.starts)
		e.checkEnd(v, h, j)
		e.checkStarts(v, h, j)
		e.checkSettles(v, h, j)
		if len(h.starts) > 1 {
			e.checkDuplicates(v, h, n)
			e.checkOverlaps(v, h, n)
		}
	}
	e.checkBooks(v)
	e.checkFaults(v)
	e.times(v)
	return v
}

// checkEnd: what was acknowledged has run to its end, or is a dead letter.
func (e *evidence) checkEnd(v *verdict, h *history, j job) {
	id := jobID(j.n)
	where, pending := e.pending[j.n]
	reason, dead := e.dead[j.n]
	if h.acked == 0 {
		v.unacknowledged = append(v.unacknowledged, id)
		return
	}
	if dead && j.outcome != failsDead {
		v.unexpected = append(v.unexpected, id+" is a dead letter: "+reason)
		return
	}
	if dead && e.side.confirms() && reason != "permanent" {
		v.unexpected = append(v.unexpected, id+" is a dead letter for another reason: "+reason)
		return
	}
	if pending {
		v.unfinished = append(v.unfinished, id+" is "+where)
		return
	}
	if dead {
		return
	}
	if j.outcome == failsDead {
		v.lost = append(v.lost, id+" is no dead letter")
		return
	}
	ended := func(s start) bool { return s.outcome == succeeds && s.returned > 0 }
	switch {
	case slices.ContainsFunc(h.starts, func(s start) bool { return ended(s) && s.fate != fateRefused }):
	case slices.ContainsFunc(h.starts, func(s start) bool { return ended(s) && e.outDuring(s.process, s.returned, s.settled) }):
		// Redis wrote the end, and the answer was lost; when it was sent again, Redis had
		// forgotten the call along with a worker whose lease had lapsed. Whether it was so,
		// the books of Redis tell: each job that really is lost is missing from them.
		v.unheard++
	default:
		v.lost = append(v.lost, id+" has not run to its end")
	}
}

// checkStarts: nothing runs that was not enqueued, or with another payload, or
// before its time; and only failures use up retries.
func (e *evidence) checkStarts(v *verdict, h *history, j job) {
	id := jobID(j.n)
	failures, successes := int64(0), 0
	burned := false
	for _, s := range h.starts {
		switch {
		case h.intended == 0 || s.at < h.intended:
			v.unexpected = append(v.unexpected, id+" ran and was not enqueued")
		case s.hash != h.hash:
			v.unexpected = append(v.unexpected, id+" ran with another payload")
		case s.at+int64(5*time.Millisecond) < h.intended+int64(j.delay):
			v.early = append(v.early, id+" started "+time.Duration(h.intended+int64(j.delay)-s.at).String()+" early")
		}
		burned = burned || s.retries > failures
		if s.returned > 0 && s.outcome == fails {
			failures++
		}
		if s.returned > 0 && s.outcome == succeeds {
			successes++
		}
	}
	if burned {
		v.burned = append(v.burned, id)
	}
	if successes > 1 {
		v.twice++
	}
}

// checkSettles: a job ends once for each time it was enqueued, and no claim both
// ends and is reaped.
func (e *evidence) checkSettles(v *verdict, h *history, j job) {
	ends := int64(0)
	for i, s := range h.starts {
		switch s.fate {
		case fateRefused:
			v.refused++
		case fateDone, fateDead:
			ends++
			if e.reaped(h, &s) > len(startsOf(h.starts[:i], s.process)) {
				v.stale = append(v.stale, jobID(j.n)+" was ended by a worker from which it had been taken: "+e.story(h, j.n))
			}
		}
	}
	if enqueued := h.enqueued(); ends > enqueued {
		v.stale = append(v.stale, fmt.Sprintf("%s was enqueued %d times at most and ended %d times", jobID(j.n), enqueued, ends))
	}
}

// reaped counts the reaps of a job from the process of s while s ran. Each may be that
// of an earlier claim of the process, whose reaper was slow to write it down; one that
// was out of touch itself may have been very slow.
func (e *evidence) reaped(h *history, s *start) (n int) {
	for _, r := range h.reaps {
		if r.from == e.processes[s.process].name && s.at < r.at && r.at < s.settled && !e.outDuring(r.by, s.at, r.at) {
			n++
		}
	}
	return n
}

func startsOf(starts []start, process int) (of []start) {
	for _, s := range starts {
		if s.process == process {
			of = append(of, s)
		}
	}
	return of
}

// enqueued is how many times at most the job was: each try may have been performed,
// but for a last one that found the job of one before it.
func (h *history) enqueued() int64 {
	if h.duplicate && h.tries > 1 {
		return h.tries - 1
	}
	return max(1, h.tries)
}

// outDuring reports whether a process may have been out of touch at some time
// between.
func (e *evidence) outDuring(process int, from, to int64) bool {
	return slices.ContainsFunc(e.processes[process].out, func(o span) bool { return o.from <= to && o.to >= from })
}

// checkDuplicates: every start after the first has a recorded cause.
func (e *evidence) checkDuplicates(v *verdict, h *history, n int) {
	prev := &h.starts[0]
	for i := 1; i < len(h.starts); i++ {
		next := &h.starts[i]
		// A claim from before, whose process did not get to start it until now.
		late := e.lostLease(next, next.at)
		if late != "" && next.fate == fateRefused {
			v.duplicates[late]++
			continue // the claim of prev is not over
		}
		cause := e.cause(h, prev, next)
		if cause == "" && next.fate == fateOpen {
			cause = late // its process died before it heard of it
		}
		if cause != "" {
			v.duplicates[cause]++
		} else {
			v.unexplained = append(v.unexplained, e.story(h, n))
		}
		prev = next
	}
}

// The causes of extra starts that are no faults.
const (
	causeFailure = "failure"
	causeAgain   = "enqueued again"
)

// cause says why a job started once more at next after it had started at prev, or
// nothing if there was no reason to.
func (e *evidence) cause(h *history, prev, next *start) string {
	p := &e.processes[prev.process]
	failed := prev.returned > 0 && prev.outcome == fails
	if !e.side.confirms() {
		switch {
		case failed:
			return causeFailure
		case h.enqueued() > 1 && prev.returned > 0 && next.at > prev.returned:
			return causeAgain
		}
		until := next.at
		if prev.returned > 0 {
			until = min(until, prev.returned+int64(e.side.lease()))
		}
		if f := e.anyFault(p, prev.at, until); f != "" {
			return f
		}
		if e.anyFault(&e.processes[h.producer], h.intended, h.acked) != "" {
			return causeAgain // its client sends an enqueue without an answer again by itself
		}
		return ""
	}
	switch prev.fate {
	case fateRetry:
		if failed {
			return causeFailure
		}
		return ""
	case fateDone, fateDead:
		if h.enqueued() > 1 {
			return causeAgain
		}
		return ""
	case fateReleased, fateRefused:
		if f := faultOf(p, prev.at, prev.settled, faultTerm); f != "" && prev.fate == fateReleased {
			return f
		}
		return e.lostLease(prev, prev.settled)
	}
	if f := faultOf(p, prev.at, next.at, faultKill); f != "" {
		return f
	}
	if f := e.lostLease(prev, next.at); f != "" {
		return f
	}
	if failed && p.ended > 0 {
		return causeFailure // written, and not heard of before the process ended
	}
	return faultOf(p, prev.at, next.at, faultTerm, "end")
}

// faultOf returns the first of the process's faults of these kinds in between.
func faultOf(p *life, from, to int64, kinds ...string) string {
	for _, f := range p.faults {
		if f.from <= to && f.to >= from && slices.Contains(kinds, f.kind) {
			return f.kind
		}
	}
	return ""
}

// lostLease returns what kept the process of s out of touch for so long, by the time
// given, that its lease may have lapsed: it is renewed three times a lease, so two
// thirds are left at least when the fault begins.
func (e *evidence) lostLease(s *start, by int64) string {
	lease := int64(e.side.lease())
	for _, o := range e.processes[s.process].out {
		lapses := o.from + lease*2/3 - int64(slack)
		if lapses <= o.to && lapses <= by && o.to >= s.at-lease {
			return o.kind
		}
	}
	return ""
}

// anyFault is for a side of which only starts and returns are seen: whatever befell
// the process or Redis in between may have cost the acknowledgement.
func (e *evidence) anyFault(p *life, from, to int64) string {
	for _, f := range p.faults {
		if f.from <= to && f.to >= from && f.kind != faultStall {
			return f.kind
		}
	}
	for _, f := range e.faults {
		if f.from > to {
			break
		}
		if f.target == "*" && f.to >= from && f.kind != faultFlush {
			return f.kind
		}
	}
	if o := slices.IndexFunc(p.out, func(o span) bool { return o.from <= to && o.to >= from }); o >= 0 {
		return p.out[o].kind
	}
	return ""
}

// checkOverlaps: two handlers of one job run at once only if the process of one of
// them had been cut off past its lease.
func (e *evidence) checkOverlaps(v *verdict, h *history, n int) {
	const forever = int64(1) << 62
	until, last := int64(0), -1
	for i := range h.starts {
		s := &h.starts[i]
		if last >= 0 && s.at < until {
			first := &h.starts[last]
			cause := e.lostLease(first, s.at)
			if cause == "" {
				cause = e.lostLease(s, s.at) // a claim from before, started late
			}
			if cause == "" && !e.side.confirms() {
				cause = faultOf(&e.processes[first.process], first.at, s.at, faultTerm, "end")
			}
			if cause != "" {
				v.overlaps[cause]++
			} else {
				v.unexplainedOverlaps = append(v.unexplainedOverlaps, e.story(h, n))
			}
		}
		end := s.returned
		if end == 0 {
			if end = e.processes[s.process].ended; end == 0 {
				end = forever
			} else if k := e.killed(s.process); k > 0 {
				end = k
			}
		}
		if end > until {
			until, last = end, i
		}
	}
}

// killed is when the kill of a process was sent, or 0.
func (e *evidence) killed(process int) int64 {
	for _, f := range e.processes[process].faults {
		if f.kind == faultKill {
			return f.from
		}
	}
	return 0
}

// checkBooks compares what Redis counted with itself and with the ledgers.
func (e *evidence) checkBooks(v *verdict) {
	v.books = slices.Clone(e.audit)
	if !e.side.confirms() {
		return
	}
	again := int64(0)
	for i := range e.jobs {
		again += max(0, e.jobs[i].tries-1)
	}
	in, done, died := e.stats["enqueued"], e.stats["succeeded"], e.stats["died"]
	if in != done+died+int64(len(e.pending)) {
		v.books = append(v.books, fmt.Sprintf("%d were enqueued; %d succeeded, %d died and %d are there", in, done, died, len(e.pending)))
	}
	if in < int64(e.Jobs) || in > int64(e.Jobs)+again {
		v.books = append(v.books, fmt.Sprintf("%d were enqueued, of %d and %d tried again", in, e.Jobs, again))
	}
	if died != int64(len(e.dead)) {
		v.books = append(v.books, fmt.Sprintf("%d died, and %d are dead letters", died, len(e.dead)))
	}
}

// story tells what happened to a job.
func (e *evidence) story(h *history, n int) string {
	var b strings.Builder
	ms := func(t int64) string {
		if t == 0 {
			return "-"
		}
		return fmt.Sprintf("%.3fms", float64(t-h.intended)/1e6)
	}
	_, _ = fmt.Fprintf(&b, "%s (enqueued at %.3fs, acknowledged %s, %d tries)", jobID(n), float64(h.intended)/1e9, ms(h.acked), h.tries)
	for _, s := range h.starts {
		_, _ = fmt.Fprintf(&b, "; %s: start %s, return %s (%d), settled %s (%d)",
			e.processes[s.process].name, ms(s.at), ms(s.returned), s.outcome, ms(s.settled), s.fate)
	}
	for _, r := range h.reaps {
		_, _ = fmt.Fprintf(&b, "; reaped from %s %s", r.from, ms(r.at))
	}
	return b.String()
}
