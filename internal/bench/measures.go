package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// figures are what one run of one probe on one side found, by metric.
type figures map[string]float64

// bench is one invocation.
type bench struct {
	srv     *server
	redrive *redriveSide
	asynq   *asynqSide
	target  time.Duration // how long one timed run should last
	quick   bool
	profile string // directory, or empty
	rates   map[string]float64
}

func (b *bench) sides() []side { return []side{b.redrive, b.asynq} }

// fresh starts a server for a measure: none finds the memory as another has left it.
func (b *bench) fresh() {
	if b.srv != nil {
		b.srv.stop()
		b.srv = nil
	}
	srv, err := startServer()
	fatal(err)
	b.srv, b.redrive, b.asynq = srv, &redriveSide{srv.addr}, &asynqSide{srv.addr}
}

// settled starts a run from a clean slate on both ends of the wire.
func (b *bench) settled() {
	b.srv.reset()
	runtime.GC()
}

// profiled runs f, under the CPU profiler for redrive if that was asked for.
func (b *bench) profiled(probe, side string, f func()) {
	if b.profile == "" || side != b.redrive.name() {
		f()
		return
	}
	fatal(os.MkdirAll(b.profile, 0o755))
	file, err := os.Create(filepath.Join(b.profile, probe+".pprof"))
	fatal(err)
	fatal(pprof.StartCPUProfile(file))
	f()
	pprof.StopCPUProfile()
	fatal(file.Close())
	stats, err := b.srv.admin.Info(background, "commandstats").Result()
	fatal(err)
	fatal(os.WriteFile(filepath.Join(b.profile, probe+".commandstats"), []byte(stats), 0o644))
}

// jobs sizes a run: as many as the rate seen before makes last for the target.
func (b *bench) jobs(key string, rate func(n int) float64) int {
	r, ok := b.rates[key]
	if !ok {
		r = rate(3000)
		b.rates[key] = r
	}
	n := int(r * b.target.Seconds())
	return max(1000, n-n%500)
}

// work fills the queue and measures how fast, and at what cost, a worker empties
// it.
func (b *bench) work(s side, probe string, n, payload int, o workOptions) figures {
	b.settled()
	for _, q := range o.queues {
		s.fill(q, n/len(o.queues), payload, 0)
	}
	return b.drainFilled(s, probe, n/len(o.queues)*len(o.queues), o)
}

// drainFilled measures a worker on n jobs that wait already.
func (b *bench) drainFilled(s side, probe string, n int, o workOptions) figures {
	f := make(figures)
	fatal(b.srv.admin.ConfigResetStat(background).Err())
	runtime.GC()
	b.profiled(probe, s.name(), func() {
		before := b.srv.usage()
		t := newTally(n)
		o.job, o.failing = t.job, t.begin
		stop := s.start(o)
		t.wait(s.name() + " " + probe)
		stop()
		before.since(b.srv.usage(), n, f)
		f["rate"] = t.rate()
	})
	return f
}

func oneQueue(slots int) workOptions { return workOptions{slots: slots, queues: []string{queueName}} }

// drain is the plain drain at so many slots.
func (b *bench) drain(s side, slots int) figures {
	return b.drainBy(s, fmt.Sprintf("drain%d", slots), oneQueue(slots))
}

// decoding is drain with handlers that decode.
func (b *bench) decoding(s side, slots int) figures {
	o := oneQueue(slots)
	o.decode = true
	return b.drainBy(s, fmt.Sprintf("decode%d", slots), o)
}

func (b *bench) drainBy(s side, probe string, o workOptions) figures {
	n := b.jobs(s.name()+probe, func(n int) float64 { return b.work(s, "", n, payloadSize, o)["rate"] })
	f := b.work(s, probe, n, payloadSize, o)
	b.rates[s.name()+probe] = f["rate"]
	return f
}

// bareDrain is the ceiling of drain.
func (b *bench) bareDrain(slots int) figures {
	n := int(b.rates[fmt.Sprintf("redrivedrain%d", slots)] * b.target.Seconds())
	b.settled()
	b.redrive.fill(queueName, n, payloadSize, 0)
	w := newBare(b.srv.addr)
	defer w.close()
	f := make(figures)
	fatal(b.srv.admin.ConfigResetStat(background).Err())
	before := b.srv.usage()
	f["rate"] = w.drain(n, slots)
	before.since(b.srv.usage(), n, f)
	return f
}

// enqueue measures single calls from so many goroutines on one client.
func (b *bench) enqueue(s side, probe string, goroutines int) figures {
	b.settled()
	call, done := s.producer(queueName, goroutines)
	defer done()
	data := body("", payloadSize)
	for range 100 { // connections, scripts
		fatal(call(data))
	}
	f := make(figures)
	fatal(b.srv.admin.ConfigResetStat(background).Err())
	b.profiled(probe, s.name(), func() {
		before := b.srv.usage()
		n, took := hammer(goroutines, b.target, func() (int, error) { return 1, call(data) })
		before.since(b.srv.usage(), n, f)
		f["rate"] = float64(n) / took.Seconds()
		b.rates[s.name()+probe] = f["rate"]
		b.rates[s.name()+probe+"batch"] = 1 / f["scripts"]
	})
	return f
}

// hammer calls f from many goroutines for the time given and adds up what they
// return.
func hammer(goroutines int, d time.Duration, f func() (int, error)) (int, time.Duration) {
	var total atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	start := time.Now()
	for range goroutines {
		wg.Go(func() {
			for time.Since(start) < d && failed.Load() == nil {
				n, err := f()
				if err != nil {
					failed.Store(&err)
				}
				total.Add(int64(n))
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		fatal(*err)
	}
	return int(total.Load()), time.Since(start)
}

// bareEnqueue is the ceiling of enqueue: batches as large as redrive made them.
func (b *bench) bareEnqueue(batch int) figures {
	b.settled()
	w := newBare(b.srv.addr)
	defer w.close()
	f := make(figures)
	before := b.srv.usage()
	n, rate := w.enqueue(max(1, batch), b.target)
	before.since(b.srv.usage(), n, f)
	f["rate"] = rate
	return f
}

// many measures EnqueueMany of 500 from one goroutine; asynq, which has no
// batches, makes single calls from ten.
func (b *bench) many(s side) figures {
	if s != side(b.redrive) {
		return b.enqueue(s, "many", 10)
	}
	b.settled()
	call, done := b.redrive.many(queueName, 500)
	defer done()
	fatal(call())
	f := make(figures)
	fatal(b.srv.admin.ConfigResetStat(background).Err())
	b.profiled("many", s.name(), func() {
		before := b.srv.usage()
		n, took := hammer(1, b.target, func() (int, error) { return 500, call() })
		before.since(b.srv.usage(), n, f)
		f["rate"] = float64(n) / took.Seconds()
	})
	return f
}

// life adds up a job's whole life: enqueued by a single call, and run. The two
// halves follow each other, so that no idle polling is counted.
func (b *bench) life(s side) figures {
	f := b.enqueue(s, "", 50)
	n := s.left(queueName)
	run := b.drainFilled(s, "", n, oneQueue(50))
	for k := range f {
		f[k] += run[k]
	}
	f["rate"] = 1 / (1/(f["rate"]-run["rate"]) + 1/run["rate"])
	return f
}

// memory weighs waiting jobs. What a queue and a producer hold once is in the
// base line.
func (b *bench) memory(s side) figures {
	b.settled()
	s.fill(queueName, 1, payloadSize, 0)
	n := 50_000
	used := func() float64 { return number(b.srv.info("memory"), "used_memory") }
	before := used()
	s.fill(queueName, n, payloadSize, 0)
	time.Sleep(200 * time.Millisecond) // replies and input buffers are freed by then
	return figures{"bytes": (used() - before) / float64(n)}
}

// pickup measures how long an enqueued job waits for an idle worker with one
// slot, from the call of Enqueue to the handler.
func (b *bench) pickup(s side, samples int, eager bool) figures {
	b.settled()
	call, done := s.producer(queueName, 1)
	defer done()
	ran := make(chan time.Time, 1)
	o := oneQueue(1)
	o.eager = eager
	o.job = func([]byte) { ran <- time.Now() }
	stop := s.start(o)
	data := body("", payloadSize)
	var took []float64
	for i := range samples + 1 {
		sent := time.Now()
		fatal(call(data))
		select {
		case at := <-ran:
			if i > 0 { // the first one opens connections
				took = append(took, ms(at.Sub(sent)))
			}
		case <-time.After(patience):
			fatal(fmt.Errorf("%s: an enqueued job was not picked up", s.name()))
		}
		time.Sleep(15 * time.Millisecond) // settled, and idle again
	}
	idle := 4 * time.Second
	before := b.srv.usage()
	time.Sleep(idle)
	after := b.srv.usage()
	stop()
	return figures{
		"p50": quantile(took, 0.5), "p99": quantile(took, 0.99),
		// Reading the figures is a command, too.
		"idle_commands": (after.commands - before.commands - 1) / idle.Seconds(),
		"idle_cpu":      (after.redisCPU - before.redisCPU) / float64(idle.Microseconds()) * 100,
	}
}

// barePickup is what pickup cannot go below.
func (b *bench) barePickup(samples int) figures {
	b.settled()
	w := newBare(b.srv.addr)
	defer w.close()
	took := w.pickup(samples)[1:]
	return figures{"p50": quantile(took, 0.5), "p99": quantile(took, 0.99)}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

func quantile(v []float64, q float64) float64 {
	slices.Sort(v)
	return v[min(len(v)-1, int(math.Ceil(q*float64(len(v))))-1)]
}

// retries measures jobs that fail once and are retried after 1 ms, in jobs done.
func (b *bench) retries(s side) figures {
	o := oneQueue(50)
	o.failOnce = true
	key := s.name() + "retries"
	n := b.jobs(key, func(n int) float64 { return b.work(s, "", n, payloadSize, o)["rate"] })
	f := b.work(s, "retries", n, payloadSize, o)
	b.rates[key] = f["rate"]
	return f
}

// backlog compares the drain rate in a queue of a million jobs with that in a
// queue of twenty thousand, in pairs, both in one Redis.
func (b *bench) backlog(s side, large int) figures {
	const small = 20_000
	b.settled()
	s.fill("large", large, payloadSize, 0)
	pairs := 12
	if b.quick {
		pairs = 3
	}
	var ratios []float64
	for range pairs {
		var rates [2]float64
		s.fill("small", small-s.left("small"), payloadSize, 0)
		for i, q := range []string{"small", "large"} {
			o := workOptions{slots: 50, queues: []string{q}, decode: true}
			// Not to the last job: the tail of a queue runs with free slots.
			rates[i] = b.drainFilled(s, "", small*9/10, o)["rate"]
		}
		ratios = append(ratios, rates[1]/rates[0])
	}
	return figures{"ratio": quantile(ratios, 0.5)}
}

// stampSize is the length of the time in a job's data.
const stampSize = 16

// latency offers jobs at an even rate, whatever becomes of them, and measures
// from when each was offered, enqueued or not, to its handler.
func (b *bench) latency(s side, rate float64) figures {
	b.settled()
	const producers = 50
	call, done := s.producer(queueName, producers)
	defer done()
	start := time.Now()
	n := int(rate * max(b.target, time.Second).Seconds())
	took := make([]float64, n)
	var ran atomic.Int64
	all := make(chan struct{})
	o := oneQueue(50)
	o.eager = true
	o.job = func(payload []byte) {
		at, err := strconv.ParseInt(stamp(payload, stampSize), 10, 64)
		if err != nil {
			return
		}
		if i := ran.Add(1); i <= int64(n) {
			took[i-1] = ms(time.Since(start) - time.Duration(at))
			if i == int64(n) {
				close(all)
			}
		}
	}
	stop := s.start(o)
	time.Sleep(100 * time.Millisecond)
	due := make(chan time.Duration, n)
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	for range producers {
		wg.Go(func() {
			for at := range due {
				if err := call(body(fmt.Sprintf("%0*d", stampSize, int64(at)), payloadSize)); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	begin := time.Since(start)
	for i := 0; i < n; {
		now := time.Since(start)
		for ; i < n && begin+time.Duration(float64(i)/rate*1e9) <= now; i++ {
			due <- now
		}
		time.Sleep(500 * time.Microsecond)
	}
	close(due)
	wg.Wait()
	if err := failed.Load(); err != nil {
		fatal(*err)
	}
	select {
	case <-all:
	case <-time.After(patience):
		fatal(fmt.Errorf("%s at %.0f jobs/s: %d of %d jobs ran", s.name(), rate, ran.Load(), n))
	}
	stop()
	return figures{"rate": rate, "p50": quantile(took, 0.5), "p99": quantile(took, 0.99)}
}
