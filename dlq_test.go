package redrive_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/faultnet"
	"github.com/redrive-go/redrive/internal/redistest"
)

// morgue runs jobs that fail for good, until fixed.
type morgue struct {
	*rig
	fixed atomic.Bool
	mu    sync.Mutex
	runs  map[string]int
	last  map[string]redrive.Message
}

var (
	frail   = redrive.NewTask[number, redrive.None]("frail", redrive.TaskOptions{Retry: redrive.RetryPolicy{MaxRetries: 1, Backoff: redrive.Constant(time.Millisecond)}})
	brittle = redrive.NewTask[number, redrive.None]("brittle", redrive.TaskOptions{})
)

// newMorgue starts a worker whose jobs die: frail ones exhausted, brittle ones
// permanent.
func newMorgue(t *testing.T, r *rig, opts redrive.DeadLetterOptions) *morgue {
	m := &morgue{rig: r, runs: make(map[string]int), last: make(map[string]redrive.Message)}
	mux := redrive.NewMux()
	mux.Use(redrive.DeadLetter(opts))
	ran := func(j *redrive.Job[number]) bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.runs[j.ID]++
		m.last[j.ID] = *j.Message
		return m.fixed.Load()
	}
	frail.Handle(mux, redrive.NoResult(func(_ context.Context, j *redrive.Job[number]) error {
		if ran(j) {
			return nil
		}
		return fmt.Errorf("frail %d at retry %d", j.Args.N, j.Retries)
	}))
	brittle.Handle(mux, redrive.NoResult(func(_ context.Context, j *redrive.Job[number]) error {
		if ran(j) {
			return nil
		}
		return redrive.Permanent(fmt.Errorf("brittle %d", j.Args.N))
	}))
	r.start(mux, redrive.WorkerOptions{Concurrency: 50, Lease: time.Second})
	return m
}

// bury enqueues n jobs of a task, with arguments from 0, and waits until they died.
func (m *morgue) bury(task *redrive.Task[number, redrive.None], n int) []string {
	m.t.Helper()
	before := m.stats("default").Died
	args := make([]number, n)
	for i := range args {
		args[i].N = i
	}
	receipts, err := task.EnqueueMany(m.ctx(), m.client, args, nil)
	require.NoError(m.t, err)
	ids := make([]string, n)
	for i := range receipts {
		ids[i] = receipts[i].ID
	}
	m.eventually(func(s redrive.QueueStats) bool { return s.Died == before+int64(n) }, "not all died")
	return ids
}

func (m *morgue) letters() *redrive.DeadLetters { return m.client.DeadLetters("default") }

func (m *morgue) list(f redrive.DeadLetterFilter) (ids []string) {
	m.t.Helper()
	for e, err := range m.letters().All(m.ctx(), f) {
		require.NoError(m.t, err)
		ids = append(ids, e.TaskID)
	}
	return ids
}

func TestDeadLettersAreListedCountedAndDeleted(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{})
		frails, brittles := m.bury(frail, 7), m.bury(brittle, 5)
		d := m.letters()
		require.Len(t, m.list(redrive.DeadLetterFilter{}), 12)
		require.ElementsMatch(t, frails, m.list(redrive.DeadLetterFilter{Task: "frail"}))
		require.ElementsMatch(t, brittles, m.list(redrive.DeadLetterFilter{Reason: redrive.ReasonPermanent}))
		require.ElementsMatch(t, []string{frails[3]}, m.list(redrive.DeadLetterFilter{ErrorContains: "frail 3 "}))
		require.Empty(t, m.list(redrive.DeadLetterFilter{Until: time.Now().Add(-time.Hour)}))
		require.Len(t, m.list(redrive.DeadLetterFilter{Since: time.Now().Add(-time.Hour), Limit: 4}), 4)
		counts, err := d.Counts(m.ctx())
		require.NoError(t, err)
		require.Equal(t, redrive.DeadLetterCounts{
			Total: 12, ByTask: map[string]int{"frail": 7, "brittle": 5},
			ByReason: map[redrive.Reason]int{redrive.ReasonExhausted: 7, redrive.ReasonPermanent: 5},
		}, counts)
		n, err := d.Count(m.ctx(), redrive.DeadLetterFilter{Task: "frail", ErrorContains: "retry 1"})
		require.NoError(t, err)
		require.Equal(t, 7, n)

		// Page by page, each exactly once, while letters go.
		var paged []string
		for after := ""; ; {
			before := len(paged)
			for e, err := range d.All(m.ctx(), redrive.DeadLetterFilter{Limit: 5, After: after}) {
				require.NoError(t, err)
				paged = append(paged, e.TaskID)
				after = e.Cursor()
			}
			if len(paged) == before {
				break
			}
			_, err := d.Delete(m.ctx(), paged[before])
			require.NoError(t, err)
		}
		require.ElementsMatch(t, append(frails, brittles...), paged)
		require.EqualValues(t, 9, m.stats("default").Dead)
		require.EqualValues(t, 3, m.stats("default").Deleted)

		e, err := d.Get(m.ctx(), paged[1])
		require.NoError(t, err)
		text, err := json.Marshal(e)
		require.NoError(t, err)
		for _, name := range []string{"task_name", "task_id", "args", "error", "retries", "timestamp"} {
			require.Contains(t, string(text), `"`+name+`":`)
		}
		_, err = d.Get(m.ctx(), paged[0])
		require.ErrorIs(t, err, redrive.ErrNoDeadLetter)
		n, err = d.Purge(m.ctx(), redrive.DeadLetterFilter{Task: "brittle"})
		require.NoError(t, err)
		require.Positive(t, n)
		require.Empty(t, m.list(redrive.DeadLetterFilter{Task: "brittle"}))
		n, err = d.Purge(m.ctx(), redrive.DeadLetterFilter{})
		require.NoError(t, err)
		require.Positive(t, n)
		require.Zero(t, m.stats("default").Dead)
		_, err = m.client.DeadLetters("{").Counts(m.ctx())
		require.ErrorContains(t, err, "queue name")
	})
}

func TestRequeueGivesTheFullRetriesAgainAndKeepsTheHistory(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{})
		ids := m.bury(frail, 3)
		n, err := m.letters().Requeue(m.ctx(), ids...)
		require.NoError(t, err)
		require.Equal(t, 3, n)
		m.eventually(func(s redrive.QueueStats) bool { return s.Died == 6 }, "not dead again")
		m.mu.Lock()
		for _, id := range ids {
			require.Equal(t, 4, m.runs[id], "two attempts in each generation")
			require.Equal(t, 1, m.last[id].Generation)
			require.Equal(t, 1, m.last[id].Retries)
			require.Len(t, m.last[id].Errors, 3, "two of the first generation and one of this")
		}
		m.mu.Unlock()
		m.fixed.Store(true)
		_, err = m.letters().Requeue(m.ctx(), append(ids, "nobody")...)
		require.ErrorIs(t, err, redrive.ErrNoDeadLetter)
		m.drained()
		s := m.stats("default")
		require.EqualValues(t, 3, s.Succeeded)
		require.EqualValues(t, 6, s.Requeued)
		require.Zero(t, s.Dead)
	})
}

func TestRedactedLettersHideTheirArgumentsAndAreNotRequeued(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{Redact: func(task string, args []byte) []byte {
			if task == "brittle" {
				panic("x")
			}
			return []byte(`{"N":"hidden"}`)
		}})
		hidden, leaked := m.bury(frail, 1)[0], m.bury(brittle, 1)[0]
		e, err := m.letters().Get(m.ctx(), hidden)
		require.NoError(t, err)
		require.JSONEq(t, `{"N":"hidden"}`, string(e.Args))
		require.True(t, e.Redacted)
		e, err = m.letters().Get(m.ctx(), leaked)
		require.NoError(t, err)
		require.JSONEq(t, `null`, string(e.Args), "a Redact that panics leaks nothing")
		n, err := m.letters().Requeue(m.ctx(), hidden)
		require.ErrorIs(t, err, redrive.ErrRedacted)
		require.ErrorContains(t, err, hidden)
		require.Zero(t, n)
		m.fixed.Store(true)
		report, err := m.letters().Redrive(m.ctx(), redrive.RedriveOptions{
			Filter: redrive.DeadLetterFilter{Task: "frail"},
			Edit:   func(e *redrive.DeadLetterEntry) error { e.Args = json.RawMessage(`{"N":42}`); return nil },
		})
		require.NoError(t, err)
		require.Equal(t, 1, report.Moved)
		m.drained()
		require.JSONEq(t, `{"N":42}`, string(m.last[hidden].Payload))
	})
}

func TestDrainTakesTheOldestAndALostReplyLosesNone(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r, proxy := faulty(t, b, 1)
		m := newMorgue(t, r, redrive.DeadLetterOptions{})
		direct := newRig(t, b).client.DeadLetters("default")
		for k := 1; k <= 4; k++ {
			ids := m.bury(brittle, 10)
			lost := proxy.DropReply(faultnet.Commands("evalsha", "eval"), k)
			var got []string
			for _, n := range []int{3, 20} {
				entries, err := m.letters().Drain(m.ctx(), "brittle", n)
				require.NoError(t, err)
				for _, e := range entries {
					got = append(got, e.TaskID)
				}
			}
			lost.Remove()
			require.ElementsMatch(t, ids, got)
			left, err := direct.Counts(m.ctx())
			require.NoError(t, err)
			require.Zero(t, left.Total)
		}
		require.EqualValues(t, 40, m.stats("default").Drained)
	})
}

func TestReviewsComeBackWhenTheReviewerDies(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{})
		ids := m.bury(brittle, 4)
		const lease = 700 * time.Millisecond
		mine, err := m.letters().Review(m.ctx(), "brittle", 3, lease)
		require.NoError(t, err)
		require.Len(t, mine, 3)
		rest, err := m.letters().Review(m.ctx(), "brittle", 10, time.Minute)
		require.NoError(t, err)
		require.Len(t, rest, 1, "what is under review is nobody else's")
		require.NoError(t, rest[0].Release(m.ctx()))
		m.fixed.Store(true)
		require.NoError(t, mine[0].Resolve(m.ctx()))
		require.NoError(t, mine[1].Requeue(m.ctx()))
		// The reviewer dies over the third one.
		var again []*redrive.ReviewedLetter
		require.Eventually(t, func() bool {
			got, err := m.letters().Review(m.ctx(), "brittle", 10, time.Minute)
			require.NoError(t, err)
			again = append(again, got...)
			return len(again) == 2
		}, patience, 20*time.Millisecond)
		require.ErrorIs(t, mine[2].Resolve(m.ctx()), redrive.ErrReviewLost)
		for _, r := range again {
			require.Contains(t, ids, r.TaskID)
			require.NoError(t, r.Resolve(m.ctx()))
		}
		m.drained()
		s := m.stats("default")
		require.Zero(t, s.Dead)
		require.EqualValues(t, 3, s.Drained)
		require.EqualValues(t, 1, s.Succeeded)
	})
}

func TestRedriveMovesWhatMatchesAtItsRate(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		letters, rate := 1000, 500.0
		if os.Getenv("REDRIVE_LONG") != "" && b.Real() {
			letters = 10_000
		}
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{MaxCount: redrive.KeepAll})
		m.bury(brittle, letters)
		keep := m.bury(frail, 3)
		only := redrive.DeadLetterFilter{Task: "brittle"}
		dry, err := m.letters().Redrive(m.ctx(), redrive.RedriveOptions{Filter: only, DryRun: true})
		require.NoError(t, err)
		require.Equal(t, letters, dry.Moved)
		require.EqualValues(t, letters+3, m.stats("default").Dead)

		// Stopped in the middle, and gone on with: jobs that die again, as these all
		// do, are not redriven in the same run.
		ctx, cancel := context.WithCancel(context.Background())
		steps := 0
		first, err := m.letters().Redrive(ctx, redrive.RedriveOptions{Filter: only, Rate: rate, Progress: func(r redrive.RedriveReport) {
			if steps++; r.Moved >= letters/4 {
				cancel()
			}
		}})
		require.ErrorIs(t, err, context.Canceled)
		require.Greater(t, steps, 5, "in steps")
		only.Until = first.Until
		wide, stop := context.WithTimeout(context.Background(), 2*time.Minute)
		defer stop()
		second, err := m.letters().Redrive(wide, redrive.RedriveOptions{Filter: only, Rate: rate})
		require.NoError(t, err)
		require.Equal(t, letters, first.Moved+second.Moved)
		for _, r := range []redrive.RedriveReport{first, second} {
			require.InDelta(t, rate, float64(r.Moved)/r.Elapsed.Seconds(), rate/10, "letters a second")
		}
		m.eventually(func(s redrive.QueueStats) bool { return s.Ready+s.Active == 0 && s.Dead == int64(letters+3) }, "not all dead again")
		m.mu.Lock()
		defer m.mu.Unlock()
		for id, n := range m.runs {
			if m.last[id].Task == "brittle" {
				require.Equal(t, 2, n, "job %s", id)
			}
		}
		require.Equal(t, 2, m.runs[keep[0]], "a letter that did not match was moved")
	})
}

func init() {
	redistest.RegisterSubprocess("redriver", func() {
		client := processClient()
		_, err := client.DeadLetters("default").Redrive(context.Background(), redrive.RedriveOptions{Rate: 400, Progress: func(r redrive.RedriveReport) {
			fmt.Println("moved", r.Moved)
		}})
		fmt.Println("done", err)
	})
	redistest.RegisterSubprocess("undertaker", func() {
		mux := redrive.NewMux()
		mux.Use(redrive.DeadLetter(redrive.DeadLetterOptions{OnDeadTimeout: time.Second, OnDead: func(_ context.Context, e *redrive.DeadLetterEntry) error {
			fmt.Println("hook", e.TaskID)
			return syscall.Kill(os.Getpid(), syscall.SIGKILL) // the call never ends
		}}))
		brittle.Handle(mux, redrive.NoResult(func(context.Context, *redrive.Job[number]) error { return redrive.Permanent(errors.New("x")) }))
		w, err := redrive.NewWorker(processRedis(), mux, redrive.WorkerOptions{Prefix: os.Getenv("PREFIX"), Lease: time.Second, Logger: quiet})
		if err != nil {
			panic(err)
		}
		fmt.Println(w.Run(context.Background()))
	})
}

func processClient() *redrive.Client {
	client, err := redrive.NewClient(processRedis(), redrive.ClientOptions{Prefix: os.Getenv("PREFIX")})
	if err != nil {
		panic(err)
	}
	return client
}

func processRedis() *redis.Client {
	var db int
	_, _ = fmt.Sscan(os.Getenv("DB"), &db)
	return redis.NewClient(&redis.Options{Addr: os.Getenv("ADDR"), DB: db})
}

func (r *rig) subprocess(name string) *redistest.Process {
	return redistest.StartSubprocess(r.t, name, "ADDR="+r.b.Addr, fmt.Sprintf("DB=%d", r.b.Options().DB), "PREFIX="+r.b.Prefix)
}

func TestI6_ARedriveThatIsKilledNeitherDoublesNorLoses(t *testing.T) {
	t.Parallel()
	m := newMorgue(t, newRig(t, redistest.Redis(t)), redrive.DeadLetterOptions{})
	const letters = 600
	ids := m.bury(brittle, letters)
	m.fixed.Store(true)
	p := m.subprocess("redriver")
	for range 8 {
		p.WaitLine("moved ")
	}
	p.Kill()
	require.Positive(t, m.stats("default").Dead, "it was through already")
	_, err := m.letters().Redrive(m.ctx(), redrive.RedriveOptions{})
	require.NoError(t, err)
	m.drained()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		require.Equal(t, 2, m.runs[id], "job %s", id)
	}
	s := m.stats("default")
	require.EqualValues(t, letters, s.Succeeded)
	require.Zero(t, s.Dead)
}

func TestOnDeadIsCalledAtLeastOnce(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		heard := make(chan *redrive.DeadLetterEntry, 10)
		var calls atomic.Int32
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{OnDead: func(_ context.Context, e *redrive.DeadLetterEntry) error {
			switch calls.Add(1) {
			case 1:
				return errors.New("pager is down")
			case 2:
				panic("x")
			}
			heard <- e
			return nil
		}})
		id := m.bury(brittle, 1)[0]
		e := receive(t, heard, "call")
		require.Equal(t, id, e.TaskID)
		require.Equal(t, "brittle 0", e.Error)
		require.EqualValues(t, 3, calls.Load(), "again after an error, and after a panic")
		next := m.bury(brittle, 1)[0]
		require.Equal(t, next, receive(t, heard, "call").TaskID)
		require.Empty(t, heard)
	})
}

func TestOnDeadIsCalledByAnotherWhenTheProcessDies(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Redis(t))
	p := r.subprocess("undertaker")
	receipt, err := brittle.Enqueue(r.ctx(), r.client, number{1}, nil)
	require.NoError(t, err)
	require.Equal(t, receipt.ID, p.WaitLine("hook "))
	_ = p.Wait() // it has killed itself in the call
	heard := make(chan string, 5)
	newMorgue(t, r, redrive.DeadLetterOptions{OnDead: func(_ context.Context, e *redrive.DeadLetterEntry) error {
		heard <- e.TaskID
		return nil
	}})
	require.Equal(t, receipt.ID, receive(t, heard, "call"))
}

func TestRetentionKeepsMemoryFlatAndReportsEveryDrop(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		rounds, batch, limit := 5, 10_000, 1000
		if !b.Real() {
			batch, limit = 300, 100
		}
		var dropped atomic.Int64
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{
			MaxCount: limit, OnDrop: func(_ context.Context, queue, task string, n int) { dropped.Add(int64(n)) },
		})
		var keys []int
		for range rounds {
			m.bury(brittle, batch)
			m.eventually(func(s redrive.QueueStats) bool { return s.Dead == int64(limit) }, "not trimmed")
			keys = append(keys, len(m.b.Keys()))
			size := m.rdb.HLen(m.ctx(), m.b.Prefix+":{default}:letters").Val()
			require.EqualValues(t, limit, size)
		}
		require.InDelta(t, keys[0], keys[rounds-1], 3, "keys %v", keys)
		want := int64(rounds*batch - limit)
		require.EqualValues(t, want, m.stats("default").Dropped)
		require.Eventually(t, func() bool { return dropped.Load() == want }, patience, time.Millisecond)
	})
}

func TestRetentionDropsWhatIsOld(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{MaxAge: 50 * time.Millisecond})
		m.bury(brittle, 5)
		m.eventually(func(s redrive.QueueStats) bool { return s.Dead == 0 && s.Dropped == 5 }, "not dropped")
	})
}

func TestLettersWithoutAHandlerFollowTheRootMux(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		heard := make(chan redrive.Reason, 10)
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{OnDead: func(_ context.Context, e *redrive.DeadLetterEntry) error {
			heard <- e.Reason
			return nil
		}})
		base := m.b.Prefix + ":{default}:"
		require.NoError(t, m.rdb.HSet(m.ctx(), base+"jobs", "garbage", "{{{").Err())
		require.NoError(t, m.rdb.RPush(m.ctx(), base+"ready", "garbage").Err())
		require.NoError(t, m.rdb.RPush(m.ctx(), base+"bell", 1).Err())
		require.Equal(t, redrive.ReasonMalformed, receive(t, heard, "call"))
		e, err := m.letters().Get(m.ctx(), "garbage")
		require.NoError(t, err)
		require.Equal(t, "{{{", string(e.Raw))
	})
}

// TestI6_EveryDeadLetterScriptsReplyIsLost loses the reply of the k-th call of each
// operation.
func TestI6_EveryDeadLetterScriptsReplyIsLost(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		clean := newRig(t, b)
		m := newMorgue(t, clean, redrive.DeadLetterOptions{})
		lossy, proxy := faulty(t, b, 1)
		d := lossy.client.DeadLetters("default")
		ops := map[string]func(ids []string) error{
			"delete":  func(ids []string) error { _, err := d.Delete(m.ctx(), ids...); return err },
			"purge":   func([]string) error { _, err := d.Purge(m.ctx(), redrive.DeadLetterFilter{}); return err },
			"requeue": func(ids []string) error { _, err := d.Requeue(m.ctx(), ids...); return err },
			"redrive": func([]string) error { _, err := d.Redrive(m.ctx(), redrive.RedriveOptions{}); return err },
			"review": func(ids []string) error {
				rs, err := d.Review(m.ctx(), "brittle", 10, time.Minute)
				for _, r := range rs {
					if e := r.Requeue(m.ctx()); e != nil && !errors.Is(e, redrive.ErrReviewLost) {
						return e
					}
				}
				return err
			},
		}
		for name, op := range ops {
			for k := 1; k <= 4; k++ {
				m.fixed.Store(false)
				ids := m.bury(brittle, 3)
				m.fixed.Store(true)
				before := m.stats("default")
				lost := proxy.DropReply(faultnet.Commands("evalsha", "eval"), k)
				require.NoError(t, op(ids), "%s, call %d", name, k)
				lost.Remove()
				m.drained()
				s := m.stats("default")
				require.Zero(t, s.Dead, "%s, call %d", name, k)
				again := s.Succeeded - before.Succeeded
				if strings.Contains("requeue redrive review", name) {
					require.EqualValues(t, 3, again, "%s, call %d", name, k)
					require.EqualValues(t, 3, s.Requeued-before.Requeued)
				} else {
					require.Zero(t, again)
					require.EqualValues(t, 3, s.Deleted-before.Deleted)
				}
			}
		}
	})
}

// TestI6_HooksAndRetentionSurviveLostReplies loses the k-th reply of a worker that
// buries, calls hooks and drops.
func TestI6_HooksAndRetentionSurviveLostReplies(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		lossy, proxy := faulty(t, b, 1)
		var mu sync.Mutex
		heard, dropped := make(map[string]int), 0
		m := newMorgue(t, lossy, redrive.DeadLetterOptions{
			MaxCount: 4,
			OnDead: func(_ context.Context, e *redrive.DeadLetterEntry) error {
				mu.Lock()
				defer mu.Unlock()
				heard[e.TaskID]++
				return nil
			},
			OnDrop: func(_ context.Context, _, _ string, n int) {
				mu.Lock()
				defer mu.Unlock()
				dropped += n
			},
		})
		m.rig = newRig(t, b) // only the worker is lossy
		const rounds = 12
		hits := 0
		for k := 1; k <= rounds; k++ {
			lost := proxy.DropReply(faultnet.Commands("evalsha", "eval"), k)
			ids := m.bury(brittle, 2)
			require.Eventually(t, func() bool {
				mu.Lock()
				defer mu.Unlock()
				return heard[ids[0]] > 0 && heard[ids[1]] > 0
			}, patience, time.Millisecond, "reply %d", k)
			hits += lost.Hits()
			lost.Remove()
		}
		m.eventually(func(s redrive.QueueStats) bool { return s.Dead == 4 && s.Dropped == 2*rounds-4 }, "not trimmed")
		require.Eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return dropped == 2*rounds-4 }, patience, time.Millisecond)
		require.Greater(t, hits, rounds/2, "hardly any reply was lost")
		require.EqualValues(t, 2*rounds, m.stats("default").Died)
	})
}
