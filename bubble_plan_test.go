package redrive_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/redrive-go/redrive"
)

// A bubblePlan is all that a seed fixes: who does what when, and what goes wrong.
// Times count from the start of the scenario.
type bubblePlan struct {
	seed    uint64
	horizon time.Duration // planned workers stop then, and a sweeper ends what is left
	queues  []string
	tasks   []*taskPlan
	jobs    []*jobPlan
	workers []*workerPlan
	faults  []faultPlan
	pauses  []pausePlan
}

// layerPlan is the middleware around a task's handler.
type layerPlan int

const (
	plain layerPlan = iota
	alone           // Singleton
	once            // Idempotent
)

type taskPlan struct {
	name, queue string
	layer       layerPlan
	timeout     time.Duration
	retry       redrive.RetryPolicy
	ttl         time.Duration    // of the lock, or the lease of the idempotency claim
	conflict    redrive.Conflict // of alone
	task        *redrive.Task[bubbleArgs, string]
}

// bubbleArgs are the arguments of every job. Jobs of one key have equal ones.
type bubbleArgs struct{ Key, Note string }

type jobPlan struct {
	id     string
	task   *taskPlan
	args   bubbleArgs
	at     time.Duration
	delay  time.Duration
	runAt  bool   // the delay is given as a time
	script []step // see stepOf
}

// outcome is what a handler makes of an attempt.
type outcome int

const (
	succeed outcome = iota
	fail
	failRuled // with the error that the rule of the task's policy matches
	failPermanent
	panics
	goexits
	asksRetry // RetryAfter
	snoozes
	discards
)

func (o outcome) String() string {
	return [...]string{"succeed", "fail", "fail by the rule", "fail for good", "panic", "exit", "ask for a retry", "snooze", "discard"}[o]
}

// step is one attempt of a job as its handler plays it.
type step struct {
	do    outcome
	takes time.Duration
	wait  time.Duration // of asksRetry and snoozes
	// deaf is for how long the handler goes on after the end of its context. If its
	// work is done by then, it returns as if nothing had been.
	deaf time.Duration
}

var (
	errPlanned = errors.New("planned failure")
	errRuled   = errors.New("planned failure of the rule")
)

// stepOf returns what an attempt does. Crashes and interrupts do not move a job on
// in its script.
func (j *jobPlan) stepOf(m *redrive.Message) (i int, s step) {
	i = m.Retries
	if j.task.layer == plain {
		i += m.Snoozes
	}
	return i, j.script[min(i, len(j.script)-1)]
}

type workerPlan struct {
	name        string
	queues      []redrive.Queue
	concurrency int
	lease       time.Duration
	shutdown    time.Duration
	start, end  time.Duration
	// crash cuts the worker off for good at its end; in a hole if it is not told.
	// Its goroutines haunt on for a while.
	crash, silent bool
	haunts        time.Duration
}

func (w *workerPlan) serves(queue string) bool {
	for _, q := range w.queues {
		if q.Name == queue {
			return true
		}
	}
	return false
}

// faultKind is what a fault does to connections.
type faultKind int

const (
	faultReset   faultKind = iota // cut, once
	faultDown                     // cut, new ones refused
	faultHole                     // nothing arrives
	faultLoading                  // Redis answers that it cannot
	faultDrop                     // a few replies are lost
	faultLate                     // replies are late
	faultFlaky                    // some of all that
)

func (k faultKind) String() string {
	return [...]string{"reset", "down", "hole", "loading", "drop", "late", "flaky"}[k]
}

// silences reports whether nothing at all gets through.
func (k faultKind) silences() bool { return k == faultDown || k == faultHole || k == faultLoading }

type faultPlan struct {
	kind      faultKind
	at, lasts time.Duration
	worker    string // empty for everybody
	nth       int    // of faultDrop: which script's reply is lost first
	late      time.Duration
	flush     bool // scripts are forgotten meanwhile: Redis was restarted
}

type pausePlan struct {
	queue     string
	at, lasts time.Duration
}

// A bubbleProfile weighs what a seed may draw.
type bubbleProfile struct {
	horizons  []time.Duration
	leases    []time.Duration
	jobs      int // at most; at least a third
	workers   int // at most; at least two
	tasks     []layerPlan
	outcomes  []outcome // besides succeed
	failing   float64   // how likely a step is one of them
	delayed   float64   // how many jobs are delayed
	deaf      float64   // how many steps ignore their context for a while
	slow      float64   // how many steps take long: up to hours
	crash     float64   // how many workers end so
	faults    int       // at most
	faultKind []faultKind
	pauses    int
	roomy     bool     // workers have more slots than there are jobs
	shows     []string // the checks that must have found something to check
}

// draw makes the choices of a plan. Durations are whole milliseconds, as Redis
// counts: what is rounded the wrong way shows.
type draw struct{ *rand.Rand }

func (d draw) chance(p float64) bool { return d.Float64() < p }

func (d draw) between(low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + time.Duration(d.Int64N(int64(high-low)/int64(time.Millisecond)+1))*time.Millisecond
}

// wide draws a duration whose magnitude, too, is up to chance.
func (d draw) wide(low, high time.Duration) time.Duration {
	for d.chance(0.5) && high > 8*low {
		high /= 4
	}
	return d.between(low, high)
}

func pick[T any](d draw, from []T) T { return from[d.IntN(len(from))] }

// newBubblePlan draws the plan of a seed.
func newBubblePlan(seed uint64, p bubbleProfile) *bubblePlan {
	d := draw{rand.New(rand.NewPCG(seed, 1))}
	plan := &bubblePlan{seed: seed, horizon: pick(d, p.horizons), queues: []string{"q1", "q2"}[:1+d.IntN(2)]}
	for i, layer := range p.tasks {
		plan.tasks = append(plan.tasks, d.task(plan, i, layer))
	}
	for i := range p.jobs/3 + d.IntN(1+p.jobs*2/3) {
		plan.jobs = append(plan.jobs, d.job(plan, p, i))
	}
	for i := range 2 + d.IntN(max(1, p.workers-1)) {
		plan.workers = append(plan.workers, d.worker(plan, p, i))
	}
	at := time.Duration(0)
	for range d.IntN(p.faults + 1) {
		// One after the other, so that the end of one is not the start of another.
		f := d.fault(plan, p)
		if f.at = at + d.wide(time.Second, plan.horizon/2); f.at+f.lasts > plan.horizon {
			break
		}
		at = f.at + f.lasts
		plan.faults = append(plan.faults, f)
	}
	at = 0
	for range d.IntN(p.pauses + 1) {
		z := pausePlan{queue: pick(d, plan.queues), at: at + d.wide(time.Second, plan.horizon/2), lasts: d.wide(time.Second, plan.horizon/4)}
		if at = z.at + z.lasts; at < plan.horizon {
			plan.pauses = append(plan.pauses, z)
		}
	}
	return plan
}

func (d draw) task(plan *bubblePlan, i int, layer layerPlan) *taskPlan {
	t := &taskPlan{name: fmt.Sprintf("t%d", i), queue: pick(d, plan.queues), layer: layer, timeout: redrive.NoTimeout}
	if layer == plain && d.chance(0.4) {
		t.timeout = d.wide(time.Second, 30*time.Minute) + 500*time.Microsecond
	}
	t.retry = d.policy()
	if layer == plain && d.chance(0.4) {
		t.retry.Rules = []redrive.RetryRule{{If: redrive.Is(errRuled), Policy: d.policy()}}
	}
	t.ttl = d.wide(time.Second, time.Minute)
	t.conflict = pick(d, []redrive.Conflict{redrive.Later(d.wide(time.Second, time.Minute)), redrive.Skip, redrive.Fail})
	t.task = redrive.NewTask[bubbleArgs, string](t.name, redrive.TaskOptions{Queue: t.queue, Timeout: t.timeout, Retry: t.retry})
	return t
}

func (d draw) policy() redrive.RetryPolicy {
	base := d.wide(10*time.Millisecond, time.Minute) + 300*time.Microsecond
	return redrive.RetryPolicy{
		MaxRetries: pick(d, []int{redrive.NoRetries, 1, 2, 3, 5, 8}),
		Backoff: pick(d, []redrive.Backoff{
			redrive.Exponential(base, time.Hour), redrive.ExponentialFactor(base, time.Hour, 3.5),
			redrive.Linear(base, time.Hour), redrive.Constant(base), redrive.Schedule(base, 0, 40*base),
		}),
		Jitter: pick(d, []redrive.Jitter{redrive.NoJitter, redrive.FullJitter, redrive.EqualJitter, redrive.DecorrelatedJitter}),
	}
}

func (d draw) job(plan *bubblePlan, p bubbleProfile, i int) *jobPlan {
	j := &jobPlan{id: fmt.Sprintf("%d-j%02d", plan.seed, i), task: pick(d, plan.tasks), at: d.between(0, plan.horizon*3/4)}
	if d.chance(0.3) {
		j.at = d.between(0, time.Second) // some at once: more than there are slots
	}
	if j.task.layer == plain {
		j.args = bubbleArgs{Key: j.id, Note: fmt.Sprint(d.Uint64())}
	} else {
		key := fmt.Sprintf("k%d", d.IntN(3))
		j.args = bubbleArgs{Key: key, Note: "of " + key}
	}
	if d.chance(p.delayed) {
		j.delay = d.wide(time.Millisecond, 2*time.Hour) + pick(d, []time.Duration{0, 1, 400 * time.Microsecond, 999 * time.Microsecond})
		j.runAt = d.chance(0.5)
	}
	for len(j.script) < 12 {
		s := d.step(p, j)
		j.script = append(j.script, s)
		if s.do == succeed || s.do == failPermanent || s.do == discards {
			break
		}
	}
	j.script = append(j.script, step{do: succeed}) // a job that was given up may be longer
	return j
}

func (d draw) step(p bubbleProfile, j *jobPlan) step {
	s := step{do: succeed, takes: d.wide(time.Millisecond, time.Minute)}
	switch {
	case d.chance(p.slow):
		s.takes = d.wide(time.Minute, 2*time.Hour)
	case d.chance(0.4):
		s.takes = 0
	}
	if d.chance(p.failing) {
		s.do = pick(d, p.outcomes)
	}
	if j.task.layer != plain && s.do == snoozes {
		s.do = fail // its snoozes are those of the middleware
	}
	s.wait = d.wide(time.Millisecond, time.Hour) + 700*time.Microsecond
	if d.chance(p.deaf) {
		s.deaf = d.wide(10*time.Millisecond, 3*time.Minute)
	}
	s.deaf += 300 * time.Microsecond // no two things at once: the end of a context and that of the work
	return s
}

// leasesPerPlan bounds how often a worker beats, which costs real time.
const leasesPerPlan = 200

func (d draw) worker(plan *bubblePlan, p bubbleProfile, i int) *workerPlan {
	w := &workerPlan{
		name: fmt.Sprintf("w%d", i), concurrency: 1 + d.IntN(5), lease: max(pick(d, p.leases), plan.horizon/leasesPerPlan),
		shutdown: d.wide(time.Second, time.Minute), end: plan.horizon, haunts: d.wide(0, 5*time.Minute),
	}
	if p.roomy {
		w.concurrency = 2 * p.jobs
	}
	for _, q := range plan.queues {
		if len(w.queues) == 0 || d.chance(0.7) {
			w.queues = append(w.queues, redrive.Queue{Name: q, Weight: 1 + d.IntN(3)})
		}
	}
	if i > 0 { // the first serves from start to end
		w.start = d.wide(0, plan.horizon/2)
		w.end = w.start + d.wide(time.Millisecond, plan.horizon-w.start)
	}
	if w.crash = d.chance(p.crash); w.crash {
		w.end = w.start + d.between(0, (plan.horizon-w.start)/2)
		w.silent = d.chance(0.5)
	}
	return w
}

func (d draw) fault(plan *bubblePlan, p bubbleProfile) faultPlan {
	f := faultPlan{kind: pick(d, p.faultKind), nth: 1 + d.IntN(4), late: d.wide(time.Millisecond, 5*time.Second)}
	// Shorter and longer than the leases there are.
	f.lasts = d.wide(100*time.Millisecond, 4*pick(d, plan.workers).lease)
	if f.kind == faultReset {
		f.lasts = time.Millisecond
	}
	if d.chance(0.5) {
		f.worker = pick(d, plan.workers).name
	} else {
		f.flush = d.chance(0.3)
	}
	return f
}
