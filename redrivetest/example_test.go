package redrivetest_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/redrivetest"
)

// signUp is some code under test.
func signUp(ctx context.Context, c *redrive.Client, user string) error {
	_, err := welcome.Enqueue(ctx, c, mail{user}, &redrive.EnqueueOptions{Delay: time.Hour})
	return err
}

// The example of the package comment: an hour's delay and the backoff of two
// retries, in virtual time.
func TestWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := redrivetest.New(t)
		mux := redrive.NewMux()
		welcome.Handle(mux, sendAfter(2))
		require.NoError(t, signUp(t.Context(), env.Client, "ann"))
		redrivetest.RequireEnqueued(t, env, welcome)
		drained := env.Drain(mux, nil)
		require.Len(t, drained.Attempts, 3)
		require.Empty(t, drained.Dead)
	})
}

// A handler is a function of a context and a job.
func ExampleNewJob() {
	handler := func(_ context.Context, job *redrive.Job[mail]) (string, error) {
		if job.Retries == 0 {
			return "", redrive.RetryAfter(time.Minute, errDown)
		}
		return "sent to " + job.Args.To, nil
	}
	_, err := handler(context.Background(), redrivetest.NewJob(mail{"ann"}))
	fmt.Println(redrive.Disposition(err).Action, redrive.Disposition(err).Delay)

	second := redrivetest.NewJob(mail{"ann"}, func(m *redrive.Message) { m.Retries = 1 })
	fmt.Println(handler(context.Background(), second))
	// Output:
	// retry-after 1m0s
	// sent to ann <nil>
}
