package model_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/redrive-go/redrive/internal/model"
	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// TestI5_RandomSequencesEndAsTheModelSays draws sequences of all operations of a queue,
// of calls that are sent again and of time that passes, and performs each on the model,
// on the in-process Redis and on a redis-server. Every answer must be the model's, and
// in the end every key. A crash is a worker that does nothing more: its lease lapses.
//
// A sequence that fails is made as short as possible and printed; its seed is printed
// too, for -rapid.seed. -rapid.checks and REDRIVE_LONG draw more sequences.
func TestI5_RandomSequencesEndAsTheModelSays(t *testing.T) {
	long := os.Getenv("REDRIVE_LONG") != ""
	checks := 80
	if long {
		checks = 2000
	}
	setDefault(t, "rapid.checks", strconv.Itoa(checks))
	setDefault(t, "rapid.steps", "40")
	setDefault(t, "rapid.nofailfile", "true") // the seed is enough

	backends := []backend{inProcess(t), server(t)}
	seen, culprit := map[string]int{}, ""
	rapid.Check(t, func(t *rapid.T) {
		s := &sequence{
			t: t, model: model.New(), culprit: &culprit, seen: seen,
			calls: map[string]int64{}, sums: map[string]string{},
		}
		for i := range backends {
			if culprit == "" || culprit == backends[i].name {
				s.queues = append(s.queues, backends[i].open(t))
			}
		}
		defer func() {
			if t.Failed() {
				t.Log("the sequence:\n" + strings.Join(s.lines, "\n"))
			}
		}()
		for _, worker := range workers[:2] {
			s.beatFor(worker, leases[0])
		}
		t.Repeat(map[string]func(*rapid.T){"step": func(*rapid.T) { s.step() }})
		s.end()
	})
	for _, what := range slices.Sorted(maps.Keys(seen)) {
		t.Logf("%6d × %s", seen[what], what)
	}
	if !long {
		return // a few sequences may miss something
	}
	for _, what := range []string{
		"claim ok", "claim paused", "claim lapsed", "claim stale", "a token was refused", "overtaken",
		"late changed nothing", "late changed the queue", "again changed nothing",
		"fate +", "fate -", "fate c", "fate r", "fate l",
		"jobs were reaped", "leave changed the queue", "trim changed the queue",
		"review changed the queue", "release changed the queue", "take hooks changed the queue", "end hook changed the queue", "a letter died again",
	} {
		require.NotZero(t, seen[what], "no sequence had this: %s", what)
	}
}

// setDefault sets a flag for one test, unless the command line does.
func setDefault(t *testing.T, name, value string) {
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if given {
		return
	}
	old := flag.Lookup(name).Value.String()
	require.NoError(t, flag.Set(name, value))
	t.Cleanup(func() { require.NoError(t, flag.Set(name, old)) })
}

// step draws what to do next: each with a share of its own.
var step = rapid.Map(rapid.SliceOfN(rapid.Bool(), 6, 6), func(bits []bool) string {
	i := 0
	for _, bit := range bits {
		i *= 2
		if bit {
			i++
		}
	}
	for _, s := range steps {
		if i -= s.share; i < 0 {
			return s.name
		}
	}
	panic("the shares do not make up 64")
})

var steps = []struct {
	name  string
	share int
	do    func(*sequence)
}{
	{"enqueue", 8, (*sequence).enqueue},
	{"claim", 8, (*sequence).claim},
	{"finish", 5, (*sequence).finish},
	{"put back", 6, (*sequence).putback},
	{"bury", 7, (*sequence).bury},
	{"pass", 4, (*sequence).passSome},
	{"late", 5, (*sequence).late},
	{"look", 1, (*sequence).look},
	{"beat", 2, (*sequence).beat},
	{"reap", 3, (*sequence).reap},
	{"leave", 1, (*sequence).leave},
	{"pause", 1, (*sequence).pause},
	{"resume", 1, (*sequence).resume},
	{"ring", 1, (*sequence).ring},
	{"listen", 1, (*sequence).listen},
	{"end letters", 3, (*sequence).endLetters},
	{"trim", 1, (*sequence).trim},
	{"review", 2, (*sequence).review},
	{"release", 1, (*sequence).release},
	{"take hooks", 1, (*sequence).takeHooks},
	{"end hook", 2, (*sequence).endHook},
}

func (s *sequence) step() {
	name := step.Draw(s.t, "step")
	for _, one := range steps {
		if one.name == name {
			one.do(s)
		}
	}
}

func (s *sequence) beat() { s.beatFor(draw(s, workers, "worker"), draw(s, leases, "lease")) }

func (s *sequence) beatFor(worker string, lease time.Duration) {
	s.call("beat", fmt.Sprintf("%s for %v", worker, lease), func(q operations) any { return q.Beat(worker, lease) })
}

// reap takes the jobs of a worker: those that it is seen to have lost, or, without a
// look, all that it has.
func (s *sequence) reap() {
	victim := draw(s, s.busy(), "victim")
	if left := s.model.Lease(victim).Sub(s.model.Now()); left >= 0 && rapid.Bool().Draw(s.t, "crash") {
		s.pass((left + time.Minute - 1).Truncate(time.Minute))
		s.pass(time.Millisecond)
	}
	var jobs []store.Owned
	found := s.call("expired", victim, func(q operations) any { return q.Expired(victim) }).([]store.ClaimedJob)
	for _, j := range found {
		jobs = append(jobs, store.Owned{ID: j.ID, Token: j.Token})
	}
	if len(jobs) == 0 {
		owned := s.model.Owned(victim)
		for _, id := range slices.Sorted(maps.Keys(owned)) {
			jobs = append(jobs, store.Owned{ID: id, Token: owned[id]})
		}
	}
	if len(jobs) == 0 {
		return
	}
	by := store.Settler{Worker: victim, Reap: true}
	by.Call = fmt.Sprintf("%s/%d", draw(s, workers, "reaper"), s.next("settlers"))
	if s.chance("crash loop") {
		s.buryJobs(by, jobs)
	} else {
		s.putJobsBack(by, jobs)
	}
	if len(found) > 0 {
		s.seen["jobs were reaped"]++
	}
}

func (s *sequence) leave() {
	worker := draw(s, workers, "worker")
	s.call("leave", worker, func(q operations) any { return q.Leave(worker) })
}

func (s *sequence) pause() {
	s.call("pause", "", func(q operations) any { q.Pause(); return nil })
}

func (s *sequence) resume() {
	s.call("resume", "", func(q operations) any { q.Resume(); return nil })
}

func (s *sequence) ring() {
	s.call("ring", "", func(q operations) any { q.Ring(); return nil })
}

func (s *sequence) listen() {
	if !s.model.Bell() {
		s.ring() // else it would wait
	}
	s.perform("listen", call{do: func(q operations) any { return q.Listen() }})
}

// look reads all that can be read.
func (s *sequence) look() {
	task, reason := draw(s, tasks, "task"), draw(s, reasons, "reason")
	now, limit := s.model.Now().UnixMilli(), rapid.IntRange(1, 3).Draw(s.t, "limit")
	index := store.LetterIndex{
		Since: now - draw(s, []int64{now, 1, 60_000}, "since"), Until: draw(s, []int64{0, now, now - 60_000}, "until"),
	}
	read := func(text string, do func(operations) any) { s.perform("look", call{text: text, do: do}) }
	read("at the queue", func(q operations) any {
		return []any{q.Stats(), q.Waiting(), q.NextDue(), q.LetterCounts(), q.DeadTasks(), q.HookTasks()}
	})
	for _, id := range ids[:3] {
		read(id, func(q operations) any {
			return []any{q.Fate(id), q.LettersByID([]string{id, "nobody"}), q.LetterTask(id)}
		})
	}
	for _, worker := range workers {
		read(worker, func(q operations) any { return q.Owned(worker) })
	}
	for _, x := range []store.LetterIndex{index, {Task: task}, {Reason: reason}} {
		cursor := store.LetterCursor{}
		for more := true; more; {
			text := fmt.Sprintf("at %d letters %+v after %+v", limit, x, cursor)
			read(text, func(q operations) any { return []any{q.Letters(x, cursor, limit), q.CountLetters(x)} })
			p := s.model.Letters(x, cursor, limit)
			cursor, more = p.Next, p.More
		}
	}
}
