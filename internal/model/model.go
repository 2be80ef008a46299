// Package model says in plain Go what a queue does: each method of [Queue] is an
// operation of store.Queue, in memory and for one goroutine, and answers what Redis
// must answer. It is the specification that the scripts are held to; its tests run
// random sequences of operations against it, the in-process Redis and a real one.
//
// It knows no encodings. Tokens are t1, t2, … in the order in which claims got them.
// Where the store promises no order, the model's is that of the ids.
package model

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/redrive-go/redrive/internal/store"
)

// Start is when the clock of a model starts, ms: a midnight, so that a time of day
// tells how much has passed.
const Start int64 = 1_577_836_800_000

// Fraction is how far into a millisecond the clock always is, so that a delay that
// counts from its beginning is too short (I12).
const Fraction = 500 * time.Microsecond

// How long the last call of a producer's lane, and of a caller that handles dead
// letters, is remembered.
const (
	laneMemory   = time.Hour
	callerMemory = 10 * time.Minute
)

// Queue is a queue.
type Queue struct {
	now int64 // ms, cut: it is always [Fraction] later

	// A job has an envelope and is in one place: ready, delayed, or owned by a worker.
	jobs    map[string]string
	ledgers map[string]string
	ready   []string
	delayed map[string]int64 // when it is due
	workers map[string]*worker
	letters map[string]*letter
	results map[string]result

	tokens   int
	paused   bool
	bell     bool
	counters map[store.Counter]int64

	lanes   map[string]memory
	callers map[string]memory
}

// worker is one that has a lease, live or lapsed.
type worker struct {
	lease int64 // the last moment at which it is live
	owned map[string]string
	// The last call that gave jobs or ended some, of each lane.
	claims [store.Lanes]struct {
		call  int64
		token string
	}
	settles [store.Lanes]struct {
		call    string
		refused []int
	}
}

type result struct {
	value   string
	expires int64
}

// memory is a caller's last call and the answer to it.
type memory struct {
	call    int64
	answer  any
	expires int64
}

// New returns an empty queue.
func New() *Queue {
	return &Queue{
		now: Start, jobs: map[string]string{}, ledgers: map[string]string{}, delayed: map[string]int64{},
		workers: map[string]*worker{}, letters: map[string]*letter{}, results: map[string]result{},
		counters: map[store.Counter]int64{}, lanes: map[string]memory{}, callers: map[string]memory{},
	}
}

// Now is the time of the model.
func (q *Queue) Now() time.Time { return time.UnixMilli(q.now) }

// Pass lets time pass.
func (q *Queue) Pass(d time.Duration) {
	q.now += d.Milliseconds()
	expired := func(_ string, m memory) bool { return m.expires <= q.now }
	maps.DeleteFunc(q.lanes, expired)
	maps.DeleteFunc(q.callers, expired)
	maps.DeleteFunc(q.results, func(_ string, r result) bool { return r.expires <= q.now })
}

// Enqueue adds jobs whose ids are free and returns the indexes of the others.
func (q *Queue) Enqueue(lane string, call int64, lookDead bool, jobs []store.NewJob) ([]int, error) {
	if last, ok := q.lanes[lane]; ok && last.call >= call {
		if last.call > call {
			return nil, store.ErrOvertaken
		}
		return last.answer.([]int), nil
	}
	var taken []int
	sooner, ring := q.sooner(), false
	for i, j := range jobs {
		_, pending := q.jobs[j.ID]
		if pending || lookDead && q.letters[j.ID] != nil {
			taken = append(taken, i)
			continue
		}
		q.jobs[j.ID] = string(j.Envelope)
		q.counters[store.Enqueued]++
		due := j.RunAt
		if j.Delay > 0 {
			due = q.after(j.Delay)
		}
		if due <= q.now {
			q.ready = append(q.ready, j.ID)
			ring = true
		} else {
			q.delayed[j.ID] = due
			ring = ring || sooner(due)
		}
	}
	q.lanes[lane] = memory{call, taken, q.now + laneMemory.Milliseconds()}
	q.bell = q.bell || ring
	return taken, nil
}

// after is when a delay has passed; it counts from the next millisecond on.
func (q *Queue) after(delay time.Duration) int64 { return q.now + 1 + delay.Milliseconds() }

// sooner reports whether a time is before all that are awaited now: somebody has to
// wait less long then.
func (q *Queue) sooner() func(due int64) bool {
	waiting := q.byDue()
	if len(waiting) == 0 {
		return func(int64) bool { return true }
	}
	first := q.delayed[waiting[0]]
	return func(due int64) bool { return due < first }
}

// byDue lists the delayed jobs, the first due first.
func (q *Queue) byDue() []string { return byScore(q.delayed) }

// byScore lists the members of a sorted set in its order.
func byScore(set map[string]int64) []string {
	return slices.SortedFunc(maps.Keys(set), func(a, b string) int {
		return cmp.Or(cmp.Compare(set[a], set[b]), cmp.Compare(a, b))
	})
}

func (q *Queue) live(w *worker) bool { return w != nil && w.lease >= q.now }

// Claim gives a worker jobs that are ready, then such as are due.
func (q *Queue) Claim(c store.ClaimCall) store.Claimed {
	w, answer := q.workers[c.Worker], store.Claimed{Now: q.Now()}
	switch {
	case !q.live(w):
		answer.State = store.ClaimLapsed
		return answer
	case w.claims[c.Lane].call > c.Call:
		answer.State = store.ClaimStale
		return answer
	case w.claims[c.Lane].call == c.Call: // again: what is left of what it got
		answer.State, answer.NextDue = store.ClaimOK, q.Now()
		for _, id := range sorted(w.owned) {
			if w.owned[id] == w.claims[c.Lane].token {
				answer.Jobs = append(answer.Jobs, q.job(id, w.owned[id]))
			}
		}
		return answer
	case q.paused:
		answer.State = store.ClaimPaused
		return answer
	}

	// As many as were asked for come due at once; those it does not get are ready.
	n := min(c.N, store.MaxBatch)
	ids := slices.Clone(q.ready[:min(n, len(q.ready))])
	q.ready = q.ready[len(ids):]
	due := slices.DeleteFunc(q.byDue(), func(id string) bool { return q.delayed[id] > q.now })
	for _, id := range due[:min(n, len(due))] {
		delete(q.delayed, id)
		if len(ids) < n {
			ids = append(ids, id)
		} else {
			q.ready = append(q.ready, id)
		}
	}
	answer.State, answer.NextDue = store.ClaimOK, q.NextDue()
	if len(ids) == 0 {
		return answer
	}
	q.tokens++
	token := fmt.Sprintf("t%d", q.tokens)
	w.claims[c.Lane].call, w.claims[c.Lane].token = c.Call, token
	for _, id := range ids {
		w.owned[id] = token
		answer.Jobs = append(answer.Jobs, q.job(id, token))
	}
	if len(ids) == n && len(q.ready)+len(q.delayed) > 0 {
		q.bell = true // there may be more than this worker can do
	}
	return answer
}

func (q *Queue) job(id, token string) store.ClaimedJob {
	return store.ClaimedJob{ID: id, Token: token, Envelope: q.jobs[id], Ledger: q.ledgers[id]}
}

// settle ends attempts: end gets the indexes of those that are the worker's.
func (q *Queue) settle(s store.Settler, jobs []store.Owned, end func(own []int)) store.Settled {
	settled := store.Settled{Refused: q.fence(s, jobs, end)}
	if s.Next != nil {
		settled.Claimed = q.Claim(*s.Next)
	}
	return settled
}

func (q *Queue) fence(s store.Settler, jobs []store.Owned, end func(own []int)) (refused []int) {
	w := q.workers[s.Worker]
	if w != nil && w.settles[s.Lane].call == s.Call {
		return w.settles[s.Lane].refused
	}
	var own []int
	for i, j := range jobs {
		if w != nil && w.owned[j.ID] == j.Token && !(s.Reap && q.live(w)) {
			own = append(own, i)
		} else {
			refused = append(refused, i)
		}
	}
	if len(own) == 0 {
		return refused
	}
	for _, i := range own {
		delete(w.owned, jobs[i].ID)
	}
	w.settles[s.Lane].call, w.settles[s.Lane].refused = s.Call, refused
	end(own)
	return refused
}

// Finish ends jobs for good.
func (q *Queue) Finish(s store.Settler, counter store.Counter, jobs []store.Done) store.Settled {
	return q.settle(s, owned(jobs, func(j store.Done) store.Owned { return j.Owned }), func(own []int) {
		for _, i := range own {
			j := jobs[i]
			q.drop(j.ID)
			if j.TTL > 0 {
				q.results[j.ID] = result{string(j.Result), q.now + j.TTL.Milliseconds()}
			}
		}
		q.counters[counter] += int64(len(own))
	})
}

// Putback puts jobs to the front, to the back, or off. Those to the front keep the
// order that they have in the call.
func (q *Queue) Putback(s store.Settler, jobs []store.Putback) store.Settled {
	return q.settle(s, owned(jobs, func(j store.Putback) store.Owned { return j.Owned }), func(own []int) {
		var front []string
		sooner := q.sooner()
		for _, i := range own {
			j := jobs[i]
			due := q.after(j.Delay)
			switch {
			case j.Front:
				front = append(front, j.ID)
				q.bell = true
			case j.Delay <= 0:
				q.ready = append(q.ready, j.ID)
				q.bell = true
			default:
				q.delayed[j.ID] = due
				q.bell = q.bell || sooner(due)
			}
			if len(j.Ledger) > 0 {
				q.ledgers[j.ID] = string(j.Ledger)
			}
			q.counters[j.Counter]++
		}
		q.ready = append(front, q.ready...)
	})
}

// Bury makes dead letters of jobs.
func (q *Queue) Bury(s store.Settler, jobs []store.Burial) store.Settled {
	return q.settle(s, owned(jobs, func(j store.Burial) store.Owned { return j.Owned }), func(own []int) {
		for _, i := range own {
			j := jobs[i]
			q.drop(j.ID)
			l := &letter{task: j.Task, reason: j.Reason, entry: string(j.Entry), died: q.now}
			if j.Hook {
				l.hook = q.now
			}
			q.letters[j.ID] = l
		}
		q.counters[store.Died] += int64(len(own))
	})
}

func (q *Queue) drop(id string) {
	delete(q.jobs, id)
	delete(q.ledgers, id)
}

// Beat renews a lease.
func (q *Queue) Beat(name string, lease time.Duration) store.Beat {
	w := q.workers[name]
	b := store.Beat{Now: q.Now(), Held: q.live(w), Ready: len(q.ready), NextDue: q.NextDue()}
	others := q.leases()
	delete(others, name)
	for _, other := range byScore(others) {
		if others[other] < q.now {
			b.Expired = append(b.Expired, other)
		} else {
			b.NextLapse = time.UnixMilli(others[other])
			break
		}
	}
	if w == nil {
		w = &worker{owned: map[string]string{}}
		q.workers[name] = w
	}
	b.Owned = len(w.owned)
	w.lease = q.now + lease.Milliseconds()
	return b
}

func (q *Queue) leases() map[string]int64 {
	leases := map[string]int64{}
	for name, w := range q.workers {
		leases[name] = w.lease
	}
	return leases
}

// Expired lists what a worker has whose lease lapsed; one that has nothing is
// forgotten.
func (q *Queue) Expired(name string) (jobs []store.ClaimedJob) {
	w := q.workers[name]
	if w == nil || q.live(w) {
		return nil
	}
	if len(w.owned) == 0 {
		delete(q.workers, name)
	}
	for _, id := range sorted(w.owned) {
		jobs = append(jobs, q.job(id, w.owned[id]))
	}
	return jobs
}

// Leave puts what a worker has to the front and forgets the worker.
func (q *Queue) Leave(name string) int {
	back := q.Owned(name)
	q.ready = append(sorted(back), q.ready...)
	q.counters[store.Released] += int64(len(back))
	q.bell = q.bell || len(q.ready)+len(q.delayed) > 0
	delete(q.workers, name)
	return len(back)
}

// Pause stops claims.
func (q *Queue) Pause() { q.paused = true }

// Resume ends a pause.
func (q *Queue) Resume() {
	q.paused = false
	q.bell = true
}

// Ring rings the bell: it wakes one worker that listens, now or next.
func (q *Queue) Ring() { q.bell = true }

// Listen hears the bell.
func (q *Queue) Listen() bool {
	rang := q.bell
	q.bell = false
	return rang
}

// Bell reports whether the bell rings.
func (q *Queue) Bell() bool { return q.bell }

func owned[J any](jobs []J, of func(J) store.Owned) []store.Owned {
	out := make([]store.Owned, len(jobs))
	for i, j := range jobs {
		out[i] = of(j)
	}
	return out
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
