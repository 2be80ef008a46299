package model

import (
	"fmt"
	"time"

	"github.com/redrive-go/redrive/internal/store"
)

// NextDue is when the next delayed job is due.
func (q *Queue) NextDue() time.Time {
	waiting := q.byDue()
	if len(waiting) == 0 {
		return time.Time{}
	}
	return time.UnixMilli(q.delayed[waiting[0]])
}

// Waiting lists the jobs that wait.
func (q *Queue) Waiting() (out []store.WaitingJob) {
	for _, id := range q.ready {
		out = append(out, store.WaitingJob{ID: id, Envelope: q.jobs[id], Ledger: q.ledgers[id]})
	}
	for _, id := range q.byDue() {
		out = append(out, store.WaitingJob{
			ID: id, Envelope: q.jobs[id], Ledger: q.ledgers[id], Due: time.UnixMilli(q.delayed[id]),
		})
	}
	return out
}

// Owned lists what a worker has.
func (q *Queue) Owned(name string) map[string]string {
	if w := q.workers[name]; w != nil {
		return w.owned
	}
	return nil
}

// Lease is the last moment of a worker's lease; zero for one that has none.
func (q *Queue) Lease(name string) time.Time {
	if w := q.workers[name]; w != nil {
		return time.UnixMilli(w.lease)
	}
	return time.Time{}
}

// Stats counts.
func (q *Queue) Stats() store.Stats {
	s := store.Stats{
		Ready: int64(len(q.ready)), Delayed: int64(len(q.delayed)), Dead: int64(len(q.letters)),
		Workers: int64(len(q.workers)), Paused: q.paused, Counters: q.raised(),
	}
	for _, w := range q.workers {
		s.Active += int64(len(w.owned))
	}
	return s
}

// raised are the counters that were raised.
func (q *Queue) raised() map[store.Counter]int64 {
	out := map[store.Counter]int64{}
	for counter, n := range q.counters {
		if n > 0 {
			out[counter] = n
		}
	}
	return out
}

// Fate looks a job up.
func (q *Queue) Fate(id string) store.Fate {
	var f store.Fate
	_, f.Pending = q.jobs[id]
	if l := q.letters[id]; l != nil {
		f.Letter = l.entry
	}
	var r result
	r, f.HasResult = q.results[id]
	f.Result = []byte(r.value)
	return f
}

// LetterCounts counts letters by task and by reason.
func (q *Queue) LetterCounts() store.LetterCounts {
	c := store.LetterCounts{Tasks: map[string]int64{}, ByReason: map[string]int64{}}
	for _, l := range q.letters {
		c.Total++
		c.Tasks[l.task]++
		c.ByReason[l.reason]++
	}
	return c
}

// LettersByID looks letters up.
func (q *Queue) LettersByID(ids []string) []store.Letter { return q.read(ids) }

// DeadTasks lists the tasks that have letters.
func (q *Queue) DeadTasks() []string { return sorted(q.LetterCounts().Tasks) }

// LetterTask finds the task of a letter.
func (q *Queue) LetterTask(id string) string {
	if l := q.letters[id]; l != nil {
		return l.task
	}
	return ""
}

// HookTasks lists the tasks with letters whose hook is to be called.
func (q *Queue) HookTasks() (out []store.HookTask) {
	first := q.firstHooks()
	for _, task := range byScore(first) {
		out = append(out, store.HookTask{Task: task, In: time.Duration(first[task]-q.now) * time.Millisecond})
	}
	return out
}

func (q *Queue) firstHooks() map[string]int64 {
	first := map[string]int64{}
	for _, l := range q.letters {
		if due, ok := first[l.task]; l.hook != 0 && (!ok || l.hook < due) {
			first[l.task] = l.hook
		}
	}
	return first
}

// State is everything that the queue holds, by the last part of the name of the key
// that holds it. Of what calls are remembered it says only that they are.
func (q *Queue) State() map[string]string {
	state := map[string]string{}
	put := func(key string, value any, size int) {
		if size > 0 {
			state[key] = fmt.Sprint(value)
		}
	}
	put("ready", q.ready, len(q.ready))
	put("jobs", q.jobs, len(q.jobs))
	put("ledger", q.ledgers, len(q.ledgers))
	put("delayed", q.delayed, len(q.delayed))
	put("workers", q.leases(), len(q.workers))
	put("owners", q.owners(), len(q.workers))
	for name, w := range q.workers {
		put("w:"+name, w.owned, len(w.owned))
	}
	if q.bell {
		put("bell", []int{1}, 1)
	}
	stats := q.raised()
	if q.paused {
		stats["paused"] = 1
	}
	put("stats", stats, len(stats))

	// Letters are in the index of all, of their task and of their reason.
	index := map[string]map[string]int64{}
	entries, reviews := map[string]string{}, map[string]string{}
	for id, l := range q.letters {
		entries[id] = l.entry
		if l.review != (review{}) {
			reviews[id] = fmt.Sprintf("%d:%s", l.review.deadline, l.review.token)
		}
		add(index, "dead", id, l.died)
		add(index, "dead:"+l.task, id, l.died)
		add(index, "why:"+l.reason, id, l.died)
		add(index, "deadtasks", l.task, 0)
		if l.hook != 0 {
			add(index, "hooks:"+l.task, id, l.hook)
		}
	}
	put("letters", entries, len(entries))
	put("reviews", reviews, len(reviews))
	for key, members := range index {
		put(key, members, len(members))
	}
	hooks := q.firstHooks()
	put("hooks", hooks, len(hooks))

	for id, r := range q.results {
		put("r:"+id, r.value+q.ttl(r.expires), 1)
	}
	for lane, m := range q.lanes {
		put("p:"+lane, "remembered"+q.ttl(m.expires), 1)
	}
	for caller, m := range q.callers {
		put("m:"+caller, "remembered"+q.ttl(m.expires), 1)
	}
	return state
}

// owners lists the workers once more, so that one lost key hides none.
func (q *Queue) owners() map[string]int64 {
	owners := map[string]int64{}
	for name := range q.workers {
		owners[name] = 0
	}
	return owners
}

func add(index map[string]map[string]int64, key, member string, score int64) {
	if index[key] == nil {
		index[key] = map[string]int64{}
	}
	index[key][member] = score
}

// ttl tells how long something is kept: the minutes that have begun.
func (q *Queue) ttl(expires int64) string {
	left := time.Duration(expires-q.now) * time.Millisecond
	return TTL(left)
}

// TTL is how a state shows a time to live.
func TTL(left time.Duration) string {
	return fmt.Sprintf(" for %d min", (left+time.Minute-1)/time.Minute)
}
