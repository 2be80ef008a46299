package redrive_test

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
)

// buried makes n dead letters of act, one after the other, and returns their ids.
func (s *stage) buried(n int) (ids []string) {
	for _, receipt := range s.put(slices.Repeat([]string{"permanent"}, n)...) {
		ids = append(ids, receipt.ID)
	}
	w := s.clean.start(s.mux(), redrive.WorkerOptions{Concurrency: 1})
	s.clean.eventually(func(q redrive.QueueStats) bool { return q.Dead == int64(n) }, "not all dead")
	require.NoError(s.t, w.stop())
	return ids
}

// revived finishes what was requeued: the jobs that are dead succeed this time.
func (s *stage) revived(said ...any) string {
	mux := redrive.NewMux()
	act.Handle(mux, func(_ context.Context, j *redrive.Job[string]) (string, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.runs["revived"]++
		return "", nil
	})
	w := s.clean.start(mux, redrive.WorkerOptions{})
	s.clean.drained()
	require.NoError(s.t, w.stop())
	return s.sum(said...)
}

// letters returns a use of the dead letters: five there are, and what do returns is
// told with what becomes of the jobs.
func letters(name string, calls []string, do func(s *stage, d *redrive.DeadLetters, ids []string) []any, want string) use {
	return use{name, calls, func(s *stage) string {
		ids := s.buried(5)
		s.arm()
		return s.revived(do(s, s.client.DeadLetters(redrive.DefaultQueue), ids)...)
	}, want}
}

// reviewing is letters with all five under review, whose taking has no fault.
func reviewing(name string, calls []string, do func(s *stage, r *redrive.ReviewedLetter) error, want string) use {
	return use{name, calls, func(s *stage) string {
		s.buried(5)
		d := s.client.DeadLetters(redrive.DefaultQueue)
		under, err := d.Review(s.ctx(), "act", 5, time.Minute)
		require.NoError(s.t, err)
		s.arm()
		for _, r := range under[:2] {
			require.NoError(s.t, do(s, r))
		}
		more, err := s.clean.client.DeadLetters(redrive.DefaultQueue).Review(s.ctx(), "act", 9, time.Minute)
		require.NoError(s.t, err)
		return s.revived(len(under), len(more))
	}, want}
}

const five = "permanent:5 dead=5 enqueued=5 died=5"

var letterUses = []use{
	letters("All", []string{"dead_page"}, func(s *stage, d *redrive.DeadLetters, ids []string) []any {
		var seen []string
		for e, err := range d.All(s.ctx(), redrive.DeadLetterFilter{Task: "act", Reason: redrive.ReasonPermanent, ErrorContains: "no use"}) {
			require.NoError(s.t, err)
			seen = append(seen, e.TaskID)
		}
		return []any{slices.Equal(ids, seen)}
	}, "true "+five),
	letters("Get", []string{"hmget"}, func(s *stage, d *redrive.DeadLetters, ids []string) []any {
		e, err := d.Get(s.ctx(), ids[3])
		require.NoError(s.t, err)
		_, err = d.Get(s.ctx(), "nobody")
		require.ErrorIs(s.t, err, redrive.ErrNoDeadLetter)
		return []any{e.Error, e.TaskID == ids[3]}
	}, "no use true "+five),
	letters("Count", []string{"zcount", "dead_page"}, func(s *stage, d *redrive.DeadLetters, _ []string) []any {
		all, err := d.Count(s.ctx(), redrive.DeadLetterFilter{Task: "act"})
		require.NoError(s.t, err)
		some, err := d.Count(s.ctx(), redrive.DeadLetterFilter{ErrorContains: "no use"})
		require.NoError(s.t, err)
		return []any{all, some}
	}, "5 5 "+five),
	letters("Counts", []string{"zrangebylex"}, func(s *stage, d *redrive.DeadLetters, _ []string) []any {
		c, err := d.Counts(s.ctx())
		require.NoError(s.t, err)
		return []any{c.Total, c.ByTask, c.ByReason}
	}, "5 map[act:5] map[permanent:5] "+five),
	letters("Drain", []string{"dead_take", "dead_settle"}, func(s *stage, d *redrive.DeadLetters, ids []string) []any {
		var got []string
		for _, n := range []int{2, 9} {
			entries, err := d.Drain(s.ctx(), "act", n)
			require.NoError(s.t, err)
			for _, e := range entries {
				got = append(got, e.TaskID)
			}
		}
		return []any{slices.Equal(ids, got)}
	}, "true permanent:5 enqueued=5 died=5 drained=5"),
	letters("Requeue", []string{"hmget", "dead_settle"}, func(s *stage, d *redrive.DeadLetters, ids []string) []any {
		n, err := d.Requeue(s.ctx(), ids[:3]...)
		require.NoError(s.t, err)
		m, err := d.Requeue(s.ctx(), ids[0])
		require.ErrorIs(s.t, err, redrive.ErrNoDeadLetter)
		return []any{n, m}
	}, "3 0 permanent:5 revived:3 dead=2 enqueued=5 succeeded=3 died=5 requeued=3"),
	letters("Redrive", []string{"clock", "dead_page", "dead_settle"}, func(s *stage, d *redrive.DeadLetters, _ []string) []any {
		report, err := d.Redrive(s.ctx(), redrive.RedriveOptions{Filter: redrive.DeadLetterFilter{Task: "act"}, Edit: func(e *redrive.DeadLetterEntry) error {
			e.Headers = map[string]string{"edited": "yes"}
			return nil
		}})
		require.NoError(s.t, err)
		return []any{report.Moved}
	}, "5 permanent:5 revived:5 enqueued=5 succeeded=5 died=5 requeued=5"),
	letters("Delete", []string{"hmget", "dead_settle"}, func(s *stage, d *redrive.DeadLetters, ids []string) []any {
		n, err := d.Delete(s.ctx(), ids[1], ids[2], "nobody")
		require.NoError(s.t, err)
		return []any{n}
	}, "2 permanent:5 dead=3 enqueued=5 died=5 deleted=2"),
	letters("Purge", []string{"clock", "dead_page", "dead_settle"}, func(s *stage, d *redrive.DeadLetters, _ []string) []any {
		n, err := d.Purge(s.ctx(), redrive.DeadLetterFilter{Reason: redrive.ReasonPermanent})
		require.NoError(s.t, err)
		return []any{n}
	}, "5 permanent:5 enqueued=5 died=5 deleted=5"),
	letters("Review", []string{"dead_take"}, func(s *stage, d *redrive.DeadLetters, _ []string) []any {
		first, err := d.Review(s.ctx(), "act", 3, time.Minute)
		require.NoError(s.t, err)
		rest, err := d.Review(s.ctx(), "act", 9, time.Minute)
		require.NoError(s.t, err)
		return []any{len(first), len(rest)}
	}, "3 2 "+five),
	reviewing("ReviewedLetter.Resolve", []string{"dead_settle"}, func(s *stage, r *redrive.ReviewedLetter) error {
		return r.Resolve(s.ctx())
	}, "5 0 permanent:5 dead=3 enqueued=5 died=5 drained=2"),
	reviewing("ReviewedLetter.Requeue", []string{"dead_settle"}, func(s *stage, r *redrive.ReviewedLetter) error {
		return r.Requeue(s.ctx())
	}, "5 0 permanent:5 revived:2 dead=3 enqueued=5 succeeded=2 died=5 requeued=2"),
	reviewing("ReviewedLetter.Release", []string{"dead_release"}, func(s *stage, r *redrive.ReviewedLetter) error {
		return r.Release(s.ctx())
	}, "5 2 "+five),
	{"OnDead", []string{"clock", "dead_hooks", "dead_heard"}, func(s *stage) string {
		s.put("permanent", "permanent", "permanent")
		s.arm()
		w := s.serve(2, s.mourning(redrive.DeadLetterOptions{OnDead: s.hear(0)}))
		s.unowed(3)
		require.NoError(s.t, w.stop())
		return s.sum(len(s.heard))
	}, "3 permanent:3 dead=3 enqueued=3 died=3"},
	{"OnDead that fails", []string{"dead_hooks", "dead_heard"}, func(s *stage) string {
		s.put("permanent")
		s.arm()
		w := s.serve(2, s.mourning(redrive.DeadLetterOptions{OnDead: s.hear(1)}))
		s.unowed(1)
		require.NoError(s.t, w.stop())
		return s.sum(len(s.heard))
	}, "2 permanent:1 dead=1 enqueued=1 died=1"},
	{"retention", []string{"dead_trim"}, func(s *stage) string {
		s.put("permanent", "permanent", "permanent", "permanent")
		dropped := 0
		s.arm()
		w := s.serve(1, s.mourning(redrive.DeadLetterOptions{MaxCount: 1, OnDrop: func(_ context.Context, _, _ string, n int) {
			s.mu.Lock()
			defer s.mu.Unlock()
			dropped += n
		}}))
		s.clean.eventually(func(q redrive.QueueStats) bool { return q.Died == 4 && q.Dead == 1 }, "not trimmed")
		require.NoError(s.t, w.stop())
		return s.sum(dropped)
	}, "3 permanent:4 dead=1 enqueued=4 died=4 dropped=3"},
}

// mourning is mux with rules for dead letters.
func (s *stage) mourning(o redrive.DeadLetterOptions) *redrive.Mux {
	return s.mux(redrive.DeadLetter(o))
}

// hear returns an OnDead that fails so often and then hears.
func (s *stage) hear(failures int) func(context.Context, *redrive.DeadLetterEntry) error {
	return func(_ context.Context, e *redrive.DeadLetterEntry) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.heard = append(s.heard, e.TaskID)
		if len(s.heard) <= failures {
			return errors.New("not now")
		}
		return nil
	}
}

// unowed waits until so many jobs have died and Redis owes no call of a hook.
func (s *stage) unowed(n int64) {
	s.clean.eventually(func(q redrive.QueueStats) bool {
		owed := s.clean.rdb.Exists(s.ctx(), s.b.Prefix+":{default}:hooks").Val()
		return q.Died == n && owed == 0
	}, "a hook is owed")
}
