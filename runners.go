package redrive

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Runners are the goroutines that do a session's work: they run attempts, and make
// the rounds of the couriers. There are as many as were ever needed at once, up to the
// worker's Concurrency: who runs an attempt or makes a round holds a slot. They end
// after [runners.close], once no attempt waits.
//
// A runner that comes back from a round with jobs runs them itself, and makes the next
// round with what has ended: while handlers return at once, a worker needs one goroutine
// and wakes none. Behind a handler that may take its time, work must not wait. So a
// runner that leaves work behind calls one other, and that one the next; only in front
// of a task that has been quick lately does it wait with that for [alone], and the
// watch calls if it was wrong.
type runners struct {
	run   func(a *attempt, now time.Time) (end time.Time)
	limit int
	busy  atomic.Int64 // attempts whose handler has not returned, those that wait included

	all    sync.WaitGroup // the goroutines
	rounds sync.WaitGroup // the rounds under way

	mu      sync.Mutex
	work    sync.Cond
	waiting []*attempt // to be run, from head on
	head    int
	due     []*courier // have a round to make
	started int
	idle    int
	called  bool // an idle or a new runner is on its way
	closed  bool

	// left is since when work waits that nobody was called for; zero if there is none.
	left  time.Time
	watch *time.Timer // looks after it
	hurry bool        // the watch has found some: call for whatever is left
}

const (
	// quick is how long the handlers of a task may take, on average, for the job to be
	// run in front of others. To wake a goroutine, and often a thread, costs as much.
	quick = 10 * time.Microsecond
	// alone is how long a runner may leave work behind for quick tasks.
	alone = 60 * time.Microsecond
	// patience is when the watch calls, and how long an attempt that has ended may wait
	// for the round while others are to be run.
	patience = time.Millisecond
)

func (r *runners) init(limit int, run func(*attempt, time.Time) time.Time) {
	r.limit, r.run = limit, run
	r.work.L = &r.mu
	r.watch = time.AfterFunc(time.Hour, r.look)
	r.watch.Stop()
}

// launch has attempts run, in their order. The caller takes part as a runner, or
// calls one.
func (r *runners) launch(as []*attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return // past the deadline of the shutdown: drain puts the jobs back
	}
	r.busy.Add(int64(len(as)))
	r.waiting = append(r.waiting, as...)
}

// call makes one more runner come if there is work for it.
func (r *runners) call() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.more() {
		r.callLocked()
	}
}

func (r *runners) callLocked() {
	r.left = time.Time{}
	switch {
	case r.called:
	case r.idle > 0:
		r.called = true
		r.work.Signal()
	case r.started < r.limit:
		r.called = true
		r.started++
		r.all.Go(r.loop)
	}
}

// more reports whether there is work; mu is held.
func (r *runners) more() bool { return r.head < len(r.waiting) || len(r.due) > 0 }

// loop works until the end.
func (r *runners) loop() {
	now := time.Now()
	r.mu.Lock()
	r.called = false
	for {
		a, c := r.next(now)
		switch {
		case a != nil:
			r.mu.Unlock()
			now = r.run(a, now)
			r.mu.Lock()
		case c != nil:
			r.mu.Unlock()
			c.round()
			now = time.Now()
			r.mu.Lock()
			c.back(now)
			r.rounds.Done()
		case r.closed:
			r.mu.Unlock()
			return
		default:
			r.idle++
			r.work.Wait()
			r.idle--
			r.called = false
			now = time.Now()
		}
	}
}

// next takes a piece of work: an attempt to run, else a round to make, unless what has
// ended waits too long for it. And it sees to what it leaves behind. mu is held.
func (r *runners) next(now time.Time) (a *attempt, c *courier) {
	switch {
	case len(r.due) > 0 && (r.head == len(r.waiting) || now.Sub(r.due[0].since) > patience):
		c = r.due[0]
		r.due = slices.Delete(r.due, 0, 1)
		r.rounds.Add(1)
	case r.head < len(r.waiting):
		a = r.waiting[r.head]
		r.waiting[r.head] = nil
		if r.head++; r.head == len(r.waiting) {
			r.waiting, r.head = r.waiting[:0], 0
		}
	}
	switch patient := a != nil && !r.hurry && a.route.pace() <= quick; {
	case !r.more():
		r.left, r.hurry = time.Time{}, false
	case patient && r.left.IsZero() && !r.called:
		r.left = now
		r.watch.Reset(patience)
	case !patient || now.Sub(r.left) > alone:
		r.callLocked()
	}
	return a, c
}

// look is the watch: it calls if the runner that left work behind has not come back.
func (r *runners) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.left.IsZero() {
		r.hurry = true
		r.callLocked()
	}
}

// replace starts a runner in place of one whose handler has ended its goroutine.
func (r *runners) replace() { r.all.Go(r.loop) }

// close begins no round any more, and takes no more work.
func (r *runners) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.due, r.left = nil, time.Time{}
	r.watch.Stop()
	r.work.Broadcast()
}
