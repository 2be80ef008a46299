package model_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/redrive-go/redrive/internal/model"
	"github.com/redrive-go/redrive/internal/store"
)

// A sequence performs operations on a model and on queues, and compares the answers.
type sequence struct {
	t      *rapid.T
	model  *model.Queue
	queues []*queue
	state  string // the model's after the last operation
	// culprit is the backend that was wrong: shorter sequences are sought with it alone,
	// which takes half the time.
	culprit *string
	seen    map[string]int // what happened, in all sequences

	lines []string // what was done and answered, for a reader
	sent  []call
	// calls counts those of each caller.
	calls map[string]int64
	// claimed are jobs that claims gave, also such as are not the worker's any more.
	claimed []claimed
	// hooks are letters that were taken for their hooks.
	hooks []takenHook
	// sums are digests of letters that were read, also such as have changed.
	sums map[string]string
}

type call struct {
	text string
	do   func(operations) any
	// until is when no copy can be on its way any more, ms; 0 for never.
	until int64
}

type claimed struct {
	worker string
	store.Owned
}

type takenHook struct {
	task     string
	letter   store.Letter
	deadline int64
}

// pair is an answer of two parts; errors are compared by what they are.
type pair struct{ answer, err any }

func answered[T any](answer T, err error) pair {
	if errors.Is(err, store.ErrOvertaken) {
		return pair{answer, "overtaken"}
	}
	return pair{answer, err}
}

// call performs a call, and at random at once again, up to four times in all: the
// others must change nothing (I6). Later it may arrive once more.
func (s *sequence) call(kind, text string, do func(operations) any) (answer any) {
	s.t.Helper()
	c := call{text: text, do: do}
	answer = s.perform(kind, c)
	s.sent = append(s.sent, c)
	after := s.state
	for n := rapid.SampledFrom([]int{0, 0, 0, 0, 1, 1, 3}).Draw(s.t, "again"); n > 0; n-- {
		s.perform("again", c)
		if s.state != after {
			s.t.Fatalf("I6: %s wrote when it was sent again:\n%s\n%s", text, after, s.state)
		}
	}
	return answer
}

// perform compares the answers to a call.
func (s *sequence) perform(kind string, c call) any {
	s.t.Helper()
	answer := c.do(s.model)
	want := show(answer, s.model)
	s.lines = append(s.lines, fmt.Sprintf("%s: %s → %s", kind, c.text, want))
	for _, q := range s.queues {
		if got := show(c.do(q), q); got != want {
			*s.culprit = q.b.name
			s.t.Fatalf("%s: %s\n%s answers     %s\nthe model says %s", kind, c.text, q.b.name, got, want)
		}
	}
	outcome := "changed nothing"
	if state := fmt.Sprint(s.model.State()); state != s.state {
		s.state, outcome = state, "changed the queue"
	}
	s.seen[kind+" "+outcome]++
	s.count(answer)
	return answer
}

// count counts what an answer shows to have happened.
func (s *sequence) count(answer any) {
	switch a := answer.(type) {
	case store.Settled:
		if len(a.Refused) > 0 {
			s.seen["a token was refused"]++
		}
		if a.Claimed.State != "" {
			s.count(a.Claimed)
		}
	case store.Claimed:
		s.seen["claim "+string(a.State)]++
	case pair:
		fates, _ := a.answer.([]store.LetterFate)
		for _, f := range fates {
			s.seen[fmt.Sprintf("fate %c", f)]++
		}
		if a.err != nil {
			s.seen[fmt.Sprint(a.err)]++
		}
	}
}

// short leaves out of a printed time what says nothing; see [model.Start].
var short = strings.NewReplacer("0001-01-01 00:00:00 +0000 UTC", "never", "2020-01-01 ", "", " +0000 UTC", "")

// show prints an answer, and whether the bell rings then: it soon rings for another
// reason, or is heard.
func show(answer any, q operations) string {
	text := short.Replace(fmt.Sprintf("%+v", answer))
	if p, ok := answer.(pair); ok {
		if fates, ok := p.answer.([]store.LetterFate); ok {
			text = fmt.Sprintf("{answer:%s err:%v}", string(fates), p.err)
		}
	}
	if q.Bell() {
		text += " bell"
	}
	return text
}

// next is the number of a new call of one caller.
func (s *sequence) next(caller string) int64 {
	s.calls[caller]++
	return s.calls[caller]
}

// end compares all that the queues hold with the model, and with each other.
func (s *sequence) end() {
	want := s.model.State()
	first := s.queues[0].dump()
	for _, q := range s.queues {
		dump := q.dump()
		state := q.state(dump)
		if !maps.Equal(state, want) {
			*s.culprit = q.b.name
		}
		require.Equal(s.t, want, state, "what %s holds is not what the model does", q.b.name)
		require.Equal(s.t, first, dump, "%s and %s do not hold the same", s.queues[0].b.name, q.b.name)
		q.audit()
	}
}

// The names of what the operations handle are few, so that they meet.
var (
	workers   = []string{"a", "b", "c:1"} // a colon is allowed in names
	producers = []string{"p", "q"}
	ids       = []string{"j1", "j2", "j3", "j4", "j5", "j6", "j7", "j8"}
	tasks     = []string{"t", "u"}
	reasons   = store.Reasons()[:3]
	reviewers = []string{"r1", "r2"}
	leases    = []time.Duration{10 * time.Minute, time.Minute, time.Hour}
	delays    = []time.Duration{time.Minute, time.Millisecond, 10 * time.Minute, time.Hour}
	// Of what is not a whole minute, so little passes in a sequence that TTLs, which are
	// whole minutes and which a redis-server counts by its own clock, stay far from zero.
	passes = []time.Duration{time.Millisecond, time.Minute, time.Minute, 10 * time.Minute, time.Hour}
)

func draw[T any](s *sequence, of []T, label string) T { return rapid.SampledFrom(of).Draw(s.t, label) }

// some draws a few different values, in any order.
func some[T comparable](s *sequence, of []T, label string) []T {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(of), 1, min(3, len(of)), rapid.ID[T]).Draw(s.t, label)
}

// chance is one in four.
func (s *sequence) chance(label string) bool { return quarter.Draw(s.t, label) }

var quarter = rapid.Map(rapid.SliceOfN(rapid.Bool(), 2, 2), func(bits []bool) bool { return bits[0] && bits[1] })

func (s *sequence) passSome() { s.pass(draw(s, passes, "time")) }

func (s *sequence) pass(d time.Duration) {
	s.perform("pass", call{text: d.String(), do: func(q operations) any { q.Pass(d); return nil }})
}

// late has a call arrive again that was made long ago.
func (s *sequence) late() {
	c := s.sent[len(s.sent)-1-rapid.IntRange(0, min(12, len(s.sent)-1)).Draw(s.t, "how late")]
	if c.until == 0 || s.model.Now().UnixMilli() < c.until {
		s.perform("late", c)
	}
}

func (s *sequence) enqueue() {
	lane, lookDead, free := draw(s, producers, "lane"), !s.chance("generated ids"), ids
	if !lookDead { // such ids are never those of dead letters
		dead := s.model.LettersByID(ids)
		free = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return dead[slices.Index(ids, id)].Entry != "" })
		if len(free) == 0 {
			free, lookDead = ids, true
		}
	}
	call := s.next("lane " + lane)
	var jobs []store.NewJob
	text := fmt.Sprintf("%s #%d", lane, call)
	for i := range rapid.IntRange(1, 4).Draw(s.t, "jobs") {
		j := store.NewJob{ID: draw(s, free, "id")}
		j.Envelope = fmt.Appendf(nil, "%s%d.%d", lane, call, i)
		text += " " + j.ID
		switch rapid.IntRange(0, 5).Draw(s.t, "when") {
		case 4:
			j.Delay = draw(s, delays, "delay")
			text += "+" + j.Delay.String()
		case 5:
			j.RunAt = s.model.Now().UnixMilli() + rapid.Int64Range(-1, 1).Draw(s.t, "run at")
			text += fmt.Sprintf("@%d", j.RunAt)
		}
		jobs = append(jobs, j)
	}
	if !lookDead {
		text += " (not looking at dead letters)"
	}
	s.call("enqueue", text, func(q operations) any { return answered(q.Enqueue(lane, call, lookDead, jobs)) })
	if !lookDead { // it must not come when it is forgotten: an id may be a dead letter's by then
		s.sent[len(s.sent)-1].until = s.model.Now().Add(time.Hour).UnixMilli()
	}
}

func (s *sequence) claimCall(worker string) store.ClaimCall {
	c := store.ClaimCall{Worker: worker, Lane: rapid.IntRange(0, store.Lanes-1).Draw(s.t, "lane")}
	c.Call = s.next(fmt.Sprint("claims ", worker, c.Lane))
	c.N = rapid.IntRange(1, 4).Draw(s.t, "n")
	c.Probe = s.chance("probe")
	return c
}

// took notes what a worker owns after it may have claimed.
func (s *sequence) took(worker string) {
	owned := s.model.Owned(worker)
	for _, id := range slices.Sorted(maps.Keys(owned)) {
		if c := (claimed{worker, store.Owned{ID: id, Token: owned[id]}}); !slices.Contains(s.claimed, c) {
			s.claimed = append(s.claimed, c)
		}
	}
}

// claim claims, mostly after what it needs to get something.
func (s *sequence) claim() {
	worker, stats := draw(s, workers, "worker"), s.model.Stats()
	if s.model.Lease(worker).Before(s.model.Now()) && !s.chance("lapsed") {
		s.beatFor(worker, draw(s, leases, "lease"))
	}
	if stats.Paused && !s.chance("paused") {
		s.resume()
	}
	if stats.Ready == 0 && !s.chance("nothing ready") {
		s.enqueue()
	}
	if s.model.Bell() && !s.chance("busy") {
		s.listen()
	}
	c := s.claimCall(worker)
	s.call("claim", fmt.Sprintf("%+v", c), func(q operations) any { return q.Claim(c) })
	s.took(c.Worker)
}

// busy lists the workers that own jobs, or, if there are none, all.
func (s *sequence) busy() []string {
	busy := slices.DeleteFunc(slices.Clone(workers), func(worker string) bool { return len(s.model.Owned(worker)) == 0 })
	if len(busy) == 0 {
		return workers
	}
	return busy
}

// owned draws jobs to end: mostly such as the worker owns, and some that it did, or
// that others do.
func (s *sequence) owned() (worker string, jobs []store.Owned) {
	if len(s.model.Owned(s.busy()[0])) == 0 && !s.chance("nothing owned") {
		s.claim()
	}
	worker = draw(s, s.busy(), "worker")
	byID := map[string]store.Owned{}
	for id, token := range s.model.Owned(worker) {
		byID[id] = store.Owned{ID: id, Token: token}
	}
	if len(byID) == 0 || s.chance("zombie") {
		byID["j1"] = store.Owned{ID: "j1", Token: "t0"} // nobody's
		for _, c := range s.claimed {
			if _, ok := byID[c.ID]; !ok || c.worker == worker {
				byID[c.ID] = c.Owned
			}
		}
	}
	for _, id := range some(s, slices.Sorted(maps.Keys(byID)), "jobs") {
		jobs = append(jobs, byID[id])
	}
	return worker, jobs
}

func (s *sequence) settler(worker string) store.Settler {
	by := store.Settler{Worker: worker, Lane: rapid.IntRange(0, store.Lanes-1).Draw(s.t, "settle lane")}
	by.Call = fmt.Sprintf("%s/%d", worker, s.next("settlers"))
	if s.chance("and claim") {
		next := s.claimCall(worker)
		by.Next = &next
	}
	return by
}

func settles(by store.Settler, jobs string) string {
	text := fmt.Sprintf("%s lane %d", by.Call, by.Lane)
	if by.Reap {
		text += " reaps " + by.Worker
	}
	text += ": " + jobs
	if by.Next != nil {
		text += fmt.Sprintf(", then %+v", *by.Next)
	}
	return text
}

func (s *sequence) finish() {
	worker, jobs := s.owned()
	by, counter := s.settler(worker), draw(s, []store.Counter{store.Succeeded, store.Discarded}, "counter")
	done := make([]store.Done, len(jobs))
	for i, j := range jobs {
		done[i] = store.Done{Owned: j}
		if s.chance("result") {
			done[i].Result, done[i].TTL = fmt.Appendf(nil, "result %s", by.Call), draw(s, leases, "ttl")
		}
	}
	s.call("finish", settles(by, fmt.Sprintf("%s %+v", counter, done)), func(q operations) any { return q.Finish(by, counter, done) })
	s.took(worker)
}

func (s *sequence) putback() {
	worker, jobs := s.owned()
	s.putJobsBack(s.settler(worker), jobs)
}

func (s *sequence) putJobsBack(by store.Settler, jobs []store.Owned) {
	counters := []store.Counter{store.Retried, store.Snoozed, store.Interrupted}
	if by.Reap {
		counters = []store.Counter{store.Crashed}
	}
	back, texts := make([]store.Putback, len(jobs)), make([]string, len(jobs))
	for i, j := range jobs {
		back[i] = store.Putback{Owned: j, Counter: draw(s, counters, "counter")}
		when := "at once"
		switch rapid.IntRange(0, 2).Draw(s.t, "where") {
		case 0:
			back[i].Front, when = true, "to the front"
		case 1:
			back[i].Delay = draw(s, delays, "delay")
			when = "in " + back[i].Delay.String()
		}
		if rapid.Bool().Draw(s.t, "ledger") {
			back[i].Ledger = fmt.Appendf(nil, "ledger %s", by.Call)
		}
		texts[i] = fmt.Sprintf("%+v %s %s ledger %q", j, back[i].Counter, when, back[i].Ledger)
	}
	s.call("put back", settles(by, strings.Join(texts, ", ")), func(q operations) any { return q.Putback(by, back) })
	s.took(by.Worker)
}

func (s *sequence) bury() {
	worker, jobs := s.owned()
	s.buryJobs(s.settler(worker), jobs)
}

func (s *sequence) buryJobs(by store.Settler, jobs []store.Owned) {
	dead := make([]store.Burial, len(jobs))
	texts := make([]string, len(jobs))
	for i, j := range jobs {
		dead[i] = store.Burial{
			Owned: j, Task: draw(s, tasks, "task"), Reason: draw(s, reasons, "reason"),
			Entry: fmt.Appendf(nil, "entry %s %s", j.ID, by.Call), Hook: rapid.Bool().Draw(s.t, "hook"),
		}
		texts[i] = fmt.Sprintf("%+v task %s %s hook %v", j, dead[i].Task, dead[i].Reason, dead[i].Hook)
	}
	s.call("bury", settles(by, strings.Join(texts, ", ")), func(q operations) any { return q.Bury(by, dead) })
	s.took(by.Worker)
}
