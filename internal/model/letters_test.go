package model_test

import (
	"crypto/sha1"
	"fmt"
	"time"

	"pgregory.net/rapid"

	"github.com/redrive-go/redrive/internal/model"
	"github.com/redrive-go/redrive/internal/store"
)

// caller makes a new call of a caller that handles dead letters.
func (s *sequence) caller(name string) model.Caller {
	return model.Caller{Name: name, Call: s.next("caller " + name)}
}

// letters lists the ids of dead letters, of which it mostly sees to some; without any,
// ids that are none.
func (s *sequence) letters() []string {
	if s.model.Stats().Dead == 0 && !s.chance("no letters") {
		s.bury()
	}
	p := s.model.Letters(store.LetterIndex{}, store.LetterCursor{}, store.MaxBatch)
	if len(p.Letters) == 0 {
		return ids[:2]
	}
	var out []string
	for _, l := range p.Letters {
		out = append(out, l.ID)
	}
	return out
}

// endLetters requeues or deletes letters, as an operator or as their reviewer.
func (s *sequence) endLetters() {
	by, counter := s.caller("operator"), draw(s, []store.Counter{store.Requeued, store.Drained, store.Deleted}, "counter")
	text := fmt.Sprintf("#%d %s", by.Call, counter)
	var ends []store.LetterEnd
	for _, l := range s.model.LettersByID(some(s, s.letters(), "letters")) {
		e := store.LetterEnd{ID: l.ID, Task: s.model.LetterTask(l.ID)}
		if e.Task == "" || s.chance("other task") {
			e.Task = draw(s, tasks, "task")
		}
		if rapid.Bool().Draw(s.t, "as it was first read") {
			if s.sums[l.ID] == "" {
				s.sums[l.ID] = fmt.Sprintf("%x", sha1.Sum([]byte(l.Entry)))
			}
			e.Sum = s.sums[l.ID]
		}
		if rapid.Bool().Draw(s.t, "under review") {
			e.Token = draw(s, reviewers, "reviewer")
		}
		if counter == store.Requeued {
			e.Envelope, e.Ledger = fmt.Appendf(nil, "again %d", by.Call), fmt.Appendf(nil, "history %d", by.Call)
		}
		ends = append(ends, e)
		text += fmt.Sprintf(" %s of %s (sum %.4s token %s)", e.ID, e.Task, e.Sum, e.Token)
	}
	if s.chance("twice") { // of which it ends one
		ends = append(ends, ends[0])
		text += " and the first once more"
	}
	s.call("end letters", text, func(q operations) any { return answered(q.EndLetters(by, counter, ends)) })
}

func (s *sequence) trim() {
	s.letters()
	by, task := s.caller("trimmer"), draw(s, tasks, "task")
	count, age := rapid.IntRange(-1, 2).Draw(s.t, "count"), draw(s, append(delays, -1), "age")
	s.call("trim", fmt.Sprintf("#%d %s to %d, %v", by.Call, task, count, age), func(q operations) any {
		dropped, left, err := q.TrimLetters(by, task, count, age)
		return answered([2]int{dropped, left}, err)
	})
}

func (s *sequence) review() {
	s.letters()
	token, task := draw(s, reviewers, "reviewer"), draw(s, tasks, "task")
	by, lease, n := s.caller("review "+token), draw(s, leases, "lease"), rapid.IntRange(1, 3).Draw(s.t, "n")
	var after store.LetterCursor
	if s.chance("from a cursor") {
		if l := s.model.LettersByID([]string{draw(s, s.letters(), "after")})[0]; l.Entry != "" {
			after = store.LetterCursor{Died: l.Died, ID: l.ID}
		}
	}
	s.call("review", fmt.Sprintf("%s #%d %d of %s for %v after %+v", token, by.Call, n, task, lease, after),
		func(q operations) any { return q.TakeLetters(by, task, token, lease, n, after) })
}

func (s *sequence) release() {
	token, ids := draw(s, reviewers, "reviewer"), some(s, s.letters(), "letters")
	s.call("release", fmt.Sprint(token, " ", ids), func(q operations) any { return q.ReleaseLetters(token, ids) })
}

func (s *sequence) takeHooks() {
	s.letters()
	worker, task := draw(s, workers, "worker"), draw(s, tasks, "task")
	by, lease, n := s.caller("hooks "+worker), draw(s, leases, "lease"), rapid.IntRange(1, 3).Draw(s.t, "n")
	taken := s.call("take hooks", fmt.Sprintf("%s #%d %d of %s for %v", worker, by.Call, n, task, lease),
		func(q operations) any { return q.TakeHooks(by, task, n, lease) }).(store.HookLetters)
	for _, l := range taken.Letters {
		s.hooks = append(s.hooks, takenHook{task, l, taken.Deadline})
	}
}

func (s *sequence) endHook() {
	if len(s.hooks) == 0 {
		s.takeHooks()
	}
	if len(s.hooks) == 0 {
		return
	}
	h, heard := draw(s, s.hooks, "hook"), rapid.Bool().Draw(s.t, "heard")
	if s.chance("it died again") {
		s.dieAgain(h)
	}
	s.call("end hook", fmt.Sprintf("%+v heard %v", h, heard), func(q operations) any {
		q.EndHook(h.task, h.letter, h.deadline, heard)
		return nil
	})
}

// dieAgain makes a letter a job again and buries that, if nothing stands in the way:
// the letter that is there then is another.
func (s *sequence) dieAgain(h takenHook) {
	id, by := h.letter.ID, s.caller("operator")
	end := store.LetterEnd{ID: id, Task: h.task, Envelope: fmt.Appendf(nil, "again %d", by.Call), Ledger: []byte("history")}
	s.call("end letters", fmt.Sprintf("#%d requeued %s of %s", by.Call, id, h.task), func(q operations) any {
		return answered(q.EndLetters(by, store.Requeued, []store.LetterEnd{end}))
	})
	s.pass(time.Millisecond)
	s.claim()
	for _, worker := range workers {
		if token := s.model.Owned(worker)[id]; token != "" {
			by := s.settler(worker)
			dead := []store.Burial{{
				Owned: store.Owned{ID: id, Token: token}, Task: h.task, Reason: reasons[0],
				Entry: fmt.Appendf(nil, "entry %s %s", id, by.Call), Hook: true,
			}}
			s.call("bury", settles(by, id+" again"), func(q operations) any { return q.Bury(by, dead) })
			s.seen["a letter died again"]++
		}
	}
}
