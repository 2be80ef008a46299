package redrive

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/redrive-go/redrive/internal/store"
)

// laggard is how long the other queues wait for the claim of one whose turn it is.
const laggard = 20 * time.Millisecond

// A schedule shares the slots of a session among its queues. Slots go to the queue
// that has had least for its weight (stride scheduling: pass counts the jobs
// claimed per unit of weight), so that a flood in one starves no other.
type schedule struct {
	mu sync.Mutex
	// slots is how many are free: not asked for by a claim, not running, not
	// settling.
	slots    int
	stopping bool // claim nothing more
	shares   []*share
}

// share is one queue's part in the schedule.
type share struct {
	weight float64
	pass   float64
	hungry bool // it may have work
	// news counts what told of work. Claims overlap, and the answer to one that Redis
	// performed before the news must not pass for an answer to it.
	news int
	// told: news came, and no claim has been granted since.
	told bool
	// claiming: dispatch has a claim in flight for it, since claimed.
	claiming bool
	claimed  time.Time
	probe    bool      // the next claim must find the master
	due      time.Time // when the next delayed job is due, on our clock; zero for none
}

// yield is what came of a claim.
type yield struct {
	// news is the share's when the claim was granted.
	news int
	jobs int
	// more: the queue may have more work now.
	more bool
	// due is when its next delayed job is due; zero for unknown.
	due time.Time
}

// feed marks a queue as having work. One that had none takes its place among the
// others as if it had been served all along: it neither catches up nor waits.
func (s *schedule) feed(q *share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.feedLocked(q)
}

func (s *schedule) feedLocked(q *share) {
	q.due = time.Time{}
	q.news++
	q.told = true
	if q.hungry {
		return
	}
	if least := s.least(time.Now()); !math.IsInf(least, 1) {
		q.pass = max(q.pass, least)
	}
	q.hungry = true
}

// least is the lowest pass of the queues with work. One whose claim takes long
// does not count: the others need not wait for it.
func (s *schedule) least(now time.Time) float64 {
	least := math.Inf(1)
	for _, q := range s.shares {
		if q.hungry && !(q.claiming && now.Sub(q.claimed) > laggard) {
			least = min(least, q.pass)
		}
	}
	return least
}

// wakeDue feeds the queues whose next delayed job is due, and returns when dispatch
// has to look again.
func (s *schedule) wakeDue(now time.Time) (next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next = now.Add(time.Hour)
	for _, q := range s.shares {
		if !q.due.IsZero() && !q.due.After(now) {
			s.feedLocked(q)
		}
		if !q.due.IsZero() && q.due.Before(next) {
			next = q.due
		}
		if late := q.claimed.Add(laggard); q.claiming && len(s.shares) > 1 && late.After(now) && late.Before(next) {
			next = late
		}
	}
	return next
}

// grant is a claim that dispatch may make.
type grant struct {
	q     int // index of the queue
	n     int // slots, taken from the free ones
	news  int
	probe bool
}

// grants shares the free slots out: by weight among the queues that have had least.
func (s *schedule) grants() []grant {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slots == 0 || s.stopping {
		return nil
	}
	now := time.Now()
	least, weights := s.least(now), 0.0
	var able []int
	for i, q := range s.shares {
		if q.hungry && !q.claiming && q.pass <= least {
			able = append(able, i)
			weights += q.weight
		}
	}
	slices.SortStableFunc(able, func(a, b int) int { return cmp.Compare(s.shares[b].weight, s.shares[a].weight) })
	free := float64(s.slots)
	var out []grant
	for _, i := range able {
		q := s.shares[i]
		n := min(s.slots, store.MaxBatch, int(math.Ceil(free*q.weight/weights)))
		if n == 0 {
			break
		}
		out = append(out, grant{q: i, n: n, news: q.news, probe: q.probe})
		s.slots -= n
		q.claiming, q.claimed, q.probe, q.told = true, now, false, false
		q.pass += float64(n) / q.weight // what does not come is given back
	}
	return out
}

// unserved returns the queues that have work as this worker has just been told, perhaps
// as the only one, while all its slots are taken: others must be told of it.
func (s *schedule) unserved() (queues []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, q := range s.shares {
		if s.slots == 0 && q.told && !q.claiming {
			q.told = false
			queues = append(queues, i)
		}
	}
	return queues
}

// next is how many jobs a queue may claim in the call that settles some: the slots
// of those, and the free ones if no other queue has work. What it returns is taken.
func (s *schedule) next(q *share, settling int) (n, news int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping || !q.hungry {
		return 0, 0
	}
	n = settling + s.slots
	for _, other := range s.shares {
		if other.hungry && other != q {
			if q.pass > s.least(time.Now()) {
				return 0, 0 // another's turn
			}
			n = settling
			break
		}
	}
	n = min(n, store.MaxBatch)
	q.told = false
	s.slots -= max(0, n-settling)
	q.pass += float64(n) / q.weight
	return n, q.news
}

// claimed takes in the answer to a claim for n slots. It adds to what is known and
// clears only what the claim has answered: a due time that is no longer true costs
// one claim, one that is forgotten makes its job late until a heartbeat sees it.
func (s *schedule) claimed(q *share, n int, y yield) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case y.more:
		q.hungry = true
		q.news++
	case y.news == q.news:
		q.hungry = false
	}
	if q.due.IsZero() || !y.due.IsZero() && y.due.Before(q.due) {
		q.due = y.due
	}
	q.pass -= float64(n-y.jobs) / q.weight
	s.slots += n - y.jobs
}

// free gives slots back.
func (s *schedule) free(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slots += n
}

// stop ends all claims.
func (s *schedule) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
}

// idle reports whether a queue should be listened to: it has no work and there is
// a slot for some. A full worker leaves the bell to others.
func (s *schedule) idle(q *share) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slots > 0 && !q.hungry
}

// available returns the number of free slots.
func (s *schedule) available() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slots
}
