package redrive_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
)

// dbSession is a resource that one attempt owns.
type dbSession struct{ job string }

type dbKey struct{}

// sessions counts what is open, by the job that opened it.
type sessions struct {
	mu             sync.Mutex
	opened, closed map[string]int
}

// with is the behavioural half of a base class: one session per attempt.
func (s *sessions) with(next redrive.Handler) redrive.Handler {
	return redrive.HandlerFunc(func(ctx context.Context, m *redrive.Message) ([]byte, error) {
		db := &dbSession{job: m.ID}
		s.count(s.opened, db)
		defer s.count(s.closed, db)
		return next.Process(context.WithValue(ctx, dbKey{}, db), m)
	})
}

func (s *sessions) count(where map[string]int, db *dbSession) {
	s.mu.Lock()
	defer s.mu.Unlock()
	where[db.job]++
}

func (s *sessions) of(id string) (opened, closed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened[id], s.closed[id]
}

// TestBaseTask_ResourceClosesAfterEveryAttempt ends attempts in every way there
// is, and looks at what is open when the job is settled: by then the middleware's
// defer has run, also where a retry follows.
func TestBaseTask_ResourceClosesAfterEveryAttempt(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name  string
		first func(ctx context.Context) error
		ends  []redrive.Action // one per attempt
	}{
		{"success", func(context.Context) error { return nil }, []redrive.Action{redrive.ActionDone}},
		{"error", func(context.Context) error { return errors.New("x") }, []redrive.Action{redrive.ActionRetry, redrive.ActionDone}},
		{"retry-after", func(context.Context) error { return redrive.RetryAfter(time.Millisecond, errors.New("x")) },
			[]redrive.Action{redrive.ActionRetry, redrive.ActionDone}},
		{"snooze", func(context.Context) error { return redrive.Snooze(time.Millisecond) },
			[]redrive.Action{redrive.ActionSnooze, redrive.ActionDone}},
		{"permanent", func(context.Context) error { return redrive.Permanent(errors.New("x")) }, []redrive.Action{redrive.ActionDead}},
		{"panic", func(context.Context) error { panic("x") }, []redrive.Action{redrive.ActionRetry, redrive.ActionDone}},
		{"goexit", func(context.Context) error { runtime.Goexit(); return nil },
			[]redrive.Action{redrive.ActionRetry, redrive.ActionDone}},
		{"timeout", func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) },
			[]redrive.Action{redrive.ActionRetry, redrive.ActionDone}},
	}
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		byName := make(map[string]func(context.Context) error)
		for _, c := range cases {
			byName[c.name] = c.first
		}
		db := &sessions{opened: make(map[string]int), closed: make(map[string]int)}
		task := redrive.NewTask[string, redrive.None]("query", redrive.TaskOptions{Retry: fast, Timeout: 100 * time.Millisecond})
		mux := redrive.NewMux()
		task.Handle(mux.With(db.with), redrive.NoResult(func(ctx context.Context, job *redrive.Job[string]) error {
			mine, _ := ctx.Value(dbKey{}).(*dbSession)
			if opened, closed := db.of(job.ID); mine == nil || mine.job != job.ID || opened != closed+1 {
				return redrive.Permanent(errors.New("the handler has no open session of its own"))
			}
			if job.Starts == 1 {
				return byName[job.Args](ctx)
			}
			return nil
		}))
		type settled struct {
			end            redrive.JobEnd
			opened, closed int
		}
		ends := make(chan settled, 100)
		// One slot: it is free for the next attempt when this one is reported.
		r.start(mux, redrive.WorkerOptions{Concurrency: 1, Trace: &redrive.WorkerTrace{
			JobSettled: func(m *redrive.Message, end redrive.JobEnd) {
				opened, closed := db.of(m.ID)
				ends <- settled{end, opened, closed}
			},
		}})
		for _, c := range cases {
			_, err := task.Enqueue(r.ctx(), r.client, c.name, nil)
			require.NoError(t, err)
			for i, want := range c.ends {
				got := receive(t, ends, "end of "+c.name)
				require.Equal(t, want, got.end.Action, "%s, attempt %d: %v", c.name, i+1, got.end.Err)
				require.Equal(t, i+1, got.opened, "%s: sessions opened by attempt %d", c.name, i+1)
				require.Equal(t, i+1, got.closed, "%s: sessions closed by attempt %d", c.name, i+1)
			}
		}
	})
}

// The way that after_return of a base class misses: the worker stops, the job
// goes back to the queue.
func TestBaseTask_ResourceClosesAtShutdown(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		db := &sessions{opened: make(map[string]int), closed: make(map[string]int)}
		task := redrive.NewTask[string, redrive.None]("query", redrive.TaskOptions{})
		mux := redrive.NewMux()
		running := make(chan string, 1)
		task.Handle(mux.With(db.with), redrive.NoResult(func(ctx context.Context, job *redrive.Job[string]) error {
			running <- job.ID
			<-ctx.Done()
			return context.Cause(ctx)
		}))
		w := r.start(mux, redrive.WorkerOptions{ShutdownTimeout: 500 * time.Millisecond})
		_, err := task.Enqueue(r.ctx(), r.client, "x", nil)
		require.NoError(t, err)
		id := receive(t, running, "start")
		opened, closed := db.of(id)
		require.Equal(t, []int{1, 0}, []int{opened, closed})
		require.NoError(t, w.stop())
		opened, closed = db.of(id)
		require.Equal(t, []int{1, 1}, []int{opened, closed})
		s := r.stats(redrive.DefaultQueue)
		require.Equal(t, []int64{1, 1}, []int64{s.Ready, s.Interrupted})
		require.Zero(t, s.Retried)
	})
}

// The data half: a copy that is changed leaves its base alone.
func TestBaseTask_OptionsAreCopied(t *testing.T) {
	t.Parallel()
	base := redrive.TaskOptions{Queue: "mail", Timeout: time.Minute, Retry: fast}
	changed := base.With(func(o *redrive.TaskOptions) { o.Queue, o.Retry.MaxRetries = "bulk", 9 })
	require.Equal(t, "mail", base.Queue)
	require.Equal(t, 3, base.Retry.MaxRetries)
	require.Equal(t, "bulk", changed.Queue)
	require.Equal(t, 9, changed.Retry.MaxRetries)
	require.Equal(t, time.Minute, changed.Timeout)
}
