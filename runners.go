package redrive

import (
	"sync"
	"sync/atomic"
)

// Runners are the goroutines that run attempts: as many as were ever busy at once, up
// to the worker's Concurrency. They end after [runners.close], once nothing waits.
//
// A runner that takes an attempt while more wait calls one other, and that one the
// next. So a batch of handlers that return at once is run by one or two runners, with
// no switch of goroutines for each job; and behind a handler that takes its time,
// another runner is on its way already.
type runners struct {
	run   func(*attempt)
	limit int
	busy  atomic.Int64 // attempts whose handler has not returned, those that wait included
	more  atomic.Bool  // some wait
	flush func()       // called after the last that waited was taken
	all   sync.WaitGroup

	mu      sync.Mutex
	work    sync.Cond
	waiting []*attempt // from head on
	head    int
	started int
	idle    int
	called  bool // an idle or a new runner is on its way
	closed  bool
}

func (r *runners) init(limit int, run func(*attempt), flush func()) {
	r.limit, r.run, r.flush = limit, run, flush
	r.work.L = &r.mu
}

// launch hands attempts to the runners, in their order. There are never more than
// slots, so none waits but for a runner to come.
func (r *runners) launch(as []*attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return // past the deadline of the shutdown: drain puts the jobs back
	}
	r.busy.Add(int64(len(as)))
	r.waiting = append(r.waiting, as...)
	r.more.Store(r.head < len(r.waiting))
	r.call()
}

// call makes one more runner come if there is work for it, with mu held.
func (r *runners) call() {
	switch {
	case r.called || r.head == len(r.waiting):
	case r.idle > 0:
		r.called = true
		r.work.Signal()
	case r.started < r.limit:
		r.called = true
		r.started++
		r.all.Go(r.loop)
	}
}

// loop runs attempts until the work ends.
func (r *runners) loop() {
	r.mu.Lock()
	r.called = false
	for {
		for r.head == len(r.waiting) {
			if r.closed {
				r.mu.Unlock()
				return
			}
			r.idle++
			r.work.Wait()
			r.idle--
			r.called = false
		}
		a := r.waiting[r.head]
		r.waiting[r.head] = nil
		last := r.head+1 == len(r.waiting)
		if r.head++; last {
			r.waiting, r.head = r.waiting[:0], 0
			r.more.Store(false)
		}
		r.call()
		r.mu.Unlock()
		if last {
			r.flush()
		}
		r.run(a)
		r.mu.Lock()
	}
}

// replace starts a runner in place of one whose handler has ended its goroutine.
func (r *runners) replace() { r.all.Go(r.loop) }

// close takes no more work.
func (r *runners) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.work.Broadcast()
}
