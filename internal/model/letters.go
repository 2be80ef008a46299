package model

import (
	"crypto/sha1"
	"encoding/hex"
	"math"
	"time"

	"github.com/redrive-go/redrive/internal/store"
)

// letter is a dead letter.
type letter struct {
	task, reason, entry string
	died                int64
	hook                int64 // when its hook is due; 0 when it has none
	review              review
}

// review keeps a letter for the holder of the token until the deadline.
type review struct {
	token    string
	deadline int64
}

// A Caller makes calls with growing numbers, and the same one to send one again.
type Caller struct {
	Name string
	Call int64
}

// Bounds of the wait before a hook is called again.
const (
	minHookWait = time.Second
	maxHookWait = 5 * time.Minute
)

// recall returns what a caller was answered, if it makes its last call again.
func (q *Queue) recall(c Caller) (answer any, again bool, err error) {
	last, ok := q.callers[c.Name]
	switch {
	case !ok || last.call < c.Call:
		return nil, false, nil
	case last.call > c.Call:
		return nil, false, store.ErrOvertaken
	}
	return last.answer, true, nil
}

func (q *Queue) remember(c Caller, answer any) {
	q.callers[c.Name] = memory{c.Call, answer, q.now + callerMemory.Milliseconds()}
}

// those lists the letters that a test selects, oldest first.
func (q *Queue) those(test func(id string, l *letter) bool) []store.Letter {
	died := map[string]int64{}
	for id, l := range q.letters {
		if test(id, l) {
			died[id] = l.died
		}
	}
	return q.read(byScore(died))
}

// after selects what comes after a cursor.
func after(c store.LetterCursor, id string, l *letter) bool {
	return l.died > c.Died || l.died == c.Died && id > c.ID
}

// read looks letters up. One that is gone has no entry.
func (q *Queue) read(ids []string) []store.Letter {
	out := make([]store.Letter, len(ids))
	for i, id := range ids {
		out[i].ID = id
		if l := q.letters[id]; l != nil {
			out[i].Died, out[i].Entry = l.died, l.entry
		}
	}
	return out
}

func selected(x store.LetterIndex, l *letter) bool {
	if x.Task != "" {
		return l.task == x.Task // the reason is left to the reader
	}
	return x.Reason == "" || l.reason == x.Reason
}

// Letters reads a page of letters.
func (q *Queue) Letters(x store.LetterIndex, cursor store.LetterCursor, limit int) store.Page {
	if cursor.Died < x.Since {
		cursor = store.LetterCursor{Died: x.Since}
	}
	all := q.those(func(id string, l *letter) bool { return selected(x, l) && after(cursor, id, l) })
	p := store.Page{Now: q.Now(), Next: cursor, More: len(all) >= limit}
	for _, l := range all[:min(limit, len(all))] {
		if x.Until > 0 && l.Died > x.Until {
			p.More = false
			break
		}
		p.Letters = append(p.Letters, l)
		p.Next = store.LetterCursor{Died: l.Died, ID: l.ID}
	}
	return p
}

// CountLetters counts letters.
func (q *Queue) CountLetters(x store.LetterIndex) int64 {
	until := x.Until
	if until == 0 {
		until = math.MaxInt64
	}
	return int64(len(q.those(func(_ string, l *letter) bool {
		return selected(x, l) && x.Since <= l.died && l.died <= until
	})))
}

// TakeLetters puts letters of a task under review that are under none.
func (q *Queue) TakeLetters(c Caller, task, token string, lease time.Duration, n int, cursor store.LetterCursor) store.Page {
	last, again, err := q.recall(c)
	if err != nil {
		return store.Page{Now: q.Now(), Next: cursor}
	}
	if again { // the same letters; an entry that is gone is empty
		p := last.(store.Page)
		p.Now = q.Now()
		for i, l := range p.Letters {
			p.Letters[i].Entry = q.read([]string{l.ID})[0].Entry
		}
		return p
	}
	p := store.Page{Now: q.Now(), Next: cursor}
	for _, l := range q.those(func(id string, l *letter) bool { return l.task == task && after(cursor, id, l) }) {
		if r := &q.letters[l.ID].review; r.deadline < q.now {
			if len(p.Letters) == n {
				p.More = true
				break
			}
			p.Letters = append(p.Letters, l)
			*r = review{token, q.now + lease.Milliseconds()}
		}
		p.Next = store.LetterCursor{Died: l.Died, ID: l.ID}
	}
	if len(p.Letters) > 0 {
		q.remember(c, p)
	}
	return p
}

// ReleaseLetters ends reviews of one token.
func (q *Queue) ReleaseLetters(token string, ids []string) (n int) {
	for _, id := range ids {
		if l := q.letters[id]; l != nil && l.review.token == token {
			l.review = review{}
			n++
		}
	}
	return n
}

// EndLetters deletes letters, or makes them jobs again.
func (q *Queue) EndLetters(c Caller, counter store.Counter, ends []store.LetterEnd) ([]store.LetterFate, error) {
	last, again, err := q.recall(c)
	if again || err != nil {
		fates, _ := last.([]store.LetterFate)
		return fates, err
	}
	fates := make([]store.LetterFate, len(ends))
	for i, e := range ends {
		if fates[i] = q.fate(e); fates[i] != store.LetterDone {
			continue
		}
		delete(q.letters, e.ID)
		q.counters[counter]++
		if len(e.Envelope) > 0 {
			q.jobs[e.ID], q.ledgers[e.ID] = string(e.Envelope), string(e.Ledger)
			q.ready = append(q.ready, e.ID)
			q.bell = true
		}
	}
	q.remember(c, fates)
	return fates, nil
}

func (q *Queue) fate(e store.LetterEnd) store.LetterFate {
	l, asked := q.letters[e.ID], e.Token != ""
	switch _, job := q.jobs[e.ID]; {
	case l == nil && asked:
		return store.LetterLost
	case l == nil:
		return store.LetterMissing
	case l.task != e.Task || e.Sum != "" && e.Sum != sum(l.entry):
		return store.LetterChanged
	case asked && l.review.token != e.Token:
		return store.LetterLost
	case !asked && l.review.deadline >= q.now:
		return store.LetterReviewed
	case job && len(e.Envelope) > 0:
		return store.LetterTaken
	}
	return store.LetterDone
}

func sum(entry string) string {
	s := sha1.Sum([]byte(entry))
	return hex.EncodeToString(s[:])
}

// TrimLetters drops the oldest letters of a task: those over a count, and those
// older than an age; negative is no limit.
func (q *Queue) TrimLetters(c Caller, task string, count int, age time.Duration) (dropped, left int, err error) {
	last, again, err := q.recall(c)
	if again || err != nil {
		dropped, _ = last.(int)
		return dropped, 0, err
	}
	all := q.those(func(_ string, l *letter) bool { return l.task == task })
	for i, l := range all {
		if count >= 0 && len(all)-i > count || age >= 0 && l.Died < q.now-age.Milliseconds() {
			delete(q.letters, l.ID)
			dropped++
		}
	}
	if dropped > 0 {
		q.counters[store.Dropped] += int64(dropped)
		q.remember(c, dropped)
	}
	return dropped, 0, nil
}

// TakeHooks takes letters of a task whose hook is due; they are due again when the
// lease has lapsed.
func (q *Queue) TakeHooks(c Caller, task string, n int, lease time.Duration) store.HookLetters {
	type taken struct {
		deadline int64
		ids      []string
	}
	last, again, err := q.recall(c)
	if err != nil {
		return store.HookLetters{Deadline: q.now}
	}
	var ids []string
	if again { // those of them that exist
		t := last.(taken)
		for _, id := range t.ids {
			if q.letters[id] != nil {
				ids = append(ids, id)
			}
		}
		return store.HookLetters{Deadline: t.deadline, Letters: q.read(ids)}
	}
	due := q.hooks(task)
	for _, id := range byScore(due) {
		if due[id] <= q.now && len(ids) < n {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return store.HookLetters{Deadline: q.now}
	}
	deadline := q.now + lease.Milliseconds()
	for _, id := range ids {
		q.letters[id].hook = deadline
	}
	q.remember(c, taken{deadline, ids})
	return store.HookLetters{Deadline: deadline, Letters: q.read(ids)}
}

// hooks tells when the hooks of a task are due.
func (q *Queue) hooks(task string) map[string]int64 {
	due := map[string]int64{}
	for id, l := range q.letters {
		if l.task == task && l.hook != 0 {
			due[id] = l.hook
		}
	}
	return due
}

// EndHook ends the wait of a letter for its hook, or doubles it.
func (q *Queue) EndHook(task string, dead store.Letter, deadline int64, heard bool) {
	l := q.letters[dead.ID]
	if l == nil || l.task != task || l.hook == 0 || l.died != dead.Died {
		return
	}
	if heard {
		l.hook = 0
	} else if l.hook == deadline {
		wait := min(max(q.now-l.died, minHookWait.Milliseconds()), maxHookWait.Milliseconds())
		l.hook = q.now + wait
	}
}
