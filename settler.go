package redrive

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/redrive-go/redrive/internal/store"
)

// A settlement is how one attempt ends. Exactly one of done, putback and burial
// is meant, by end.Action.
type settlement struct {
	a   *attempt
	end JobEnd

	done    store.Done
	putback store.Putback
	burial  store.Burial
}

// A settler writes the ends of one queue's attempts. Whatever has ended while a
// call was in flight goes into the next one (group commit). A slot is free when
// Redis has confirmed its settlement, not before.
//
// Its goroutine, loop, ends after stop, once nothing waits or the session gives up.
type settler struct {
	q *served

	mu      sync.Mutex
	waiting []settlement
	stopped bool
	signal  chan struct{}

	calls int // of the loop's goroutine
}

func (t *settler) init(q *served) {
	t.q = q
	t.signal = make(chan struct{}, 1)
}

// add takes an ended attempt; it never blocks.
func (t *settler) add(st settlement) {
	t.mu.Lock()
	t.waiting = append(t.waiting, st)
	t.mu.Unlock()
	t.poke()
}

// stop ends the loop once it has settled what waits.
func (t *settler) stop() {
	t.mu.Lock()
	t.stopped = true
	t.mu.Unlock()
	t.poke()
}

func (t *settler) poke() {
	select {
	case t.signal <- struct{}{}:
	default:
	}
}

func (t *settler) loop() {
	var batch []settlement
	for range t.signal {
		for {
			t.mu.Lock()
			batch, t.waiting = t.waiting, batch[:0]
			stopped := t.stopped
			t.mu.Unlock()
			if len(batch) == 0 {
				if stopped {
					return
				}
				break
			}
			t.settleAll(batch)
			clear(batch)
		}
	}
}

// settleAll groups a batch by what happens to the jobs; each group is one call
// per 500 of them.
func (t *settler) settleAll(batch []settlement) {
	var groups [4][]settlement
	for _, st := range batch {
		g := 0
		switch st.end.Action {
		case ActionDiscard:
			g = 1
		case ActionRetry, ActionRetryAfter, ActionSnooze, ActionRelease:
			g = 2
		case ActionDead:
			g = 3
		}
		groups[g] = append(groups[g], st)
	}
	for g, group := range groups {
		for len(group) > 0 {
			n := min(len(group), store.MaxBatch)
			t.settle(g, group[:n])
			group = group[n:]
		}
	}
}

// settle writes one group, with the same call id until Redis answers (I6), or
// until the session gives up: then the jobs are still the worker's in Redis, and
// are put back by drain or by another worker.
func (t *settler) settle(group int, batch []settlement) {
	q := t.q
	t.calls++
	by := store.Settler{Worker: q.s.id, Call: strconv.Itoa(t.calls)}
	send := t.sender(by, group, batch)
	retry := newReconnect()
	for {
		ctx, cancel := context.WithTimeout(q.s.settle, sendTimeout)
		refused, err := send(ctx)
		cancel()
		if err == nil {
			t.confirmed(batch, refused)
			return
		}
		q.keeper.lost(err)
		if !sleep(q.s.settle, retry.NextBackOff()) {
			q.s.log.Warn("redrive: gave up settling at shutdown", "queue", q.name, "jobs", len(batch), "error", err)
			return
		}
	}
}

// sender builds the call of one group.
func (t *settler) sender(by store.Settler, group int, batch []settlement) func(context.Context) ([]int, error) {
	st := t.q.store
	switch group {
	case 0, 1:
		counter := store.Succeeded
		if group == 1 {
			counter = store.Discarded
		}
		jobs := make([]store.Done, len(batch))
		for i := range batch {
			jobs[i] = batch[i].done
			jobs[i].Owned = batch[i].a.owned()
		}
		return func(ctx context.Context) ([]int, error) { return st.Finish(ctx, by, counter, jobs) }
	case 2:
		jobs := make([]store.Putback, len(batch))
		for i := range batch {
			jobs[i] = batch[i].putback
		}
		return func(ctx context.Context) ([]int, error) { return st.Putback(ctx, by, jobs) }
	default:
		jobs := make([]store.Burial, len(batch))
		for i := range batch {
			jobs[i] = batch[i].burial
		}
		return func(ctx context.Context) ([]int, error) { return st.Bury(ctx, by, jobs) }
	}
}

// confirmed ends the books on a batch and frees its slots.
func (t *settler) confirmed(batch []settlement, refused []int) {
	q := t.q
	q.mu.Lock()
	for i := range batch {
		q.disown(batch[i].a)
	}
	q.mu.Unlock()
	for i := range batch {
		st := &batch[i]
		if len(refused) > 0 && refused[0] == i {
			refused = refused[1:]
			q.lost(st.a)
			continue
		}
		q.report(st)
	}
	q.s.free(len(batch))
}

// report tells the trace and the log what became of an attempt.
func (q *served) report(st *settlement) {
	m, e := &st.a.msg, &st.end
	if f := q.s.trace.JobSettled; f != nil {
		f(m, *e)
	}
	switch {
	case e.Action == ActionDead:
		q.undertaker.buried(m.Task)
		q.s.log.Error("redrive: job is a dead letter", "queue", q.name, "task", m.Task, "id", m.ID,
			"reason", e.Reason, "retries", m.Retries, "error", errorText(e.Err))
	case e.Action == ActionDiscard:
		q.s.log.Info("redrive: job discarded", "queue", q.name, "task", m.Task, "id", m.ID, "error", errorText(e.Err))
	case e.Action == ActionRetry:
		q.s.log.Debug("redrive: job failed and will run again", "queue", q.name, "task", m.Task, "id", m.ID,
			"retries", m.Retries, "delay", e.Delay.Round(time.Millisecond), "error", errorText(e.Err))
	}
}

// lost tells that a job's token was refused: another worker owns it.
func (q *served) lost(a *attempt) {
	q.s.log.Warn("redrive: lease lost: the job's end was not written, another worker owns it",
		"queue", q.name, "task", a.msg.Task, "id", a.msg.ID)
	if f := q.s.trace.JobLost; f != nil {
		f(&a.msg)
	}
}
