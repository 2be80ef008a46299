package redrive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/google/uuid"

	"github.com/redrive-go/redrive/internal/store"
)

// sendTimeout bounds one try of an operation, so that a half-open connection
// costs seconds and not the whole budget.
const sendTimeout = 3 * time.Second

// A lane is the way of one client into one queue. Calls that wait while another
// is in flight leave together in the next one (group commit). One call is in
// flight at a time and carries a number, which Redis remembers: a call that is
// sent again has no second effect, and one that arrives late has none (I6).
//
// The goroutine that sends is started by the first call that finds none, and
// ends when nothing waits: an idle lane holds nothing.
type lane struct {
	q       *store.Queue
	id      string
	timeout time.Duration
	log     *slog.Logger
	// The replicas that must have a call's jobs, and how long to wait for them.
	replicas       int
	replicaTimeout time.Duration

	mu      sync.Mutex
	waiting []*submission
	sending bool
	call    int64 // written by the sender only
}

// submission is one call of Enqueue on its way. The sender writes taken and err
// before it closes done.
type submission struct {
	jobs     []store.NewJob
	lookDead bool
	deadline time.Time
	done     chan struct{}
	taken    []int
	err      error
	// gone tells the sender that the caller stopped waiting.
	gone <-chan struct{}
}

func newLane(q *store.Queue, name string, o *ClientOptions) *lane {
	return &lane{
		q: q, id: uuid.NewString(), timeout: o.EnqueueTimeout, log: o.Logger.With("queue", name),
		replicas: o.Replicas, replicaTimeout: o.ReplicaTimeout,
	}
}

// enqueue adds at most [store.MaxBatch] jobs.
func (l *lane) enqueue(ctx context.Context, lookDead bool, jobs []store.NewJob) (taken []int, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := &submission{
		jobs: jobs, lookDead: lookDead, deadline: time.Now().Add(l.timeout),
		done: make(chan struct{}), gone: ctx.Done(),
	}
	l.mu.Lock()
	l.waiting = append(l.waiting, s)
	if !l.sending {
		l.sending = true
		go l.send()
	}
	l.mu.Unlock()

	select {
	case <-s.done:
		return s.taken, s.err
	case <-ctx.Done():
	}
	if l.withdraw(s) {
		return nil, fmt.Errorf("not enqueued: %w", ctx.Err())
	}
	select {
	case <-s.done: // answered meanwhile
		return s.taken, s.err
	default:
		return nil, s.ambiguous(ctx.Err())
	}
}

// withdraw takes back a submission that was not sent.
func (l *lane) withdraw(s *submission) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.waiting, s)
	if i < 0 {
		return false
	}
	l.waiting = slices.Delete(l.waiting, i, i+1)
	return true
}

// send is the lane's goroutine: it sends batches until nothing waits.
func (l *lane) send() {
	for {
		batch := l.next()
		if batch == nil {
			return
		}
		l.call++
		taken, err := l.deliver(batch)
		answer(batch, taken, err)
	}
}

// next takes the submissions that go into one call, or ends the sending. It yields
// first: those who were answered just now come again, and those who are about to call.
func (l *lane) next() []*submission {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) > 0 {
		l.mu.Unlock()
		runtime.Gosched()
		l.mu.Lock()
	}
	if len(l.waiting) == 0 {
		l.sending = false
		l.waiting = nil
		return nil
	}
	n, jobs := 0, 0
	for n < len(l.waiting) && jobs+len(l.waiting[n].jobs) <= store.MaxBatch {
		jobs += len(l.waiting[n].jobs)
		n++
	}
	batch := slices.Clone(l.waiting[:n])
	l.waiting = slices.Delete(l.waiting, 0, n)
	return batch
}

// deliver sends one call until it is answered, refused for good, or nobody
// waits for it any more.
func (l *lane) deliver(batch []*submission) (taken []int, err error) {
	var jobs []store.NewJob
	lookDead := false
	for _, s := range batch {
		jobs = append(jobs, s.jobs...)
		lookDead = lookDead || s.lookDead
	}
	retry := newReconnect()
	unknown := false // a try may have been performed without an answer
	told := false
	for {
		ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
		taken, err = l.q.Enqueue(ctx, l.id, l.call, lookDead, jobs)
		cancel()
		switch {
		case err == nil && l.replicas == 0:
			return taken, nil
		case err == nil:
			if err = l.replicate(batch); errors.Is(err, store.ErrForgotten) {
				continue // a master that never heard of it: its jobs are new there
			}
			return taken, err
		case errors.Is(err, store.ErrFull):
			return nil, fmt.Errorf("%w: let workers drain the queue, or raise maxmemory: %w", ErrBackpressure, err)
		}
		unknown = unknown || !store.Refused(err)
		if store.Transient(err) && waited(batch) {
			if !told {
				l.log.Warn("redrive: redis does not answer an enqueue, trying on", "jobs", len(jobs), "error", err)
				told = true
			}
			time.Sleep(retry.NextBackOff())
			continue
		}
		if store.Transient(err) {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if unknown {
			err = &unanswered{err}
		}
		return nil, err
	}
}

// waited reports whether somebody still waits for the batch.
func waited(batch []*submission) bool {
	now := time.Now()
	return slices.ContainsFunc(batch, func(s *submission) bool {
		select {
		case <-s.gone:
			return false
		default:
			return now.Before(s.deadline)
		}
	})
}

// unanswered marks, on its way to each submission, an error that leaves open
// whether the jobs were taken.
type unanswered struct{ err error }

func (u *unanswered) Error() string { return u.err.Error() }

// answer hands each submission its part of a call's answer.
func answer(batch []*submission, taken []int, err error) {
	first := 0
	for _, s := range batch {
		for len(taken) > 0 && taken[0] < first+len(s.jobs) {
			s.taken = append(s.taken, taken[0]-first)
			taken = taken[1:]
		}
		s.err = err
		if u, ok := err.(*unanswered); ok { //nolint:errorlint // never wrapped: set by deliver just above
			s.err = s.ambiguous(u.err)
		}
		if few, ok := err.(*ReplicationError); ok { //nolint:errorlint // as above
			s.err = &ReplicationError{IDs: s.ids(), Want: few.Want, Got: few.Got, Err: few.Err}
		}
		first += len(s.jobs)
		close(s.done)
	}
}

func (s *submission) ids() []string {
	ids := make([]string, len(s.jobs))
	for i := range s.jobs {
		ids[i] = s.jobs[i].ID
	}
	return ids
}

func (s *submission) ambiguous(err error) error { return &AmbiguousError{IDs: s.ids(), Err: err} }

// newReconnect paces tries while Redis does not answer: jittered, at most half a
// second, so that work goes on within a second of its return.
func newReconnect() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(20*time.Millisecond),
		backoff.WithMaxInterval(400*time.Millisecond),
		backoff.WithMaxElapsedTime(0),
	)
}
