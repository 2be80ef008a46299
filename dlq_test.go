package redrive_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
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
	"github.com/redrive-go/redrive/internal/store"
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

// TestFiltersSelectByTaskReasonTextAndTime looks at three generations of letters, each
// of two tasks, some milliseconds apart.
func TestFiltersSelectByTaskReasonTextAndTime(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{})
		type f = redrive.DeadLetterFilter
		var frails, brittles []string
		var between []time.Time // by the clock of Redis
		for range 3 {
			frails, brittles = append(frails, m.bury(frail, 2)...), append(brittles, m.bury(brittle, 2)...)
			time.Sleep(5 * time.Millisecond)
			now, err := m.rdb.Time(m.ctx()).Result() // all nodes of the cluster are on this machine
			require.NoError(t, err)
			between = append(between, now)
			time.Sleep(5 * time.Millisecond)
		}
		second := f{Since: between[0], Until: between[1]}
		with := func(x f, change func(*f)) f { change(&x); return x }
		for name, c := range map[string]struct {
			filter f
			want   []string
		}{
			"all":             {f{}, append(append([]string{}, frails...), brittles...)},
			"until":           {f{Until: between[0]}, append(append([]string{}, frails[:2]...), brittles[:2]...)},
			"since":           {f{Since: between[1]}, append(append([]string{}, frails[4:]...), brittles[4:]...)},
			"both":            {second, append(append([]string{}, frails[2:4]...), brittles[2:4]...)},
			"task and time":   {with(second, func(x *f) { x.Task = "frail" }), frails[2:4]},
			"reason and time": {with(second, func(x *f) { x.Reason = redrive.ReasonPermanent }), brittles[2:4]},
			"task and reason": {f{Task: "brittle", Reason: redrive.ReasonPermanent}, brittles},
			"neither":         {f{Task: "brittle", Reason: redrive.ReasonExhausted}, nil},
			"text":            {f{ErrorContains: "1"}, append([]string{brittles[1], brittles[3], brittles[5]}, frails...)}, // "at retry 1"
			"text and time":   {with(second, func(x *f) { x.ErrorContains = "brittle 1" }), brittles[3:4]},
			"no such time":    {f{Since: between[2]}, nil},
		} {
			got := m.list(c.filter)
			require.ElementsMatch(t, c.want, got, name)
			n, err := m.letters().Count(m.ctx(), c.filter)
			require.NoError(t, err)
			require.Equal(t, len(c.want), n, name)
			if len(got) > 1 {
				first := c.filter
				first.Limit = 1
				require.Equal(t, got[:1], m.list(first), name)
			}
		}
		var died []time.Time
		for e, err := range m.letters().All(m.ctx(), f{}) {
			require.NoError(t, err)
			died = append(died, e.Timestamp)
		}
		require.True(t, died[3].Before(died[4]) && died[7].Before(died[8]), "oldest first")
		n, err := m.letters().Purge(m.ctx(), with(second, func(x *f) { x.ErrorContains = "frail 0" }))
		require.NoError(t, err)
		require.Equal(t, 1, n)
		n, err = m.letters().Purge(m.ctx(), f{Reason: redrive.ReasonPermanent, Until: between[1]})
		require.NoError(t, err)
		require.Equal(t, 4, n)
		require.ElementsMatch(t, append(append(append([]string{}, frails[:2]...), frails[3:]...), brittles[4:]...), m.list(f{}))
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
		m.mu.Lock()
		for _, id := range ids {
			require.Equal(t, 2, m.last[id].Generation)
			require.Equal(t, 1, m.last[id].Starts)
			require.Zero(t, m.last[id].Retries)
			require.Len(t, m.last[id].Errors, 4)
		}
		m.mu.Unlock()
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
			m.bury(brittle, 10)
			ids := m.list(redrive.DeadLetterFilter{}) // in the order of their deaths
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
			require.Equal(t, ids, got, "reply %d", k)
			left, err := direct.Counts(m.ctx())
			require.NoError(t, err)
			require.Zero(t, left.Total)
		}
		require.EqualValues(t, 40, m.stats("default").Drained)
	})
}

func init() {
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

// TestOnDeadIsCalledOnceWhereNothingFails waits until a call that was not noted as
// heard would have been made again.
func TestOnDeadIsCalledOnceWhereNothingFails(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		var mu sync.Mutex
		calls := make(map[string]int)
		opts := redrive.DeadLetterOptions{OnDeadTimeout: 500 * time.Millisecond, OnDead: func(_ context.Context, e *redrive.DeadLetterEntry) error {
			mu.Lock()
			defer mu.Unlock()
			calls[e.TaskID]++
			return nil
		}}
		r := newRig(t, b)
		m := newMorgue(t, r, opts)
		newMorgue(t, r, opts) // another worker, with the same hook
		ids := m.bury(brittle, 150)
		owed := func() int64 { return m.rdb.Exists(m.ctx(), m.b.Prefix+":{default}:hooks").Val() }
		require.Eventually(t, func() bool { return owed() == 0 }, patience, 5*time.Millisecond)
		time.Sleep(2600 * time.Millisecond) // OnDeadTimeout, and two seconds
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, calls, len(ids))
		for id, n := range calls {
			require.Equal(t, 1, n, "letter %s", id)
		}
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
	t.Run("embedded", func(t *testing.T) {
		r := newRig(t, redistest.Embedded(t))
		retainsFlat(t, r, 300, 100, func() (keys, memory int64) { return int64(len(r.b.Keys())), 0 })
	})
	t.Run("redis", func(t *testing.T) {
		server := redistest.StartServer(t) // nobody else's memory is in it
		r := &rig{t: t, b: &redistest.Backend{Prefix: redrive.DefaultPrefix}, rdb: server.Client()}
		var err error
		r.client, err = redrive.NewClient(r.rdb, redrive.ClientOptions{})
		require.NoError(t, err)
		retainsFlat(t, r, 10_000, 1000, func() (keys, memory int64) {
			memory, err := strconv.ParseInt(r.rdb.InfoMap(r.ctx(), "memory").Item("Memory", "used_memory"), 10, 64)
			require.NoError(t, err)
			return r.rdb.DBSize(r.ctx()).Val(), memory
		})
		problems, err := store.Audit(r.ctx(), r.rdb, r.b.Prefix)
		require.NoError(t, err)
		require.Empty(t, problems)
	})
}

// retainsFlat buries five batches under a limit, and compares what Redis holds after
// the first with what it holds after the last.
func retainsFlat(t *testing.T, r *rig, batch, limit int, size func() (keys, memory int64)) {
	const rounds = 5
	var dropped atomic.Int64
	m := newMorgue(t, r, redrive.DeadLetterOptions{
		MaxCount: limit, OnDrop: func(_ context.Context, queue, task string, n int) {
			if queue == "default" && task == "brittle" {
				dropped.Add(int64(n))
			}
		},
	})
	var keys, memory [rounds]int64
	for i := range rounds {
		m.bury(brittle, batch)
		m.eventually(func(s redrive.QueueStats) bool { return s.Dead == int64(limit) }, "not trimmed")
		require.EqualValues(t, limit, m.rdb.HLen(m.ctx(), m.b.Prefix+":{default}:letters").Val())
		keys[i], memory[i] = size()
	}
	t.Logf("keys %v, used_memory %v", keys, memory)
	require.InDelta(t, keys[0], keys[rounds-1], 3, "keys %v", keys)
	// The letters that were dropped since the first batch would take twenty times this.
	require.InDelta(t, memory[0], memory[rounds-1], 1<<20, "used_memory %v", memory)
	want := int64(rounds*batch - limit)
	require.EqualValues(t, want, m.stats("default").Dropped)
	require.Eventually(t, func() bool { return dropped.Load() == want }, patience, time.Millisecond)
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
		r := newRig(t, b)
		heard := make(chan redrive.Reason, 10)
		hook := func(c chan redrive.Reason) redrive.DeadLetterOptions {
			return redrive.DeadLetterOptions{MaxCount: 2, OnDead: func(_ context.Context, e *redrive.DeadLetterEntry) error {
				c <- e.Reason
				return nil
			}}
		}
		mux := redrive.NewMux()
		mux.Use(redrive.DeadLetter(hook(heard)))
		group := make(chan redrive.Reason, 10)
		brittle.Handle(mux.With(redrive.DeadLetter(hook(group))), redrive.NoResult(
			func(context.Context, *redrive.Job[number]) error { return nil }))
		base := r.b.Prefix + ":{default}:"
		require.NoError(t, r.rdb.HSet(r.ctx(), base+"jobs", "garbage", "{{{").Err())
		require.NoError(t, r.rdb.RPush(r.ctx(), base+"ready", "garbage").Err())
		r.start(mux, redrive.WorkerOptions{UnknownTaskAge: time.Millisecond})
		require.Equal(t, redrive.ReasonMalformed, receive(t, heard, "call"))
		e, err := r.client.DeadLetters("default").Get(r.ctx(), "garbage")
		require.NoError(t, err)
		require.Equal(t, "{{{", string(e.Raw))

		nobodys := redrive.NewTask[number, redrive.None]("nobodys", redrive.TaskOptions{})
		for range 3 {
			_, err := nobodys.Enqueue(r.ctx(), r.client, number{}, nil)
			require.NoError(t, err)
			require.Equal(t, redrive.ReasonUnknownTask, receive(t, heard, "call"))
		}
		r.eventually(func(s redrive.QueueStats) bool { return s.Dropped == 1 && s.Dead == 3 }, "MaxCount is not that of the root mux")
		require.Empty(t, group)
		require.Empty(t, heard)
	})
}
