package redrive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive/internal/store"
)

// A session is one Run of a worker. Its goroutines, and what ends them:
//
//   - dispatch and drain: Run's own goroutine; wakes queues up and starts claims
//     and listens (dispatch.go)
//   - one short-lived goroutine to register, and one per such claim and per listen, at
//     most one of each per queue (dispatch.go)
//   - runners: run handlers, and make the rounds of the couriers, one per queue, that
//     settle and claim; at most Concurrency; end when told, once nothing waits
//     (runners.go, courier.go)
//   - an undertaker per queue: hooks and retention of dead letters; ends once no round
//     is under way, and what it leaves undone is owed in Redis (undertaker.go)
//   - a keeper per queue: leases, reaping; ends last (keeper.go)
type session struct {
	*Worker
	id    string
	log   *slog.Logger
	trace *WorkerTrace

	ops, bells redis.UniversalClient // settles, claims and beats; blocking listens
	canBlock   bool
	queues     []*served
	schedule   schedule

	// running is Run's context: once it is done nothing more is started.
	running context.Context
	// jobs is the parent of every handler's context.
	jobs       context.Context
	cancelJobs context.CancelCauseFunc

	runners runners

	asides sync.WaitGroup // registering, claims, listens
	wakeup chan struct{}  // makes dispatch look again

	// keep ends the keepers; settle ends the tries of the couriers and of claims.
	keep       context.Context
	stopKeep   context.CancelFunc
	settle     context.Context
	stopSettle context.CancelFunc
	keepers    sync.WaitGroup

	// quit, closed, tells the undertakers that no more jobs die; after ends their
	// calls. Its values are those of Run's context.
	quit        chan struct{}
	after       context.Context
	stopAfter   context.CancelFunc
	undertakers sync.WaitGroup
}

// served is one queue that a session serves.
type served struct {
	s     *session
	name  string
	store *store.Queue // through session.ops
	bell  *store.Queue // through session.bells

	share      share // its part in session.schedule, which guards it
	courier    courier
	keeper     keeper
	undertaker undertaker

	// hint is set by whoever learns that the queue may have work.
	hint      atomic.Bool
	listening atomic.Bool
	reclaim   *backoff.ExponentialBackOff // paces dispatch's claims, one at a time, that are refused
	// calls numbers the claims of each lane; a lane has one in flight.
	calls [store.Lanes]int64

	// owned is what this session runs or settles. lease is the context
	// of the jobs claimed since the last time the lease was lost.
	mu     sync.Mutex
	owned  []*attempt // in any order; each knows its place
	lease  context.Context
	cancel context.CancelCauseFunc
	// disowned are the claims that were given up unheard of, by job id, and when:
	// should their answer come after all, the jobs are not ours any more.
	disowned map[string]stray
}

// newSession makes the session's clients. The contexts of handlers carry the values
// of ctx and not its end.
func newSession(ctx context.Context, w *Worker) *session {
	s := &session{Worker: w, id: newIdentity(w.opts.Name), trace: w.opts.Trace, running: ctx}
	s.log = w.opts.Logger.With("worker", s.id)
	n := len(w.opts.Queues)
	// Claims, settles, beats and what undertakers send may be in flight at once; listens
	// have connections of their own, so that they starve nobody.
	s.ops, _ = derive(w.rdb, (store.Lanes+5)*n+2)
	s.bells, s.canBlock = derive(w.rdb, n+1)
	s.jobs, s.cancelJobs = context.WithCancelCause(context.WithoutCancel(ctx))
	s.keep, s.stopKeep = context.WithCancel(context.Background())
	s.settle, s.stopSettle = context.WithCancel(context.Background())
	s.after, s.stopAfter = context.WithCancel(context.WithoutCancel(ctx))
	s.quit = make(chan struct{})
	s.runners.init(w.opts.Concurrency, s.run)
	s.wakeup = make(chan struct{}, 1)
	s.schedule.slots = w.opts.Concurrency
	for _, o := range w.opts.Queues {
		q := &served{
			s: s, name: o.Name,
			store:    store.Open(s.ops, w.opts.Prefix, o.Name),
			bell:     store.Open(s.bells, w.opts.Prefix, o.Name),
			share:    share{weight: float64(o.Weight), hungry: true},
			disowned: make(map[string]stray), reclaim: newReconnect(),
		}
		q.courier.q = q
		q.lease, q.cancel = context.WithCancelCause(s.jobs)
		q.keeper.init(q)
		q.undertaker.init(q)
		s.queues = append(s.queues, q)
		s.schedule.shares = append(s.schedule.shares, &q.share)
	}
	return s
}

// close releases what the session holds, whatever happened.
func (s *session) close() {
	s.cancelJobs(ErrShutdown)
	s.stopKeep()
	s.stopSettle()
	s.stopAfter()
	if s.canBlock {
		_ = s.bells.Close()
	}
	if s.ops != s.rdb {
		_ = s.ops.Close()
	}
	s.asides.Wait()
	s.runners.rounds.Wait()
	s.keepers.Wait()
	if s.runners.busy.Load() == 0 {
		s.runners.all.Wait()
	}
}

// register takes a lease on every queue, or returns when ctx is done: a call that hangs
// hears of no cancellation, and close ends it. It returns an error only if Redis
// refuses; while Redis cannot be reached the keepers go on trying.
func (s *session) register(ctx context.Context) error {
	done := make(chan error, 1)
	s.asides.Go(func() {
		for _, q := range s.queues {
			if err := q.keeper.beat(ctx); store.Denied(err) {
				done <- err
				return
			}
		}
		done <- nil
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return nil
	}
}

// start starts the goroutines that live as long as the session.
func (s *session) start() {
	for _, q := range s.queues {
		s.keepers.Go(q.keeper.loop)
		q.undertaker.start()
	}
}

// wake makes dispatch look again.
func (s *session) wake() {
	select {
	case s.wakeup <- struct{}{}:
	default:
	}
}

// own takes jobs into the session's books, but for those that were disowned, and
// returns the context they run under.
func (q *served) own(as []*attempt) context.Context {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, a := range as {
		if a.disowned = q.disowned[a.job.ID].token == a.job.Token; !a.disowned {
			a.place = len(q.owned)
			q.owned = append(q.owned, a)
		}
	}
	return q.lease
}

// drop takes an attempt that has ended off the books; mu is held.
func (q *served) drop(a *attempt) {
	last := len(q.owned) - 1
	q.owned[a.place] = q.owned[last]
	q.owned[a.place].place = a.place
	q.owned[last] = nil
	q.owned = q.owned[:last]
}

// disown gives up the claim of a job that only Redis knows of. It returns false if
// the answer to the claim has just come.
func (q *served) disown(id, token string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if slices.ContainsFunc(q.owned, func(a *attempt) bool { return a.job.ID == id && a.job.Token == token }) {
		return false
	}
	maps.DeleteFunc(q.disowned, func(_ string, s stray) bool { return time.Since(s.since) > 10*sendTimeout })
	q.disowned[id] = stray{token: token, since: time.Now()}
	return true
}

// loseLease cancels every running job of the queue: another worker may own it. Who
// does, the token says when the job ends.
func (q *served) loseLease() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.cancel(ErrLeaseLost)
	q.lease, q.cancel = context.WithCancelCause(q.s.jobs)
}

// ErrHandlersStuck: handlers ignored the cancellation of their context, and Run
// returned without them. Their jobs were put back to the front.
var ErrHandlersStuck = errors.New("handlers did not return")

// drain ends the session in order: handlers, rounds, hooks, keepers, leases.
func (s *session) drain() error {
	started := time.Now()
	deadline := started.Add(s.opts.ShutdownTimeout)
	notice := min(s.opts.ShutdownTimeout/5, time.Second)
	if s.canBlock {
		_ = s.bells.Close() // a blocked listen returns only when its connection closes
	}
	stop := time.AfterFunc(s.opts.ShutdownTimeout-notice, func() { s.cancelJobs(ErrShutdown) })
	defer stop.Stop()
	s.await(deadline)

	s.runners.close()
	if s.schedule.available() < s.opts.Concurrency {
		s.stopSettle() // out of time: what is not settled is put back below
	}
	// A call that hangs hears of no cancellation: close ends it, with its connection.
	// Until then it can do no harm, as the token decides.
	within(&s.runners.rounds, time.Until(deadline)+50*time.Millisecond)
	s.endLetters(deadline)
	s.stopKeep()
	within(&s.keepers, time.Until(deadline)+150*time.Millisecond)

	ctx, cancel := context.WithDeadline(context.Background(), deadline.Add(200*time.Millisecond))
	defer cancel()
	var errs []error
	for _, q := range s.queues {
		n, err := q.leave(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("redrive: Run: %w; its jobs start again when the lease has lapsed", err))
		} else if n > 0 {
			s.log.Info("redrive: put unfinished jobs back to the front", "queue", q.name, "jobs", n)
		}
	}
	if n := s.runners.busy.Load(); n > 0 {
		errs = append(errs, fmt.Errorf("redrive: Run: %d %w within %v of their cancellation", n, ErrHandlersStuck, notice))
	}
	return errors.Join(errs...)
}

// leaveFor bounds how long a worker that stops waits for a Redis that does not answer.
const leaveFor = time.Second

// leave gives back what the session owns. It tries again for a while: a lost answer
// is no reason to say that the jobs must wait for the lease to lapse.
func (q *served) leave(ctx context.Context) (released int, err error) {
	until, retry := time.Now().Add(leaveFor), newReconnect()
	for {
		n, err := q.store.Leave(ctx, q.s.id)
		released += n
		if err == nil || !store.Transient(err) || time.Now().After(until) || !sleep(ctx, retry.NextBackOff()) {
			return released, err
		}
	}
}

// endLetters lets the undertakers finish: hooks of the last burials are called, for
// a second at most. A call that ignores its context is left behind at the deadline.
func (s *session) endLetters(deadline time.Time) {
	close(s.quit)
	stop := time.AfterFunc(min(time.Second, time.Until(deadline)), s.stopAfter)
	defer stop.Stop()
	if !within(&s.undertakers, max(time.Until(deadline), 100*time.Millisecond)) {
		s.log.Error("redrive: OnDead or OnDrop ignores its context and is left behind")
	}
}

// within waits for goroutines for so long at most, and reports whether they have ended.
func within(g *sync.WaitGroup, d time.Duration) bool {
	done := make(chan struct{})
	go func() {
		g.Wait()
		close(done)
	}()
	timer := time.NewTimer(max(d, 10*time.Millisecond))
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}
