package redrive_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/faultnet"
	"github.com/redrive-go/redrive/internal/memredis"
	"github.com/redrive-go/redrive/internal/store"
)

// go-redis logs every dial that fails, and here that is thousands.
func init() { redis.SetLogger(noRedisLog{}) }

type noRedisLog struct{}

func (noRedisLog) Printf(context.Context, string, ...any) {}

// A bubble plays a plan in virtual time: an in-process Redis, a proxy that breaks
// connections in front of each worker and of the producer, and a ledger of all that
// happens. It lives in a synctest bubble.
type bubble struct {
	t      testing.TB
	plan   *bubblePlan
	server *memredis.Server
	ledger *bubbleLedger

	// admin looks at queues and pauses them, past all faults.
	rdb      redis.UniversalClient
	admin    *redrive.Client
	producer *redrive.Client
	actors   sync.WaitGroup

	mu      sync.Mutex
	proxies map[string]*bubbleProxy // by worker; "" is the producer's
	fault   *faultPlan              // the one that is on
}

// bubbleProxy is a proxy and what undoes the fault that is on.
type bubbleProxy struct {
	*faultnet.Proxy
	heal    func()
	crashed bool
}

// playBubble plays a plan to its end and returns what happened. The bubble itself
// fails the test if goroutines are left that nothing can wake.
func playBubble(t *testing.T, plan *bubblePlan) (l *bubbleLedger) {
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{t: t, plan: plan, ledger: newBubbleLedger(plan), proxies: make(map[string]*bubbleProxy)}
		l = b.ledger
		b.play()
	})
	return l
}

func (b *bubble) play() {
	var err error
	b.server, err = memredis.Start()
	require.NoError(b.t, err)
	b.rdb = b.server.Client()
	b.admin, err = redrive.NewClient(b.rdb, redrive.ClientOptions{Logger: quiet})
	require.NoError(b.t, err)
	proxy := b.proxy("")
	rdb := b.client(proxy)
	b.producer, err = redrive.NewClient(rdb, redrive.ClientOptions{Logger: quiet})
	require.NoError(b.t, err)

	for _, j := range b.plan.jobs {
		b.actors.Go(func() { b.enqueue(j) })
	}
	for _, w := range b.plan.workers {
		b.actors.Go(func() { b.live(w) })
	}
	for i := range b.plan.pauses {
		b.actors.Go(func() { b.pause(&b.plan.pauses[i]) })
	}
	b.actors.Go(func() {
		for i := range b.plan.faults {
			b.inflict(&b.plan.faults[i])
		}
	})
	b.actors.Wait()
	b.sweep()
	b.takeStock()

	_ = rdb.Close()
	proxy.Close()
	require.NoError(b.t, b.server.Close())
	b.lookForGoroutines()
}

// until waits for a moment of the plan.
func (b *bubble) until(at time.Duration) { time.Sleep(at - b.ledger.now()) }

// proxy makes a proxy that suffers from the fault that is on, if that is
// everybody's.
func (b *bubble) proxy(worker string) *bubbleProxy {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := &bubbleProxy{Proxy: faultnet.NewDialer(nil, b.server.Dial, b.plan.seed)}
	b.proxies[worker] = p
	if b.fault != nil && b.fault.worker == "" {
		p.suffer(b.fault)
	}
	return p
}

// client makes a client whose pool, and those of the copies that a worker makes, do
// not run dry: who waits for a place in one waits on a timer that go-redis shares
// between bubbles, for ever. So no dial may outlive the call that it is for.
func (b *bubble) client(p *bubbleProxy) *redis.Client {
	o := b.server.Options()
	o.Dialer = p.Dialer()
	o.DialTimeout = redrive.MinLease / 4
	return redis.NewClient(o)
}

// plainClient hides a client's kind, so that a Locker does not make one of its own,
// with a pool of two.
type plainClient struct{ redis.UniversalClient }

// inflict has a fault take its course.
func (b *bubble) inflict(f *faultPlan) {
	b.until(f.at)
	b.mu.Lock()
	b.fault = f
	b.ledger.note("fault", f.worker, "", "%v begins", f.kind)
	b.ledger.disturbed(f)
	for worker, p := range b.proxies {
		if f.worker == "" || f.worker == worker {
			p.suffer(f)
		}
	}
	b.mu.Unlock()
	time.Sleep(f.lasts)
	if f.flush {
		require.NoError(b.t, b.rdb.ScriptFlush(context.Background()).Err())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault = nil
	b.ledger.note("fault", f.worker, "", "%v ends", f.kind)
	for _, p := range b.proxies {
		if p.heal != nil && !p.crashed {
			p.heal()
		}
		p.heal = nil
	}
}

// suffer puts a proxy under a fault. bubble.mu is held.
func (p *bubbleProxy) suffer(f *faultPlan) {
	if p.crashed {
		return
	}
	rule := func(r *faultnet.Rule) { p.heal = r.Remove }
	switch f.kind {
	case faultReset:
		p.Cut()
	case faultDown:
		p.Down()
		p.heal = p.Up
	case faultHole:
		p.Blackhole()
		p.heal = p.Heal
	case faultLoading:
		rule(p.Refuse(faultnet.Scripts(), 0, "LOADING Redis is loading the dataset in memory"))
	case faultDrop:
		rules := []*faultnet.Rule{p.DropReply(faultnet.Scripts(), f.nth), p.DropReply(faultnet.Scripts(), f.nth+1), p.DropReply(faultnet.Scripts(), f.nth+3)}
		p.heal = func() {
			for _, r := range rules {
				r.Remove()
			}
		}
	case faultLate:
		rule(p.Delay(faultnet.Scripts(), 0, f.late))
	case faultFlaky:
		rule(p.Flaky(faultnet.Scripts(), 0.3, f.late))
	}
}

// live is the life of a worker, to its end by a stop or a crash.
func (b *bubble) live(p *workerPlan) {
	b.until(p.start)
	w := b.hire(p)
	b.until(p.end)
	if p.crash {
		b.ledger.crash(w)
		b.mu.Lock()
		w.proxy.crashed = true
		if p.silent {
			w.proxy.Blackhole()
		} else {
			w.proxy.Down()
			w.proxy.Heal()
		}
		b.mu.Unlock()
		time.Sleep(p.haunts)
	}
	b.dismiss(w)
}

// hire starts a worker.
func (b *bubble) hire(p *workerPlan) *bubbleWorker {
	w := b.ledger.worker(p)
	w.proxy = b.proxy(p.name)
	rdb := b.client(w.proxy)
	worker, err := redrive.NewWorker(rdb, b.mux(w, plainClient{rdb}), redrive.WorkerOptions{
		Name: p.name, Queues: p.queues, Concurrency: p.concurrency, Lease: p.lease, ShutdownTimeout: p.shutdown,
		Logger: quiet, Trace: b.ledger.trace(w),
	})
	require.NoError(b.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel, w.rdb = cancel, rdb
	w.done = make(chan struct{})
	go func() {
		defer close(w.done)
		b.ledger.returned(w, worker.Run(ctx))
	}()
	return w
}

// dismiss stops a worker and waits for its end, and for that of handlers which it
// left behind.
func (b *bubble) dismiss(w *bubbleWorker) {
	b.ledger.stop(w)
	w.cancel()
	<-w.done
	w.handlers.Wait()
	if w.proxy.crashed {
		w.proxy.Down() // what still hangs in a hole
		w.proxy.Heal()
	}
	_ = w.rdb.Close()
	b.mu.Lock()
	delete(b.proxies, w.plan.name)
	b.mu.Unlock()
	w.proxy.Close()
}

// enqueue enqueues a job at its time, again and again until it is acknowledged.
func (b *bubble) enqueue(j *jobPlan) {
	b.until(j.at)
	opts := &redrive.EnqueueOptions{ID: j.id}
	if due := time.Now().Add(j.delay); j.runAt {
		opts.RunAt = due
	} else {
		opts.Delay = j.delay
	}
	if j.task.layer == once {
		opts.IdempotencyKey = j.args.Key
	}
	e := b.ledger.enqueue(j)
	for {
		receipt, err := j.task.task.Enqueue(context.Background(), b.producer, j.args, opts)
		if err == nil {
			b.ledger.acknowledged(e, receipt.Duplicate)
			return
		}
		e.tries++
		b.ledger.note("enqueue", "", j.id, "failed: %v", err)
		if !errors.Is(err, redrive.ErrUnavailable) && !isAmbiguous(err) {
			b.ledger.found("I1", j.id, "enqueue: %v", err)
			return
		}
		time.Sleep(time.Second)
	}
}

func isAmbiguous(err error) bool {
	_, ok := errors.AsType[*redrive.AmbiguousError](err)
	return ok
}

func (b *bubble) pause(p *pausePlan) {
	ctx := context.Background()
	b.until(p.at)
	b.ledger.note("pause", "", "", "%s is paused", p.queue)
	require.NoError(b.t, b.admin.Pause(ctx, p.queue))
	time.Sleep(p.lasts)
	require.NoError(b.t, b.admin.Resume(ctx, p.queue))
	b.ledger.note("pause", "", "", "%s is resumed", p.queue)
}

// sweepPatience bounds the sweep: the longest script of a job, each step of it cut
// off a few times, takes less.
const sweepPatience = 14 * 24 * time.Hour

// sweep ends what the planned workers left: workers for all queues, while there is
// something to do. A worker that waits for hours would fill them with listening.
func (b *bubble) sweep() {
	var w *bubbleWorker
	pause := time.Second
	for n, before := 0, (bubbleState{}); ; {
		state := b.look()
		if state.empty() && w != nil && state.workers <= int64(len(b.plan.queues)) {
			break
		}
		if b.ledger.now() > b.plan.horizon+sweepPatience {
			b.ledger.found("I1", "", "the queues are not empty: %+v", state)
			break
		}
		if w == nil {
			if state.busy == 0 && !state.empty() {
				b.until(state.due)
			}
			n++
			p := &workerPlan{name: fmt.Sprintf("s%d", n), concurrency: 3, lease: time.Minute, shutdown: 10 * time.Second, start: b.ledger.now()}
			for _, q := range b.plan.queues {
				p.queues = append(p.queues, redrive.Queue{Name: q})
			}
			w = b.hire(p)
		} else if state.busy == 0 && state.due > b.ledger.now()+time.Minute {
			b.dismiss(w)
			w = nil
			continue
		}
		if pause = min(2*pause, time.Minute); state != before {
			pause = time.Second
		}
		before = state
		time.Sleep(pause)
	}
	if w != nil {
		b.dismiss(w)
	}
}

// bubbleState sums up the queues.
type bubbleState struct {
	busy    int64 // ready or active
	delayed int64
	workers int64
	due     time.Duration // of the first delayed job
}

func (s bubbleState) empty() bool { return s.busy+s.delayed == 0 }

func (b *bubble) look() (s bubbleState) {
	ctx := context.Background()
	for _, q := range b.plan.queues {
		stats, err := b.admin.Stats(ctx, q)
		require.NoError(b.t, err)
		s.busy += stats.Ready + stats.Active
		s.delayed += stats.Delayed
		s.workers += stats.Workers
		if stats.Delayed == 0 {
			continue
		}
		due, err := store.Open(b.rdb, redrive.DefaultPrefix, q).NextDue(ctx)
		require.NoError(b.t, err)
		if at := due.Sub(b.ledger.epoch); s.due == 0 || at < s.due {
			s.due = at
		}
	}
	return s
}

// takeStock reads what is in Redis when all is over: dead letters and figures; and,
// once every TTL has passed and the letters are purged, keys (I16).
func (b *bubble) takeStock() {
	ctx := context.Background()
	findings, err := store.Audit(ctx, b.rdb, redrive.DefaultPrefix)
	require.NoError(b.t, err)
	for _, f := range findings {
		b.ledger.found("I5", "", "%s", f)
	}
	for _, q := range b.plan.queues {
		b.ledger.stats[q], err = b.admin.Stats(ctx, q)
		require.NoError(b.t, err)
		letters := b.admin.DeadLetters(q)
		for e, err := range letters.All(ctx, redrive.DeadLetterFilter{}) {
			require.NoError(b.t, err)
			b.ledger.dead[e.TaskID] = e
		}
		_, err = letters.Purge(ctx, redrive.DeadLetterFilter{})
		require.NoError(b.t, err)
	}
	time.Sleep(7 * 24 * time.Hour)
	keys, err := b.rdb.Keys(ctx, "*").Result()
	require.NoError(b.t, err)
	slices.Sort(keys)
	for _, key := range keys {
		if !strings.HasSuffix(key, ":stats") && !strings.HasSuffix(key, ":bell") { // one each per queue
			b.ledger.found("I16", "", "key %s is left", key)
		}
	}
}

// lookForGoroutines says which goroutines of the bubble are left, before the bubble
// does: it ends the process.
func (b *bubble) lookForGoroutines() {
	time.Sleep(time.Minute) // go-redis gives its dials up
	synctest.Wait()
	for _, g := range bubbleGoroutines() {
		b.ledger.found("I16", "", "a goroutine is left:\n%s", g)
	}
}
