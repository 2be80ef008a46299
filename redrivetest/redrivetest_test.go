package redrivetest_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/redrivetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type mail struct{ To string }

var (
	welcome = redrive.NewTask[mail, string]("mail.welcome", redrive.TaskOptions{
		Queue: "mail",
		Retry: redrive.RetryPolicy{MaxRetries: 5, Backoff: redrive.Exponential(time.Minute, 4*time.Hour)},
	})
	remind = redrive.NewTask[mail, redrive.None]("mail.remind", redrive.TaskOptions{Queue: "bulk"})
)

var errDown = errors.New("mail server is down")

// sendAfter returns a handler that fails until an attempt has so many retries.
func sendAfter(retries int) func(context.Context, *redrive.Job[mail]) (string, error) {
	return func(_ context.Context, job *redrive.Job[mail]) (string, error) {
		if job.Retries < retries {
			return "", errDown
		}
		return "sent to " + job.Args.To, nil
	}
}

func TestDrainPassesThroughHoursOfBackoffInABubble(t *testing.T) {
	began := realTime(t)
	synctest.Test(t, func(t *testing.T) {
		env := redrivetest.New(t)
		mux := redrive.NewMux()
		welcome.Handle(mux, sendAfter(5))
		virtual := time.Now()
		receipt, err := welcome.Enqueue(t.Context(), env.Client, mail{"ann"}, &redrive.EnqueueOptions{Delay: 3 * time.Hour})
		require.NoError(t, err)

		drained := env.Drain(mux, nil)

		require.Empty(t, drained.Dead)
		require.Len(t, drained.Attempts, 6)
		waited := 3 * time.Hour
		for i, a := range drained.Attempts {
			require.Equal(t, receipt.ID, a.ID)
			require.Equal(t, i, a.Retries)
			require.JSONEq(t, `{"To":"ann"}`, string(a.Payload))
			if i < 5 {
				require.Equal(t, redrive.ActionRetry, a.Action)
				require.ErrorIs(t, a.Err, errDown)
				waited += a.Delay
			}
		}
		require.Equal(t, redrive.ActionDone, drained.Attempts[5].Action)
		require.WithinDuration(t, virtual.Add(waited), time.Now(), 5*time.Second)
		require.Greater(t, waited, 3*time.Hour+15*time.Minute)
	})
	require.Less(t, realTime(t).Sub(began), 5*time.Second, "the hours were waited for")
}

func TestDrainReturnsWhatDied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := redrivetest.New(t)
		mux := redrive.NewMux()
		welcome.Handle(mux, func(_ context.Context, job *redrive.Job[mail]) (string, error) {
			switch job.Args.To {
			case "nobody":
				return "", redrive.Permanent(errors.New("no such address"))
			case "down":
				return "", errDown
			}
			return "", nil
		})
		_, err := welcome.EnqueueMany(t.Context(), env.Client, []mail{{"nobody"}, {"down"}, {"ann"}}, nil)
		require.NoError(t, err)

		drained := env.Drain(mux, nil)

		require.Len(t, drained.Attempts, 1+6+1)
		require.Len(t, drained.Dead, 2)
		require.Equal(t, redrive.ReasonPermanent, drained.Dead[0].Reason)
		require.Equal(t, redrive.ReasonExhausted, drained.Dead[1].Reason)
		require.Equal(t, 5, drained.Dead[1].Retries)
	})
}

// What handlers enqueue meanwhile, into whichever queue, is drained too.
func TestDrainFollowsJobsThatHandlersEnqueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := redrivetest.New(t)
		mux := redrive.NewMux()
		welcome.Handle(mux, func(ctx context.Context, job *redrive.Job[mail]) (string, error) {
			_, err := remind.Enqueue(ctx, env.Client, job.Args, &redrive.EnqueueOptions{Delay: 24 * time.Hour})
			return "", err
		})
		var reminded []string
		remind.Handle(mux, redrive.NoResult(func(_ context.Context, job *redrive.Job[mail]) error {
			reminded = append(reminded, job.Args.To)
			return nil
		}))
		_, err := welcome.EnqueueMany(t.Context(), env.Client, []mail{{"ann"}, {"bob"}}, nil)
		require.NoError(t, err)
		require.Len(t, env.Drain(mux, &redrivetest.DrainOptions{Worker: redrive.WorkerOptions{Concurrency: 1}}).Attempts, 4)
		require.ElementsMatch(t, []string{"ann", "bob"}, reminded)
		require.Empty(t, env.Drain(mux, nil).Attempts, "nothing is left to drain")
	})
}

// A handler may wait for a job of a queue that had none when the drain began.
func TestDrainServesAQueueThatARunningHandlerWaitsFor(t *testing.T) {
	outer := redrive.NewTask[mail, redrive.None]("outer", redrive.TaskOptions{Queue: "outer"})
	inner := redrive.NewTask[mail, string]("inner", redrive.TaskOptions{Queue: "inner", ResultTTL: time.Minute})
	synctest.Test(t, func(t *testing.T) {
		env := redrivetest.New(t)
		mux := redrive.NewMux()
		var got string
		outer.Handle(mux, redrive.NoResult(func(ctx context.Context, job *redrive.Job[mail]) error {
			receipt, err := inner.Enqueue(ctx, env.Client, job.Args, nil)
			if err == nil {
				got, err = receipt.Wait(ctx)
			}
			return err
		}))
		inner.Handle(mux, sendAfter(0))
		_, err := outer.Enqueue(t.Context(), env.Client, mail{"ann"}, nil)
		require.NoError(t, err)
		require.Empty(t, env.Drain(mux, nil).Dead)
		require.Equal(t, "sent to ann", got)
	})
}

func TestDrainWaitsOutsideABubble(t *testing.T) {
	t.Parallel()
	env := redrivetest.New(t)
	quick := redrive.NewTask[mail, string]("quick", redrive.TaskOptions{Retry: redrive.RetryPolicy{
		Backoff: redrive.Constant(30 * time.Millisecond), Jitter: redrive.NoJitter,
	}})
	mux := redrive.NewMux()
	quick.Handle(mux, sendAfter(2))
	_, err := quick.Enqueue(t.Context(), env.Client, mail{"ann"}, nil)
	require.NoError(t, err)
	began := time.Now()
	require.Len(t, env.Drain(mux, nil).Attempts, 3)
	require.GreaterOrEqual(t, time.Since(began), 60*time.Millisecond)
}

func TestDrainKeepsTheUsersTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := redrivetest.New(t)
		mux := redrive.NewMux()
		welcome.Handle(mux, sendAfter(1))
		_, err := welcome.Enqueue(t.Context(), env.Client, mail{"ann"}, nil)
		require.NoError(t, err)
		started, settled := 0, 0
		env.Drain(mux, &redrivetest.DrainOptions{Worker: redrive.WorkerOptions{Trace: &redrive.WorkerTrace{
			JobStarted: func(*redrive.Message) { started++ },
			JobSettled: func(*redrive.Message, redrive.JobEnd) { settled++ },
		}}})
		require.Equal(t, []int{2, 2}, []int{started, settled})
	})
}

func TestEnqueuedListsWaitingJobsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := redrivetest.New(t)
		ctx := t.Context()
		require.Empty(t, redrivetest.Enqueued(env, welcome))
		enqueue := func(to string, o *redrive.EnqueueOptions) {
			_, err := welcome.Enqueue(ctx, env.Client, mail{to}, o)
			require.NoError(t, err)
		}
		enqueue("late", &redrive.EnqueueOptions{Delay: 2 * time.Hour, Headers: map[string]string{"trace": "abc"}})
		enqueue("soon", &redrive.EnqueueOptions{Delay: time.Hour, Queue: "bulk", IdempotencyKey: "order-7"})
		enqueue("now", nil)
		_, err := remind.Enqueue(ctx, env.Client, mail{"other task"}, nil)
		require.NoError(t, err)

		waiting := redrivetest.Enqueued(env, welcome)
		require.Len(t, waiting, 3)
		require.Equal(t, []string{"now", "soon", "late"}, []string{waiting[0].Args.To, waiting[1].Args.To, waiting[2].Args.To})
		require.True(t, waiting[0].Due.IsZero())
		require.Equal(t, "order-7", waiting[1].IdempotencyKey)
		require.Equal(t, "bulk", waiting[1].Queue)
		require.Equal(t, time.Hour, time.Until(waiting[1].Due))
		require.Equal(t, "abc", waiting[2].Headers["trace"])

		found := redrivetest.RequireEnqueued(t, env, welcome, func(m mail) bool { return m.To == "soon" })
		require.Equal(t, waiting[1].ID, found.ID)
	})
}

// A job that waits for its retry shows its counters.
func TestEnqueuedShowsTheRetriesOfAWaitingJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := redrivetest.New(t)
		mux := redrive.NewMux()
		welcome.Handle(mux, sendAfter(9))
		_, err := welcome.Enqueue(t.Context(), env.Client, mail{"ann"}, nil)
		require.NoError(t, err)
		stop := env.Run(mux, redrive.WorkerOptions{Queues: []redrive.Queue{{Name: "mail"}}})
		time.Sleep(10 * time.Second) // the first retry is due in half a minute or more
		stop()
		waiting := redrivetest.RequireEnqueued(t, env, welcome)
		require.Equal(t, []int{1, 2}, []int{waiting.Retries, waiting.Starts})
	})
}

func TestNewJobCallsAHandlerDirectly(t *testing.T) {
	job := redrivetest.NewJob(mail{"ann"})
	require.Equal(t, []int{0, 1}, []int{job.Retries, job.Starts})
	require.JSONEq(t, `{"To":"ann"}`, string(job.Payload))
	_, err := sendAfter(2)(t.Context(), job)
	require.Equal(t, redrive.ActionRetry, redrive.Disposition(err).Action)

	job = redrivetest.NewJob(mail{"ann"}, func(m *redrive.Message) { m.Retries, m.Crashes, m.Task = 2, 1, welcome.Name() })
	require.Equal(t, 4, job.Starts)
	got, err := sendAfter(2)(t.Context(), job)
	require.NoError(t, err)
	require.Equal(t, "sent to ann", got)

	// The untyped layer, middleware included, takes the message.
	mux := redrive.NewMux()
	welcome.Handle(mux, sendAfter(2))
	b, err := mux.Process(t.Context(), job.Message)
	require.NoError(t, err)
	require.Equal(t, `"sent to ann"`, string(b))
}

// Failures of the helpers are seen from outside: this binary runs itself.
func TestHelpersFailTheTestAndSayWhy(t *testing.T) {
	const env = "REDRIVETEST_FAIL"
	cases := map[string]struct {
		f    func(t *testing.T)
		want string
	}{
		"nothing": {func(t *testing.T) {
			redrivetest.RequireEnqueued(t, redrivetest.New(t), welcome)
		}, "no job of task mail.welcome waits"},
		"mismatch": {func(t *testing.T) {
			e := redrivetest.New(t)
			_, err := welcome.Enqueue(t.Context(), e.Client, mail{"ann"}, nil)
			require.NoError(t, err)
			redrivetest.RequireEnqueued(t, e, welcome, func(m mail) bool { return m.To == "bob" })
		}, "of 1 waiting jobs of task mail.welcome none matches; their arguments:\n\t{To:ann}"},
		"far": {func(t *testing.T) {
			e := redrivetest.New(t)
			_, err := welcome.Enqueue(t.Context(), e.Client, mail{"ann"}, &redrive.EnqueueOptions{Delay: time.Hour})
			require.NoError(t, err)
			e.Drain(redrive.NewMux(), nil)
		}, "queue mail has 0 ready, 0 active, 1 delayed; the next delayed job is due in 1h0m0s"},
		"paused": {func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := redrivetest.New(t)
				_, err := welcome.Enqueue(t.Context(), e.Client, mail{"ann"}, nil)
				require.NoError(t, err)
				require.NoError(t, e.Client.Pause(t.Context(), "mail"))
				e.Drain(redrive.NewMux(), &redrivetest.DrainOptions{Limit: time.Minute})
			})
		}, "not empty after 1m0s: queue mail has 1 ready, 0 active, 0 delayed and is paused"},
	}
	if c, ok := cases[os.Getenv(env)]; ok {
		c.f(t)
		return
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestHelpersFailTheTestAndSayWhy$")
			cmd.Env = append(os.Environ(), env+"="+name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, "the test passed: %s", out)
			// The test log indents what follows the first line.
			require.Contains(t, unindent(string(out)), unindent(c.want))
		})
	}
}

// unindent drops the white space at the head of lines.
func unindent(s string) string {
	var out []byte
	for i := range len(s) {
		if (s[i] == ' ' || s[i] == '\t') && i > 0 && (s[i-1] == '\n' || s[i-1] == ' ' || s[i-1] == '\t') {
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}

// Everything an Env started has ended when its test has.
func TestEnvEndsWithItsTest(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("busy", func(t *testing.T) {
		env := redrivetest.New(t)
		mux := redrive.NewMux()
		running := make(chan struct{})
		remind.Handle(mux, redrive.NoResult(func(ctx context.Context, _ *redrive.Job[mail]) error {
			close(running)
			<-ctx.Done()
			return context.Cause(ctx)
		}))
		env.Run(mux, redrive.WorkerOptions{Queues: []redrive.Queue{{Name: "bulk"}}, ShutdownTimeout: 100 * time.Millisecond})
		_, err := remind.Enqueue(t.Context(), env.Client, mail{"ann"}, nil)
		require.NoError(t, err)
		<-running
	})
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+1 }, 10*time.Second, time.Millisecond,
		"goroutines are left over") // Eventually itself has one
}

// realTime reads the clock, also around a bubble.
func realTime(t *testing.T) time.Time {
	t.Helper()
	require.Greater(t, time.Now().Year(), 2020, "called in a bubble")
	return time.Now()
}
