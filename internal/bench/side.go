package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// A side is one contestant, in its best honest configuration.
type side interface {
	name() string
	// describe says how a worker of so many slots is configured.
	describe(slots int) string
	// fill adds n waiting jobs in the quickest way there is. It is not measured.
	// A delay puts them into the set of delayed jobs.
	fill(queue string, n, payload int, delay time.Duration)
	// producer returns what a user calls to enqueue one job; it is safe for
	// concurrent use. close releases its connections.
	producer(queue string, goroutines int) (enqueue func(data string) error, close func())
	// start runs a worker until stop, which returns when it has drained.
	start(o workOptions) (stop func())
	// left counts the jobs that wait or run.
	left(queue string) int
}

// workOptions configures a worker.
type workOptions struct {
	slots  int
	queues []string
	// failOnce makes every job fail at its first attempt, and retry after 1 ms.
	failOnce bool
	// eager polls every millisecond, for a side that polls.
	eager bool
	// decode makes the handler decode the payload's JSON. Without it nobody reads it.
	decode bool
	// job runs in the handler, except in an attempt that fails.
	job func(payload []byte)
	// failing runs in an attempt that fails.
	failing func()
}

// args is the payload of every job: as JSON it has the size that was asked for.
type args struct {
	Data string `json:"data"`
}

const (
	queueName   = "bench"
	taskName    = "bench.noop"
	payloadSize = 100
	frame       = len(`{"data":""}`)
)

// body pads stamp so that the payload has the given size.
func body(stamp string, payload int) string {
	return stamp + strings.Repeat("x", max(0, payload-frame-len(stamp)))
}

// stamp is the part of a payload that [body] was given, if it has the length.
func stamp(payload []byte, length int) string {
	at := frame - len(`"}`)
	return string(payload[at:min(at+length, len(payload))])
}

func encoded(data string) []byte { return []byte(`{"data":"` + data + `"}`) }

// tally counts handlers and notes when the first and the last one ran.
type tally struct {
	start time.Time
	want  int64
	n     atomic.Int64
	first atomic.Int64 // since start
	last  atomic.Int64
	done  chan struct{}
}

func newTally(want int) *tally {
	return &tally{start: time.Now(), want: int64(want), done: make(chan struct{})}
}

// begin notes the first attempt.
func (t *tally) begin() {
	if t.first.Load() == 0 {
		t.first.CompareAndSwap(0, int64(time.Since(t.start)))
	}
}

func (t *tally) job([]byte) {
	t.begin()
	if t.n.Add(1) == t.want {
		t.last.Store(int64(time.Since(t.start)))
		close(t.done)
	}
}

// patience bounds every wait: a benchmark that hangs is a failure to report.
const patience = 3 * time.Minute

func (t *tally) wait(what string) {
	select {
	case <-t.done:
	case <-time.After(patience):
		fatal(fmt.Errorf("%s: %d of %d jobs ran within %v", what, t.n.Load(), t.want, patience))
	}
}

// rate is in jobs per second, from the first handler to the last.
func (t *tally) rate() float64 {
	return float64(t.want-1) / (float64(t.last.Load()-t.first.Load()) / 1e9)
}

// failure carries an error to main, past everything that has to be cleaned up:
// no figure is worth anything after the first error.
type failure struct{ err error }

func fatal(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// errFirst is what handlers fail with that fail once.
var errFirst = errors.New("first attempt")

var background = context.Background()
