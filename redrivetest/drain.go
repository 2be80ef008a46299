package redrivetest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/store"
)

// Default values of [DrainOptions].Limit.
const (
	// DefaultLimit holds outside a synctest bubble, where time is real.
	DefaultLimit = 10 * time.Second
	// DefaultBubbleLimit holds in a bubble, where waiting costs nothing.
	DefaultBubbleLimit = 7 * 24 * time.Hour
)

// DrainOptions changes one [Env.Drain].
type DrainOptions struct {
	// Worker configures the worker of each queue; its Queues are ignored.
	// Defaults to the defaults of [redrive.WorkerOptions].
	Worker redrive.WorkerOptions
	// Limit bounds the drain, by the test's clock: a queue that is not empty by
	// then fails the test. It also ends what retries for ever.
	// Defaults to [DefaultLimit], in a synctest bubble to [DefaultBubbleLimit].
	Limit time.Duration
}

// Attempt is one attempt of a job that ended, and how.
type Attempt struct {
	// Message is the job as the attempt saw it.
	redrive.Message
	// JobEnd is what became of it.
	redrive.JobEnd
}

// Drained is what a drain did.
type Drained struct {
	// Attempts lists the attempts in the order in which they were settled. Jobs
	// that were settled without a run, such as those of an unknown task, are in it.
	Attempts []Attempt
	// Dead lists those of the attempts that ended as dead letters.
	Dead []Attempt
}

// Drain runs jobs of all queues until none is left that waits, runs or is
// delayed: also those that handlers enqueue meanwhile. Each queue has a worker of
// its own. In a synctest bubble the clock jumps from one due job to the next;
// outside, Drain waits. It fails the test when the limit is reached, for instance
// because a queue is paused. Nil options are the defaults.
func (e *Env) Drain(mux *redrive.Mux, opts *DrainOptions) *Drained {
	e.t.Helper()
	d := &drain{e: e, mux: mux, settled: make(chan struct{}, 1), stops: make(map[string]func())}
	if opts != nil {
		d.opts = *opts
	}
	if d.opts.Limit == 0 {
		d.opts.Limit = DefaultLimit
		if inBubble() {
			d.opts.Limit = DefaultBubbleLimit
		}
	}
	d.observe()
	defer d.stop()
	if left := d.run(time.Now().Add(d.opts.Limit)); left != "" {
		e.t.Fatalf("redrivetest: Drain: not empty after %v: %s", d.opts.Limit, left)
	}
	return &d.done
}

// inBubble tells a synctest bubble by its clock, which starts at the year 2000.
func inBubble() bool { return time.Now().Year() < 2020 }

// drain is one Drain. Its workers report to it through a WorkerTrace.
type drain struct {
	e    *Env
	mux  *redrive.Mux
	opts DrainOptions

	settled chan struct{} // something was settled since run last looked
	stops   map[string]func()

	mu   sync.Mutex // guards done
	done Drained
}

// idleFor is how long the workers are kept for the next delayed job. For a longer
// wait they stop: an idle worker listens every two seconds and beats its lease,
// which would fill the hours that a bubble could skip.
const idleFor = time.Second

// run returns what is left at the deadline, or an empty string.
func (d *drain) run(deadline time.Time) (left string) {
	for {
		state, err := d.look()
		if err != nil {
			d.e.t.Fatalf("redrivetest: Drain: %v", err)
		}
		now := time.Now()
		switch {
		case state.empty() && len(d.stops) > 0:
			// A job may have moved on, into a queue that was looked at before: look
			// again, with nothing running.
			d.stop()
		case state.empty():
			return ""
		case !now.Before(deadline):
			return state.String()
		case state.busy > 0 || state.due.Sub(now) <= idleFor:
			d.serve(state.queues)
			d.wait(min(idleFor, deadline.Sub(now)))
		default:
			d.stop()
			if state.due.After(deadline) {
				return state.String()
			}
			time.Sleep(state.due.Sub(now))
		}
	}
}

// wait returns when something was settled, or after the time given: what waits
// for a queue that nobody serves yet must be found, too.
func (d *drain) wait(atMost time.Duration) {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-d.settled:
	case <-timer.C:
	}
}

// serve starts a worker for each queue that has none.
func (d *drain) serve(queues []string) {
	for _, name := range queues {
		if d.stops[name] == nil {
			opts := d.opts.Worker
			opts.Queues = []redrive.Queue{{Name: name}}
			d.stops[name] = d.e.Run(d.mux, opts)
		}
	}
}

func (d *drain) stop() {
	for name, stop := range d.stops {
		stop()
		delete(d.stops, name)
	}
}

// observe puts the drain's book-keeping before the user's own trace.
func (d *drain) observe() {
	var trace redrive.WorkerTrace
	if d.opts.Worker.Trace != nil {
		trace = *d.opts.Worker.Trace
	}
	users := trace.JobSettled
	trace.JobSettled = func(m *redrive.Message, end redrive.JobEnd) {
		a := Attempt{Message: *m, JobEnd: end}
		a.Payload = slices.Clone(m.Payload)
		d.mu.Lock()
		d.done.Attempts = append(d.done.Attempts, a)
		if end.Action == redrive.ActionDead {
			d.done.Dead = append(d.done.Dead, a)
		}
		d.mu.Unlock()
		if users != nil {
			users(m, end)
		}
		select {
		case d.settled <- struct{}{}:
		default:
		}
	}
	d.opts.Worker.Trace = &trace
}

// look sums up all queues. The ids of their jobs are not read: a drain of many
// jobs looks after each of them.
func (d *drain) look() (state queuesState, err error) {
	ctx, rdb := context.Background(), d.e.rdb
	names, err := store.Queues(ctx, rdb, redrive.DefaultPrefix)
	if err != nil {
		return state, err
	}
	for _, name := range names {
		s, err := d.e.Client.Stats(ctx, name)
		if err != nil {
			return state, err
		}
		if s.Ready+s.Active+s.Delayed == 0 {
			continue
		}
		state.add(name, s)
		if s.Delayed == 0 {
			continue
		}
		due, err := store.Open(rdb, redrive.DefaultPrefix, name).NextDue(ctx)
		if err != nil {
			return state, err
		}
		if state.due.IsZero() || !due.IsZero() && due.Before(state.due) {
			state.due = due
		}
	}
	return state, nil
}
