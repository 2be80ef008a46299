package redrive_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
)

func TestDeadLetterPanicsOnInvalidOptionsAndNamesTheField(t *testing.T) {
	t.Parallel()
	for field, o := range map[string]redrive.DeadLetterOptions{
		"MaxCount":      {MaxCount: -2},
		"MaxAge":        {MaxAge: -2},
		"OnDeadTimeout": {OnDeadTimeout: -1},
	} {
		func() {
			defer func() { require.Contains(t, fmt.Sprint(recover()), "DeadLetterOptions."+field+" is ") }()
			redrive.DeadLetter(o)
		}()
	}
	require.NotPanics(t, func() {
		redrive.DeadLetter(redrive.DeadLetterOptions{MaxCount: redrive.KeepAll, MaxAge: redrive.KeepForever})
	})
}

func TestEveryReasonOfADeadLetterHasAnIndex(t *testing.T) {
	t.Parallel()
	require.ElementsMatch(t, store.Reasons(), []string{
		string(redrive.ReasonExhausted), string(redrive.ReasonPermanent), string(redrive.ReasonCrashLoop), string(redrive.ReasonMaxAge),
		string(redrive.ReasonMalformed), string(redrive.ReasonUnknownTask), string(redrive.ReasonKeyReused),
	})
}

// die is a handler whose jobs become dead letters.
func die(context.Context, *redrive.Message) ([]byte, error) {
	return nil, redrive.Permanent(errors.New("x"))
}

// kill enqueues a job of a task by name and waits until it died.
func (r *rig) kill(task string) string {
	r.t.Helper()
	before := r.stats("default").Died
	receipt, err := redrive.NewTask[number, redrive.None](task, redrive.TaskOptions{}).Enqueue(r.ctx(), r.client, number{}, nil)
	require.NoError(r.t, err)
	r.eventually(func(s redrive.QueueStats) bool { return s.Died == before+1 }, "not dead")
	return receipt.ID
}

func TestTheInnermostDeadLetterCounts(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Embedded(t))
	heard := make(chan string, 10)
	hook := func(name string) redrive.Middleware {
		return redrive.DeadLetter(redrive.DeadLetterOptions{OnDead: func(_ context.Context, e *redrive.DeadLetterEntry) error {
			heard <- name
			return nil
		}})
	}
	pass := func(next redrive.Handler) redrive.Handler {
		return redrive.HandlerFunc(func(ctx context.Context, m *redrive.Message) ([]byte, error) { return next.Process(ctx, m) })
	}
	mux := redrive.NewMux()
	mux.Use(pass, hook("mux"), pass)
	group := mux.With(pass, hook("group"), pass)
	mux.Handle("plain", redrive.HandlerFunc(die))
	group.Handle("grouped", redrive.HandlerFunc(die))
	mux.Handle("chained", redrive.Chain(pass, hook("outer"), pass, hook("inner"), pass)(redrive.HandlerFunc(die)))
	mux.Handle("nested", hook("outer")(hook("inner")(redrive.HandlerFunc(die))))
	redrive.NewTask[number, redrive.None]("task", redrive.TaskOptions{}).Handle(group, redrive.NoResult(
		func(context.Context, *redrive.Job[number]) error { return redrive.Permanent(errors.New("x")) }), pass, hook("task"))
	r.start(mux, redrive.WorkerOptions{})
	for task, want := range map[string]string{"plain": "mux", "grouped": "group", "chained": "inner", "nested": "inner", "task": "task"} {
		r.kill(task)
		require.Equal(t, want, receive(t, heard, "call"), task)
	}
}

func init() {
	redistest.RegisterSubprocess("burier", func() {
		mux := redrive.NewMux()
		mux.Handle("brittle", redrive.DeadLetter(redrive.DeadLetterOptions{
			OnDead:        func(context.Context, *redrive.DeadLetterEntry) error { select {} },
			OnDeadTimeout: time.Second,
		})(redrive.HandlerFunc(die)))
		w, err := redrive.NewWorker(processRedis(), mux, redrive.WorkerOptions{
			Prefix: os.Getenv("PREFIX"), Lease: time.Second, Logger: quiet,
			// Redis has the letter. Has the look that a worker begins with found it
			// already, the call does not return, and is due again after its time-out.
			Trace: &redrive.WorkerTrace{JobSettled: func(m *redrive.Message, _ redrive.JobEnd) {
				fmt.Println("buried", m.ID)
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}},
		})
		if err != nil {
			panic(err)
		}
		fmt.Println(w.Run(context.Background()))
	})
}

func TestOnDeadIsOwedFromTheMomentOfTheBurial(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Redis(t))
	p := r.subprocess("burier")
	receipt, err := brittle.Enqueue(r.ctx(), r.client, number{1}, nil)
	require.NoError(t, err)
	require.Equal(t, receipt.ID, p.WaitLine("buried "))
	_ = p.Wait()
	heard := make(chan string, 5)
	newMorgue(t, r, redrive.DeadLetterOptions{OnDead: func(_ context.Context, e *redrive.DeadLetterEntry) error {
		heard <- e.TaskID
		return nil
	}})
	require.Equal(t, receipt.ID, receive(t, heard, "call"))
}

func TestOnlyAWorkerWithAnOnDeadForTheTaskCallsIt(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		refused := make(chan struct{}, 100)
		mux := func(task string, hook func(context.Context, *redrive.DeadLetterEntry) error) *redrive.Mux {
			m := redrive.NewMux()
			m.Handle(task, redrive.DeadLetter(redrive.DeadLetterOptions{OnDead: hook})(redrive.HandlerFunc(die)))
			return m
		}
		first := r.start(mux("a", func(context.Context, *redrive.DeadLetterEntry) error {
			refused <- struct{}{}
			return errors.New("not now")
		}), redrive.WorkerOptions{})
		id := r.kill("a")
		receive(t, refused, "call")
		require.NoError(t, first.stop())
		due := func() float64 { return r.rdb.ZScore(r.ctx(), r.b.Prefix+":{default}:hooks", "a").Val() }
		owed := due()
		require.Positive(t, owed)
		heard := make(chan string, 10)
		other := r.start(mux("b", func(_ context.Context, e *redrive.DeadLetterEntry) error {
			heard <- e.TaskName
			return nil
		}), redrive.WorkerOptions{})
		time.Sleep(1200 * time.Millisecond) // it is due again after a second
		r.kill("b")
		require.Equal(t, "b", receive(t, heard, "call"))
		require.NoError(t, other.stop())
		require.Equal(t, owed, due(), "a worker without an OnDead has taken it")
		r.start(mux("a", func(_ context.Context, e *redrive.DeadLetterEntry) error {
			heard <- e.TaskID
			return nil
		}), redrive.WorkerOptions{})
		require.Equal(t, id, receive(t, heard, "call"))
		require.Empty(t, heard)
	})
}

func TestOnDeadIsNotCalledAgainForALetterThatIsGone(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		calls := make(chan string, 100)
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{OnDead: func(_ context.Context, e *redrive.DeadLetterEntry) error {
			calls <- e.TaskID
			return errors.New("not now")
		}})
		id := m.bury(brittle, 1)[0]
		require.Equal(t, id, receive(t, calls, "call"))
		n, err := m.letters().Delete(m.ctx(), id)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		m.b.Audit() // its hook is gone with it
		other := m.bury(brittle, 1)[0]
		require.Equal(t, other, receive(t, calls, "call"))
		require.Equal(t, other, receive(t, calls, "second call, a second later"), "the letter that is gone was due before")
	})
}

// TestAHookThatHangsHoldsUpNothing: neither settlements, nor other hooks, nor the end
// of Run.
func TestAHookThatHangsHoldsUpNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Redis(t))
	release := make(chan struct{})
	var hung sync.WaitGroup
	defer hung.Wait()
	defer close(release)
	heard := make(chan string, 100)
	mux := redrive.NewMux()
	mux.Use(redrive.DeadLetter(redrive.DeadLetterOptions{OnDead: func(_ context.Context, e *redrive.DeadLetterEntry) error {
		if e.TaskName == "hang" {
			hung.Add(1)
			defer hung.Done()
			heard <- "hang"
			<-release // deaf
		}
		heard <- e.TaskName
		return nil
	}}))
	mux.Handle("hang", redrive.HandlerFunc(die))
	mux.Handle("quick", redrive.HandlerFunc(die))
	w := r.start(mux, redrive.WorkerOptions{ShutdownTimeout: time.Second})
	for range 3 {
		r.kill("hang")
		require.Equal(t, "hang", receive(t, heard, "call"))
	}
	for range 20 {
		r.kill("quick")
		require.Equal(t, "quick", receive(t, heard, "call"))
	}
	started := time.Now()
	require.NoError(t, w.stop())
	require.Less(t, time.Since(started), 1250*time.Millisecond) // I15
}

func TestTheHookOfTheLastBurialIsCalledBeforeRunReturns(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		var heard atomic.Int32
		settled := make(chan struct{}, 100)
		mux := redrive.NewMux()
		mux.Handle("t", redrive.DeadLetter(redrive.DeadLetterOptions{OnDead: func(context.Context, *redrive.DeadLetterEntry) error {
			time.Sleep(10 * time.Millisecond)
			heard.Add(1)
			return nil
		}})(redrive.HandlerFunc(die)))
		args := make([]number, 40)
		_, err := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{}).EnqueueMany(r.ctx(), r.client, args, nil)
		require.NoError(t, err)
		w := r.start(mux, redrive.WorkerOptions{Concurrency: len(args), Trace: &redrive.WorkerTrace{
			JobSettled: func(*redrive.Message, redrive.JobEnd) { settled <- struct{}{} },
		}})
		for range args {
			receive(t, settled, "burial")
		}
		require.NoError(t, w.stop())
		require.EqualValues(t, len(args), heard.Load())
	})
}

func TestAnIDOfADeadLetterIsTaken(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{})
		order := &redrive.EnqueueOptions{ID: "order-7"}
		_, err := brittle.Enqueue(m.ctx(), m.client, number{7}, order)
		require.NoError(t, err)
		m.eventually(func(s redrive.QueueStats) bool { return s.Died == 1 }, "not dead")
		again, err := brittle.Enqueue(m.ctx(), m.client, number{8}, order)
		require.NoError(t, err)
		require.True(t, again.Duplicate)
		_, err = again.Wait(m.ctx())
		var failed *redrive.FailedError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, redrive.ReasonPermanent, failed.Reason)
		_, err = m.letters().Delete(m.ctx(), "order-7")
		require.NoError(t, err)
		again, err = brittle.Enqueue(m.ctx(), m.client, number{9}, order)
		require.NoError(t, err)
		require.False(t, again.Duplicate)
		m.drained()
	})
}

// reversed is a codec whose bytes are no JSON.
type reversed struct{}

func (reversed) Marshal(v any) ([]byte, error) {
	return append([]byte{0xff}, []byte(v.(string))...), nil
}
func (reversed) Unmarshal(b []byte, v any) error { *v.(*string) = string(b[1:]); return nil }
func onDeadRedact(_ string, args []byte) []byte  { return args[:1] }
func redactNothing(_ string, args []byte) []byte { return args }
func redactInPlace(_ string, args []byte) []byte { clear(args); return args }
func redactToGarbage(_ string, _ []byte) []byte  { return []byte(`{"card":"4111`) }
func redactToAJoke(_ string, _ []byte) []byte    { return []byte(`"hidden"`) }
func redactPanics(string, []byte) []byte         { panic("4111") }
func redactToNil(string, []byte) []byte          { return nil }
func binary(name string) *redrive.Task[string, redrive.None] {
	return redrive.NewTask[string, redrive.None](name, redrive.TaskOptions{Codec: reversed{}})
}

func TestWhateverRedactDoesNothingItHidesIsKept(t *testing.T) {
	t.Parallel()
	secret := "4111-1111"
	for name, c := range map[string]struct {
		redact func(string, []byte) []byte
		binary bool
		args   string // "" = the letter is as it was enqueued
	}{
		"nothing":           {redact: redactNothing},
		"nothing of binary": {redact: redactNothing, binary: true},
		"json":              {redact: redactToAJoke, args: `"hidden"`},
		"binary to json":    {redact: redactToAJoke, binary: true, args: `"hidden"`},
		"binary to binary":  {redact: onDeadRedact, binary: true, args: `null`},
		"in place":          {redact: redactInPlace, args: `null`},
		"no json":           {redact: redactToGarbage, args: `null`},
		"panic":             {redact: redactPanics, args: `null`},
		"nil":               {redact: redactToNil, args: `null`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, redistest.Embedded(t))
			task := redrive.NewTask[string, redrive.None]("t", redrive.TaskOptions{})
			if c.binary {
				task = binary("t")
			}
			ran := make(chan string, 10)
			mux := redrive.NewMux()
			mux.Use(redrive.DeadLetter(redrive.DeadLetterOptions{Redact: c.redact}))
			task.Handle(mux, redrive.NoResult(func(_ context.Context, j *redrive.Job[string]) error {
				ran <- j.Args
				return redrive.Permanent(errors.New("x"))
			}))
			r.start(mux, redrive.WorkerOptions{})
			receipt, err := task.Enqueue(r.ctx(), r.client, secret, nil)
			require.NoError(t, err)
			require.Equal(t, secret, receive(t, ran, "run"))
			r.eventually(func(s redrive.QueueStats) bool { return s.Died == 1 }, "not dead")
			d := r.client.DeadLetters("default")
			e, err := d.Get(r.ctx(), receipt.ID)
			require.NoError(t, err)
			require.Equal(t, c.args != "", e.Redacted)
			_, err = d.Requeue(r.ctx(), receipt.ID)
			if c.args == "" {
				require.NoError(t, err)
				require.Equal(t, secret, receive(t, ran, "run"))
				r.eventually(func(s redrive.QueueStats) bool { return s.Died == 2 }, "not dead")
				return
			}
			require.JSONEq(t, c.args, string(e.Args))
			require.ErrorIs(t, err, redrive.ErrRedacted)
			stored := r.rdb.HGet(r.ctx(), r.b.Prefix+":{default}:letters", receipt.ID).Val()
			require.NotContains(t, stored, "4111")
			require.NotContains(t, stored, base64.StdEncoding.EncodeToString([]byte("\xff" + secret))[:8])
		})
	}
}

func TestWhatCannotBeDecodedIsNotKeptWhereRedactIs(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Embedded(t))
	mux := redrive.NewMux()
	mux.Use(redrive.DeadLetter(redrive.DeadLetterOptions{Redact: redactNothing}))
	mux.Handle("t", redrive.HandlerFunc(die))
	base := r.b.Prefix + ":{default}:"
	require.NoError(t, r.rdb.HSet(r.ctx(), base+"jobs", "garbage", `{"card":"4111`).Err())
	require.NoError(t, r.rdb.RPush(r.ctx(), base+"ready", "garbage").Err())
	r.start(mux, redrive.WorkerOptions{})
	r.eventually(func(s redrive.QueueStats) bool { return s.Died == 1 }, "not dead")
	e, err := r.client.DeadLetters("default").Get(r.ctx(), "garbage")
	require.NoError(t, err)
	require.True(t, e.Redacted)
	require.Nil(t, e.Raw)
	require.NotContains(t, r.rdb.HGet(r.ctx(), base+"letters", "garbage").Val(), base64.StdEncoding.EncodeToString([]byte(`{"card":"4111`)))
}

// TestADamagedLetterIsShownAndCanBeDeleted: nothing of ours writes one (I13).
func TestADamagedLetterIsShownAndCanBeDeleted(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{})
		ids := m.bury(brittle, 3)
		require.NoError(t, m.rdb.HSet(m.ctx(), m.b.Prefix+":{default}:letters", ids[1], "garbage").Err())
		seen, failed := 0, 0
		for e, err := range m.letters().All(m.ctx(), redrive.DeadLetterFilter{}) {
			seen++
			if err != nil {
				failed++
				require.Equal(t, ids[1], e.TaskID)
				require.Equal(t, "garbage", string(e.Raw))
				require.ErrorContains(t, err, ids[1])
			}
		}
		require.Equal(t, []int{3, 1}, []int{seen, failed})
		_, err := m.letters().Requeue(m.ctx(), ids[1])
		require.ErrorContains(t, err, ids[1])
		report, err := m.letters().Redrive(m.ctx(), redrive.RedriveOptions{DryRun: true})
		require.NoError(t, err)
		require.Equal(t, []int{3, 2, 1}, []int{report.Matched, report.Moved, report.Refused})
		n, err := m.letters().Delete(m.ctx(), ids[1])
		require.NoError(t, err)
		require.Equal(t, 1, n)
		drained, err := m.letters().Drain(m.ctx(), "brittle", 5)
		require.NoError(t, err)
		require.Len(t, drained, 2)
	})
}

func TestWhatIsUnderReviewIsLeftAlone(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{})
		m.bury(brittle, 2)
		d := m.letters()
		reviewed, err := d.Review(m.ctx(), "brittle", 2, time.Minute)
		require.NoError(t, err)
		id := reviewed[0].TaskID
		_, err = d.Requeue(m.ctx(), id)
		require.ErrorIs(t, err, redrive.ErrUnderReview)
		_, err = d.Delete(m.ctx(), id)
		require.ErrorIs(t, err, redrive.ErrUnderReview)
		n, err := d.Purge(m.ctx(), redrive.DeadLetterFilter{})
		require.NoError(t, err)
		require.Zero(t, n)
		drained, err := d.Drain(m.ctx(), "brittle", 5)
		require.NoError(t, err)
		require.Empty(t, drained)
		report, err := d.Redrive(m.ctx(), redrive.RedriveOptions{})
		require.NoError(t, err)
		require.Equal(t, []int{2, 0, 2}, []int{report.Matched, report.Moved, report.Skipped})
		// An edit travels with the reviewer's requeue.
		m.fixed.Store(true)
		reviewed[0].Args = json.RawMessage(`{"N":99}`)
		require.NoError(t, reviewed[0].Requeue(m.ctx()))
		require.ErrorIs(t, reviewed[0].Requeue(m.ctx()), redrive.ErrReviewLost)
		require.NoError(t, reviewed[1].Release(m.ctx()))
		require.ErrorIs(t, reviewed[1].Resolve(m.ctx()), redrive.ErrReviewLost)
		m.drained()
		m.mu.Lock()
		require.JSONEq(t, `{"N":99}`, string(m.last[id].Payload))
		m.mu.Unlock()
		require.EqualValues(t, 1, m.stats("default").Dead)
	})
}

func TestRedriveEditsAndSaysWhatItRefuses(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{})
		m.bury(brittle, 6)
		m.fixed.Store(true)
		edit := func(e *redrive.DeadLetterEntry) error {
			var n number
			require.NoError(t, json.Unmarshal(e.Args, &n))
			switch n.N {
			case 0:
				return errors.New("not this one")
			case 1:
				panic("x")
			case 2:
				e.Args = json.RawMessage(`{"N":`)
			case 3:
				e.TaskName = "{}"
			case 4:
				e.TaskName, e.Args, e.Headers = "frail", json.RawMessage(`{"N":44}`), map[string]string{"fixed": "yes"}
			}
			return nil
		}
		dry, err := m.letters().Redrive(m.ctx(), redrive.RedriveOptions{Edit: edit, DryRun: true})
		require.NoError(t, err)
		report, err := m.letters().Redrive(m.ctx(), redrive.RedriveOptions{Edit: edit})
		require.NoError(t, err)
		for _, r := range []redrive.RedriveReport{dry, report} {
			require.Equal(t, []int{6, 2, 0, 4}, []int{r.Matched, r.Moved, r.Skipped, r.Refused})
			require.Len(t, r.Errors, 4)
			for _, err := range r.Errors {
				require.ErrorContains(t, err, "dead letter ")
			}
		}
		m.drained()
		require.EqualValues(t, 2, m.stats("default").Succeeded)
		require.EqualValues(t, 4, m.stats("default").Dead)
		m.mu.Lock()
		defer m.mu.Unlock()
		found := 0
		for _, msg := range m.last {
			if msg.Task == "frail" {
				found++
				require.JSONEq(t, `{"N":44}`, string(msg.Payload))
				require.Equal(t, map[string]string{"fixed": "yes"}, msg.Headers)
			}
		}
		require.Equal(t, 1, found)
		_, err = m.letters().Redrive(m.ctx(), redrive.RedriveOptions{Rate: -1})
		require.ErrorContains(t, err, "RedriveOptions.Rate")
	})
}

func TestARequeuedJobsAgeCountsAnew(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Embedded(t))
	const age = 300 * time.Millisecond
	old := redrive.NewTask[number, redrive.None]("old", redrive.TaskOptions{MaxAge: age})
	mux := redrive.NewMux()
	old.Handle(mux, redrive.NoResult(func(context.Context, *redrive.Job[number]) error { return nil }))
	receipt, err := old.Enqueue(r.ctx(), r.client, number{}, nil)
	require.NoError(t, err)
	time.Sleep(age + 10*time.Millisecond)
	r.start(mux, redrive.WorkerOptions{})
	r.eventually(func(s redrive.QueueStats) bool { return s.Died == 1 }, "not dead")
	_, err = r.client.DeadLetters("default").Requeue(r.ctx(), receipt.ID)
	require.NoError(t, err)
	r.drained()
	require.EqualValues(t, 1, r.stats("default").Succeeded)
}

func TestRequeueRefusesAnIDThatAJobHas(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{})
		id := m.bury(brittle, 1)[0]
		base := m.b.Prefix + ":{default}:"
		require.NoError(t, m.rdb.HSet(m.ctx(), base+"jobs", id, "{}").Err()) // by a producer that does not look
		_, err := m.letters().Requeue(m.ctx(), id)
		require.ErrorIs(t, err, redrive.ErrIDTaken)
		require.NoError(t, m.rdb.HDel(m.ctx(), base+"jobs", id).Err())
	})
}

func TestDeadLetterOperationsCheckWhatTheyAreGiven(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Embedded(t))
	require.NoError(t, r.rdb.Close(), "redis is not touched")
	for field, f := range map[string]redrive.DeadLetterFilter{
		"Task": {Task: "{"}, "Reason": {Reason: "bored"}, "Limit": {Limit: -1}, "After": {After: "there"},
	} {
		for _, err := range r.client.DeadLetters("default").All(r.ctx(), f) {
			require.ErrorContains(t, err, "DeadLetterFilter."+field)
		}
		_, err := r.client.DeadLetters("default").Count(r.ctx(), f)
		require.ErrorContains(t, err, "DeadLetterFilter."+field)
	}
	bad := r.client.DeadLetters("{")
	for name, op := range map[string]func() error{
		"all": func() (err error) {
			for _, err = range bad.All(r.ctx(), redrive.DeadLetterFilter{}) {
			}
			return err
		},
		"get":     func() error { _, err := bad.Get(r.ctx(), "x"); return err },
		"count":   func() error { _, err := bad.Count(r.ctx(), redrive.DeadLetterFilter{}); return err },
		"counts":  func() error { _, err := bad.Counts(r.ctx()); return err },
		"requeue": func() error { _, err := bad.Requeue(r.ctx(), "x"); return err },
		"delete":  func() error { _, err := bad.Delete(r.ctx(), "x"); return err },
		"purge":   func() error { _, err := bad.Purge(r.ctx(), redrive.DeadLetterFilter{}); return err },
		"redrive": func() error { _, err := bad.Redrive(r.ctx(), redrive.RedriveOptions{}); return err },
		"drain":   func() error { _, err := bad.Drain(r.ctx(), "t", 1); return err },
		"review":  func() error { _, err := bad.Review(r.ctx(), "t", 1, time.Minute); return err },
	} {
		require.ErrorContains(t, op(), "queue name", name)
	}
	d := r.client.DeadLetters("default")
	_, err := d.Drain(r.ctx(), "", 1)
	require.ErrorContains(t, err, "task name is empty")
	_, err = d.Drain(r.ctx(), "t", 0)
	require.ErrorContains(t, err, "n is 0")
	_, err = d.Review(r.ctx(), "t", 1, 0)
	require.ErrorContains(t, err, "lease is 0s")
}

// TestRedriveWaitsForARedisThatIsAway: it goes on by itself, and moves each once.
func TestRedriveWaitsForARedisThatIsAway(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		m := newMorgue(t, newRig(t, b), redrive.DeadLetterOptions{})
		m.bury(brittle, 200)
		m.fixed.Store(true)
		lossy, proxy := faulty(t, b, 1)
		steps := 0
		report, err := lossy.client.DeadLetters("default").Redrive(m.ctx(), redrive.RedriveOptions{Rate: 400, Progress: func(redrive.RedriveReport) {
			if steps++; steps == 3 {
				proxy.Down()
				time.AfterFunc(300*time.Millisecond, proxy.Up)
			}
		}})
		require.NoError(t, err)
		require.Equal(t, []int{200, 200, 0}, []int{report.Matched, report.Moved, report.Skipped})
		m.drained()
		require.EqualValues(t, 200, m.stats("default").Succeeded)
	})
}
