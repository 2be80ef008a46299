package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// fate is what Redis has confirmed of an attempt.
type fate int64

const (
	fateOpen     fate = iota // nothing was heard
	fateDone                 // the job is done
	fateRetry                // it waits for a retry
	fateReleased             // it was put back, uncounted
	fateDead                 // it is a dead letter
	fateRefused              // the end was refused: another owned the job
)

// A start is one run of a handler, as the ledgers tell it. Times that are 0 did not
// come.
type start struct {
	process               int
	at, returned, settled int64
	outcome               outcome
	fate                  fate
	retries               int64
	hash                  int64
}

// history is what the ledgers say of one job.
type history struct {
	intended, acked int64 // first times
	tries           int64
	producer        int  // the process that had the acknowledgement
	duplicate       bool // the acknowledgement said that the job was there already
	hash            int64
	starts          []start // by time
	reaps           []reap
}

// reap says that a worker took a job from a dead one.
type reap struct {
	at   int64
	by   int    // process
	from string // process
}

// fault is one fault that was done to a process, or to all.
type fault struct {
	kind, target string
	from, to     int64
	happened     bool
}

// life is one process.
type life struct {
	name   string
	faults []fault // its own, by time
	began  int64
	// ended is when it was dead at the latest, 0 if it was not seen to end.
	ended int64
	// out are the times in which the process may have been out of touch with Redis.
	out []span
}

type span struct {
	from, to int64
	kind     string // of the first fault in it
}

// evidence is all that a run leaves behind.
type evidence struct {
	settings
	side      side
	jobs      []history
	processes []life
	faults    []fault // all, by time
	gaps      []fault // times in which a process did not get to run
	pending   map[int]string
	dead      map[int]string
	stats     map[string]int64
	audit     []string
	strange   []string // what names no job of the run
}

// load reads a run's directory.
func load(dir string) (*evidence, error) {
	e := &evidence{pending: map[int]string{}, dead: map[int]string{}, stats: map[string]int64{}}
	text, err := os.ReadFile(filepath.Join(dir, settingsFile))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &e.settings); err != nil {
		return nil, err
	}
	if e.side, err = sideNamed(e.Side); err != nil {
		return nil, err
	}
	e.jobs = make([]history, e.Jobs)
	files, err := filepath.Glob(filepath.Join(dir, "*"+journalSuffix))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if err := e.read(file); err != nil {
			return nil, err
		}
	}
	for i := range e.jobs {
		h := &e.jobs[i]
		slices.SortFunc(h.starts, func(a, b start) int { return cmp.Compare(a.at, b.at) })
	}
	e.assign()
	return e, e.readDump(filepath.Join(dir, dumpFile))
}

// read takes in the ledger of one process.
func (e *evidence) read(file string) error {
	name := strings.TrimSuffix(filepath.Base(file), journalSuffix)
	process := len(e.processes)
	e.processes = append(e.processes, life{name: name})
	type place struct{ job, at int }
	attempts := []place{{-1, 0}} // by number, from 1
	attempt := func(number int64) *start {
		if number <= 0 || number >= int64(len(attempts)) || attempts[number].job < 0 {
			return nil // claimed and not started
		}
		return &e.jobs[attempts[number].job].starts[attempts[number].at]
	}
	known := func(n int64, what string) *history {
		if n < 0 || n >= int64(len(e.jobs)) {
			e.strange = append(e.strange, fmt.Sprintf("%s: %s of a job that is none: %d", name, what, n))
			return nil
		}
		return &e.jobs[n]
	}
	return readJournal(file, func(l *entry) {
		switch l.kind {
		case lineIntent:
			if h := known(l.n[0], "enqueue"); h != nil {
				if h.intended == 0 || l.t < h.intended {
					h.intended = l.t
				}
				h.tries, h.hash = max(h.tries, l.n[1]), l.n[2]
			}
		case lineAck:
			if h := known(l.n[0], "acknowledgement"); h != nil {
				h.acked, h.duplicate, h.producer = l.t, l.n[1] == 1, process
			}
		case lineStart:
			for int64(len(attempts)) <= l.n[0] {
				attempts = append(attempts, place{-1, 0}) // a number may come before one that is lower
			}
			if h := known(l.n[1], "start"); h != nil {
				attempts[l.n[0]] = place{int(l.n[1]), len(h.starts)}
				h.starts = append(h.starts, start{process: process, at: l.t, retries: l.n[3], hash: l.n[6]})
			}
		case lineReturn:
			if s := attempt(l.n[0]); s != nil {
				s.returned, s.outcome = l.t, outcome(l.n[2])
			}
		case lineConfirmed:
			if s := attempt(l.n[0]); s != nil {
				s.settled, s.fate = l.t, fate(l.n[2])
			}
		case lineRefused:
			if s := attempt(l.n[0]); s != nil {
				s.settled, s.fate = l.t, fateRefused
			}
		case lineReaped:
			if h := known(l.n[0], "reap"); h != nil {
				// The worker's identity is the process's name and a random part.
				from := l.text[:max(0, strings.LastIndexByte(l.text, '-'))]
				h.reaps = append(h.reaps, reap{at: l.t, by: process, from: from})
			}
		case lineGap:
			e.gaps = append(e.gaps, fault{kind: faultStall, target: name, from: l.n[0], to: l.t, happened: true})
		case lineFault:
			kind, rest, _ := strings.Cut(l.text, " ")
			target, _, _ := strings.Cut(rest, " ")
			e.faults = append(e.faults, fault{kind: kind, target: target, from: l.n[0], to: l.n[1], happened: l.n[2] == 1})
		case lineBegin:
			e.processes[process].began = l.t
		case lineEnd:
			e.processes[process].ended = l.t
		}
	})
}

// outOfTouch are the faults that keep a process from renewing its lease.
var outOfTouch = []string{faultStop, faultBlackhole, faultRefuse, faultRestart, faultStall, faultRedisStall, faultMute}

// assign gives each process its faults, and works out when it may have been out of
// touch. Faults that follow each other closely are one time out of touch: a process
// that is between them may not get through.
func (e *evidence) assign() {
	e.matchStops()
	slices.SortFunc(e.faults, func(a, b fault) int { return cmp.Compare(a.from, b.from) })
	index := make(map[string]*life)
	for i := range e.processes {
		index[e.processes[i].name] = &e.processes[i]
	}
	var global []fault
	for _, f := range e.faults {
		if f.target == "*" {
			global = append(global, f)
		} else if p := index[f.target]; p != nil {
			p.faults = append(p.faults, f)
			if f.kind == faultKill || f.kind == faultTerm || f.kind == faultOrphan || f.kind == "end" {
				p.ended = f.to
			}
		}
	}
	for i := range e.processes {
		p := &e.processes[i]
		both := slices.Concat(p.faults, global)
		slices.SortFunc(both, func(a, b fault) int { return cmp.Compare(a.from, b.from) })
		for _, f := range both {
			if !slices.Contains(outOfTouch, f.kind) {
				continue
			}
			back := f.to + min(int64(reconnect), f.to-f.from)
			if n := len(p.out); n > 0 && f.from <= p.out[n-1].to {
				p.out[n-1].to = max(p.out[n-1].to, back)
			} else {
				p.out = append(p.out, span{from: f.from, to: back, kind: f.kind})
			}
		}
	}
}

// matchStops has each stop confirmed by the process that was stopped: its ledger has
// a gap. What other gaps there are, the machine made.
func (e *evidence) matchStops() {
	stops := make(map[string][]*fault)
	for i := range e.faults {
		if f := &e.faults[i]; f.kind == faultStop {
			stops[f.target] = append(stops[f.target], f)
		}
	}
	felt := make(map[*fault]bool)
	for _, g := range e.gaps {
		planned := false
		for _, f := range stops[g.target] {
			if g.from <= f.to && g.to >= f.from {
				planned = true
				felt[f] = felt[f] || g.to-g.from > int64(redriveLease)
			}
		}
		if !planned {
			e.faults = append(e.faults, g)
		}
	}
	for _, of := range stops {
		for _, f := range of {
			f.happened = f.happened && felt[f]
		}
	}
}

func (e *evidence) readDump(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		what, rest, _ := strings.Cut(lines.Text(), " ")
		subject, value, _ := strings.Cut(rest, " ")
		switch what {
		case "audit":
			e.audit = append(e.audit, rest)
		case "stat":
			var n int64
			if _, err := fmt.Sscan(value, &n); err != nil {
				return fmt.Errorf("%s: %q: %w", file, lines.Text(), err)
			}
			e.stats[subject] = n
		case "pending", "dead":
			n := jobNumber(subject)
			if n < 0 || n >= len(e.jobs) {
				e.strange = append(e.strange, "Redis has a job that is none: "+lines.Text())
			} else if what == "dead" {
				e.dead[n] = value
			} else {
				e.pending[n] = value
			}
		default:
			return fmt.Errorf("%s: not a line of a dump: %q", file, lines.Text())
		}
	}
	return lines.Err()
}
