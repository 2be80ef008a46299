package redrive_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive"
)

// A bubbleLedger holds what happened in a bubble, in the order in which it did. All
// times are of the bubble's clock, from the start of the scenario, and exact.
type bubbleLedger struct {
	plan  *bubblePlan
	epoch time.Time

	// mu guards all below until the bubble has ended.
	mu       sync.Mutex
	events   []bubbleEvent
	findings []finding
	inners   int            // handlers called
	checked  map[string]int // how often a check had something to check
	enqueues map[string]*enqueueRecord
	workers  []*bubbleWorker
	runs     []*bubbleRun                    // in the order in which they began
	open     map[*redrive.Message]*bubbleRun // not settled
	reaps    []reapRecord
	unheard  []time.Duration // when a put-back was not answered: it may have been of a reap
	upset    []disturbance
	stats    map[string]redrive.QueueStats
	dead     map[string]*redrive.DeadLetterEntry
}

type bubbleEvent struct {
	at                time.Duration
	kind, worker, job string
	text              string
}

// finding is a broken invariant.
type finding struct{ invariant, job, text string }

type enqueueRecord struct {
	job          *jobPlan
	tries        int
	asked, acked time.Duration
	duplicate    bool
}

// bubbleWorker is one life of a worker. Handlers use plan and handlers only.
type bubbleWorker struct {
	plan     *workerPlan
	proxy    *bubbleProxy
	rdb      *redis.Client
	cancel   context.CancelFunc
	done     chan struct{}
	handlers sync.WaitGroup

	started, stopped, ended time.Duration
	crashed                 time.Duration // never: bubbleNever
	err                     error
}

// bubbleNever is later than all that happens.
const bubbleNever = 1 << 62 * time.Nanosecond

// bubbleRun is one attempt of a job.
type bubbleRun struct {
	job    *jobPlan
	worker *bubbleWorker
	msg    redrive.Message // as it was; without payload and history
	index  int             // of its step
	step   step

	began, ended time.Duration // of the whole chain
	err          error         // what the chain returned
	cause        error         // why the worker had cancelled the context, if it had
	result       string

	inner            bool // the handler itself ran
	innerBegan       time.Duration
	innerOrder       int // among all, since several may begin in one instant
	innerEnded       time.Duration
	innerErr         error
	innerCause       error
	alone            time.Duration // when the handler's context was done
	fence            int64
	finished, played bool // chain, handler

	settled time.Duration // the worker heard that Redis has its end
	lost    time.Duration // or that it was refused
	end     redrive.JobEnd
}

type reapRecord struct {
	at       time.Duration
	by, from *bubbleWorker
	job      string
	crashes  int
}

// disturbance is a time in which not all connections of a worker worked; of all
// workers, if it has none.
type disturbance struct {
	from, to time.Duration
	worker   string
	kind     faultKind
}

func newBubbleLedger(plan *bubblePlan) *bubbleLedger {
	return &bubbleLedger{
		plan: plan, epoch: time.Now(), checked: make(map[string]int), enqueues: make(map[string]*enqueueRecord), open: make(map[*redrive.Message]*bubbleRun),
		stats: make(map[string]redrive.QueueStats), dead: make(map[string]*redrive.DeadLetterEntry),
	}
}

func (l *bubbleLedger) now() time.Duration { return time.Since(l.epoch) }

func (l *bubbleLedger) note(kind, worker, job, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noteLocked(kind, worker, job, format, args...)
}

func (l *bubbleLedger) noteLocked(kind, worker, job, format string, args ...any) {
	l.events = append(l.events, bubbleEvent{l.now(), kind, worker, job, fmt.Sprintf(format, args...)})
}

func (l *bubbleLedger) found(invariant, job, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.findings = append(l.findings, finding{invariant, job, fmt.Sprintf(format, args...)})
}

func (l *bubbleLedger) disturbed(f *faultPlan) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.upset = append(l.upset, disturbance{l.now(), l.now() + f.lasts, f.worker, f.kind})
}

func (l *bubbleLedger) enqueue(j *jobPlan) *enqueueRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := &enqueueRecord{job: j, asked: l.now(), acked: bubbleNever}
	l.enqueues[j.id] = e
	return e
}

func (l *bubbleLedger) acknowledged(e *enqueueRecord, duplicate bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.acked, e.duplicate = l.now(), duplicate
	l.noteLocked("enqueue", "", e.job.id, "acknowledged, due after %v", e.job.delay)
}

func (l *bubbleLedger) worker(p *workerPlan) *bubbleWorker {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &bubbleWorker{plan: p, started: l.now(), stopped: bubbleNever, ended: bubbleNever, crashed: bubbleNever}
	l.workers = append(l.workers, w)
	l.noteLocked("worker", p.name, "", "starts: %d slots, lease %v, serves %v", p.concurrency, p.lease, p.queues)
	return w
}

func (l *bubbleLedger) crash(w *bubbleWorker) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.crashed = l.now()
	l.noteLocked("worker", w.plan.name, "", "crashes")
}

func (l *bubbleLedger) stop(w *bubbleWorker) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.stopped = l.now()
	l.noteLocked("worker", w.plan.name, "", "is stopped, within %v", w.plan.shutdown)
}

func (l *bubbleLedger) returned(w *bubbleWorker, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.ended, w.err = l.now(), err
	l.noteLocked("worker", w.plan.name, "", "has stopped: %v", err)
}

// trace has a worker write into the ledger.
func (l *bubbleLedger) trace(w *bubbleWorker) *redrive.WorkerTrace {
	return &redrive.WorkerTrace{
		JobStarted: func(m *redrive.Message) {
			l.mu.Lock()
			defer l.mu.Unlock()
			r := &bubbleRun{
				worker: w, msg: *m, began: l.now(), ended: bubbleNever, innerEnded: bubbleNever,
				alone: bubbleNever, settled: bubbleNever, lost: bubbleNever,
			}
			r.msg.Payload, r.msg.Errors = nil, nil
			l.runs, l.open[m] = append(l.runs, r), r
			if e := l.enqueues[m.ID]; e != nil {
				r.job = e.job
				r.index, r.step = r.job.stepOf(m)
			}
			l.noteLocked("run", w.plan.name, m.ID, "starts: retries %d, crashes %d, snoozes %d, interrupts %d; will %v after %v",
				m.Retries, m.Crashes, m.Snoozes, m.Interrupts, r.step.do, r.step.takes)
		},
		JobSettled: func(m *redrive.Message, e redrive.JobEnd) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.noteLocked("run", w.plan.name, m.ID, "settled: %v, again in %v (%.60v)", e.Action, e.Delay, e.Err)
			if r := l.open[m]; r != nil {
				r.settled, r.end = l.now(), e
				delete(l.open, m)
			}
		},
		JobLost: func(m *redrive.Message) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.noteLocked("run", w.plan.name, m.ID, "its end was refused")
			if r := l.open[m]; r != nil {
				r.lost = l.now()
				delete(l.open, m)
			}
		},
		JobReaped: func(_, id, dead string, crashes int) {
			l.mu.Lock()
			defer l.mu.Unlock()
			from := l.named(dead[:strings.LastIndex(dead, "-")])
			l.reaps = append(l.reaps, reapRecord{at: l.now(), by: w, from: from, job: id, crashes: crashes})
			l.noteLocked("reap", w.plan.name, id, "taken from %s, crash %d", from.plan.name, crashes)
		},
		RedisLost: func(queue string, err error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if strings.HasPrefix(err.Error(), "put back") {
				l.unheard = append(l.unheard, l.now())
			}
			l.noteLocked("redis", w.plan.name, "", "%s is lost: %.80v", queue, err)
		},
		RedisBack: func(queue string, after time.Duration) {
			l.note("redis", w.plan.name, "", "%s is back after %v", queue, after)
		},
	}
}

func (l *bubbleLedger) named(name string) *bubbleWorker {
	return l.workers[slices.IndexFunc(l.workers, func(w *bubbleWorker) bool { return w.plan.name == name })]
}

// run returns the attempt that a handler was called for.
func (l *bubbleLedger) run(m *redrive.Message) *bubbleRun {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open[m]
}

// story tells what happened to a job, and to workers and Redis meanwhile.
func (l *bubbleLedger) story(job string) string {
	var b strings.Builder
	for _, e := range l.events {
		if job != "" && e.job != "" && e.job != job {
			continue
		}
		fmt.Fprintf(&b, "\t%14v  %-7s %-4s %-8s %s\n", e.at, e.kind, e.worker, e.job, e.text)
	}
	return b.String()
}

// bubbleGoroutines returns the stacks of the other goroutines of this bubble.
func bubbleGoroutines() (left []string) {
	buf := make([]byte, 1<<20)
	stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	head, _, _ := strings.Cut(stacks[0], "\n")
	_, bubble, ok := strings.Cut(strings.TrimSuffix(head, "]:"), "synctest bubble ")
	if !ok {
		return []string{"this goroutine is in no bubble: " + head}
	}
	for _, s := range stacks[1:] {
		head, _, _ := strings.Cut(s, "\n")
		// The test itself and the bubble's first goroutine wait for this one.
		if strings.Contains(head, "synctest bubble "+bubble+"]") && !strings.Contains(s, "testingSynctestTest") && !strings.Contains(s, "synctest.Run(") {
			left = append(left, s)
		}
	}
	return left
}
