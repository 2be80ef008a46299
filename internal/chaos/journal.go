package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// The kinds of lines in a ledger, and their numbers and text. Times are those of
// [now].
const (
	lineIntent    = 'I' // job, try, hash of the payload: about to enqueue
	lineAck       = 'A' // job, 1 if it was reported as a duplicate: it is enqueued
	lineNoAnswer  = 'Q' // job; error: will be enqueued again
	lineBegin     = 'B' // pid: the process works
	lineEnd       = 'Z' // the process ends in good order
	lineStart     = 'S' // attempt, job, starts, retries, crashes, interrupts, hash of the payload
	lineReturn    = 'E' // attempt, job, outcome; why its context ended: the handler returns
	lineConfirmed = 'C' // attempt or 0, job, fate: Redis has confirmed it
	lineRefused   = 'X' // attempt or 0, job: Redis refused the attempt's end
	lineReaped    = 'R' // job, crashes; the dead worker
	lineGap       = 'G' // time before: the process did not get to run since
	lineFault     = 'F' // from, to, 1 if it is shown to have happened; kind, target, details
)

// A journal is the ledger of one process: a file that is only appended to, one
// write(2) a line, so that all of it survives a kill -9 of the process but a line
// that the kill cut short. It need not survive the machine, so it is not synced.
type journal struct {
	mu  sync.Mutex
	f   *os.File
	buf []byte
}

const journalSuffix = ".ledger"

func openJournal(dir, process string) (*journal, error) {
	f, err := os.OpenFile(filepath.Join(dir, process+journalSuffix), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	return &journal{f: f}, nil
}

// write appends a line and returns its time. A process that cannot keep its ledger
// must not go on.
func (j *journal) write(kind byte, text string, numbers ...int64) int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	t := now()
	b := append(j.buf[:0], kind, ' ')
	b = strconv.AppendInt(b, t, 10)
	for _, n := range numbers {
		b = strconv.AppendInt(append(b, ' '), n, 10)
	}
	if text != "" {
		b = append(b, ' ', '|')
		b = append(b, strings.ReplaceAll(text, "\n", " ")...)
	}
	b = append(b, '\n')
	j.buf = b
	if _, err := j.f.Write(b); err != nil {
		panic(fmt.Sprintf("ledger %s: %v", j.f.Name(), err))
	}
	return t
}

// entry is one line read back. It is good until the next one is read.
type entry struct {
	kind byte
	t    int64
	n    [8]int64
	text string
}

// readJournal calls f for each whole line of a ledger.
func readJournal(file string, f func(*entry)) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for line := 1; len(data) > 0; line++ {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			return nil // cut short by a kill: what it announces was not done
		}
		e, err := parseEntry(data[:i])
		if err != nil {
			return fmt.Errorf("%s:%d: %w", file, line, err)
		}
		f(&e)
		data = data[i+1:]
	}
	return nil
}

func parseEntry(b []byte) (e entry, err error) {
	bad := fmt.Errorf("not a line of a ledger: %q", b)
	if len(b) < 3 || b[1] != ' ' {
		return e, bad
	}
	e.kind = b[0]
	b = b[2:]
	for i := -1; len(b) > 0; i++ {
		if b[0] == '|' {
			e.text = string(b[1:])
			return e, nil
		}
		var n int64
		digits := 0
		for digits < len(b) && b[digits] >= '0' && b[digits] <= '9' {
			n = n*10 + int64(b[digits]-'0')
			digits++
		}
		switch {
		case digits == 0, digits < len(b) && b[digits] != ' ', i >= len(e.n):
			return e, bad
		case i < 0:
			e.t = n
		default:
			e.n[i] = n
		}
		b = b[min(len(b), digits+1):]
	}
	return e, nil
}
