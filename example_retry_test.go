package redrive_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/redrive-go/redrive"
)

var (
	errThrottled  = errors.New("throttled")
	errBadAddress = errors.New("no such address")
)

func ExampleRetryPolicy() {
	policy := redrive.RetryPolicy{
		MaxRetries: 4,
		Backoff:    redrive.Exponential(time.Second, 5*time.Second),
		Jitter:     redrive.NoJitter,
	}
	fmt.Println(policy.Preview("job-1"))
	// Output: [1s 2s 4s 5s]
}

// A preview is exact: these are the waits of that job, and another job has others.
func ExampleRetryPolicy_Preview() {
	policy := redrive.RetryPolicy{MaxRetries: 3, Backoff: redrive.Exponential(time.Second, time.Minute)}
	for _, id := range []string{"job-1", "job-2"} {
		fmt.Print(id, ":")
		for _, wait := range policy.Preview(id) {
			fmt.Print(" ", wait.Round(time.Millisecond))
		}
		fmt.Println()
	}
	// Output:
	// job-1: 894ms 1.666s 3.229s
	// job-2: 874ms 1.079s 3.313s
}

// The first rule that matches an error chooses its policy.
func ExampleRetryRule() {
	policy := redrive.RetryPolicy{
		MaxRetries: 10,
		Jitter:     redrive.NoJitter,
		Rules: []redrive.RetryRule{
			{If: redrive.Is(errBadAddress), Policy: redrive.RetryPolicy{MaxRetries: redrive.NoRetries}},
			{If: redrive.Is(errThrottled), Policy: redrive.RetryPolicy{
				MaxRetries: redrive.Unlimited,
				Backoff:    redrive.Constant(time.Minute),
				Jitter:     redrive.NoJitter,
			}},
		},
	}
	for _, err := range []error{io.EOF, errThrottled, errBadAddress} {
		failing := redrive.HandlerFunc(func(context.Context, *redrive.Message) ([]byte, error) { return nil, err })
		_, err := redrive.Retry(policy)(failing).Process(context.Background(), &redrive.Message{ID: "job-1"})
		o := redrive.Disposition(err)
		fmt.Printf("%v: %v, wait %v, reason %q\n", err, o.Action, o.Delay, o.Reason)
	}
	// Output:
	// EOF: retry, wait 1s, reason ""
	// throttled: retry, wait 1m0s, reason ""
	// no such address: dead, wait 0s, reason "exhausted"
}

func ExampleRetry() {
	attempts := 0
	handler := redrive.HandlerFunc(func(context.Context, *redrive.Message) ([]byte, error) {
		attempts++
		return nil, io.ErrUnexpectedEOF
	})
	h := redrive.Retry(redrive.RetryPolicy{
		MaxRetries: 2,
		Backoff:    redrive.Linear(10*time.Second, time.Minute),
		Jitter:     redrive.NoJitter,
	})(handler)

	// The worker counts the retries; here a loop stands for it.
	m := &redrive.Message{ID: "job-1"}
	for {
		_, err := h.Process(context.Background(), m)
		o := redrive.Disposition(err)
		if o.Action != redrive.ActionRetry {
			fmt.Println(o.Action, o.Reason, "after", attempts, "attempts:", err)
			return
		}
		fmt.Println(o.Action, "in", o.Delay)
		m.Retries++
	}
	// Output:
	// retry in 10s
	// retry in 20s
	// dead exhausted after 3 attempts: unexpected EOF
}

func ExampleDisposition() {
	o := redrive.Disposition(fmt.Errorf("send: %w", redrive.Permanent(errBadAddress)))
	fmt.Println(o.Action, o.Reason)
	fmt.Println(redrive.Disposition(nil).Action)
	fmt.Println(redrive.Disposition(io.EOF).Action)
	// Output:
	// dead permanent
	// done
	// retry
}

func ExamplePermanent() {
	err := redrive.Permanent(errBadAddress)
	fmt.Println(err, "/", errors.Is(err, errBadAddress))
	fmt.Println(redrive.Disposition(err).Action)
	// Output:
	// no such address / true
	// dead
}

func ExampleRetryAfter() {
	err := redrive.RetryAfter(time.Minute, errThrottled)
	o := redrive.Disposition(err)
	fmt.Println(err, "/", o.Action, o.Delay)
	// Output: throttled / retry-after 1m0s
}

func ExampleSnooze() {
	o := redrive.Disposition(redrive.Snooze(time.Hour))
	fmt.Println(o.Action, o.Delay)
	// Output: snooze 1h0m0s
}

func ExampleDiscard() {
	// The outermost directive wins.
	err := redrive.Discard(redrive.RetryAfter(time.Minute, errThrottled))
	fmt.Println(redrive.Disposition(err).Action)
	// Output: discard
}

func ExampleConstant() {
	policy := redrive.RetryPolicy{MaxRetries: 3, Backoff: redrive.Constant(time.Minute), Jitter: redrive.NoJitter}
	fmt.Println(policy.Preview("job-1"))
	// Output: [1m0s 1m0s 1m0s]
}

func ExampleLinear() {
	policy := redrive.RetryPolicy{Backoff: redrive.Linear(10*time.Second, 35*time.Second), Jitter: redrive.NoJitter}
	fmt.Println(policy.Preview("job-1"))
	// Output: [10s 20s 30s 35s 35s]
}

func ExampleExponentialFactor() {
	policy := redrive.RetryPolicy{
		Backoff: redrive.ExponentialFactor(time.Second, time.Minute, 3),
		Jitter:  redrive.NoJitter,
	}
	fmt.Println(policy.Preview("job-1"))
	// Output: [1s 3s 9s 27s 1m0s]
}

func ExampleSchedule() {
	policy := redrive.RetryPolicy{
		Backoff: redrive.Schedule(time.Second, time.Minute, time.Hour),
		Jitter:  redrive.NoJitter,
	}
	fmt.Println(policy.Preview("job-1"))
	// Output: [1s 1m0s 1h0m0s 1h0m0s 1h0m0s]
}

func ExampleFromBackOff() {
	policy := redrive.RetryPolicy{
		MaxRetries: redrive.Unlimited,
		Backoff: redrive.FromBackOff(func() redrive.BackOff {
			b := backoff.NewExponentialBackOff(
				backoff.WithInitialInterval(time.Second),
				backoff.WithMultiplier(3),
				backoff.WithRandomizationFactor(0), // so that the preview is exact
			)
			return backoff.WithMaxRetries(b, 4)
		}),
	}
	fmt.Println(policy.Preview("job-1"))
	// Output: [1s 3s 9s 27s]
}

func ExampleJitter() {
	for _, jitter := range []redrive.Jitter{
		redrive.NoJitter, redrive.FullJitter, redrive.EqualJitter, redrive.DecorrelatedJitter,
	} {
		policy := redrive.RetryPolicy{Backoff: redrive.Exponential(time.Second, 10*time.Second), Jitter: jitter}
		fmt.Print(jitter, ":")
		for _, wait := range policy.Preview("job-1") {
			fmt.Print(" ", wait.Round(100*time.Millisecond))
		}
		fmt.Println()
	}
	// Output:
	// none: 1s 2s 4s 8s 10s
	// full: 1s 1.7s 2.8s 3.5s 4.9s
	// equal: 900ms 1.7s 3.2s 5.4s 7.2s
	// decorrelated: 2.6s 5.5s 6.5s 4.2s 4.9s
}

func ExampleIs() {
	gone := redrive.Is(errBadAddress, io.ErrClosedPipe)
	fmt.Println(gone(fmt.Errorf("send: %w", errBadAddress)), gone(io.EOF))
	// Output: true false
}

func ExampleAs() {
	isPermanent := redrive.As[*backoff.PermanentError]()
	fmt.Println(isPermanent(backoff.Permanent(io.EOF)), isPermanent(io.EOF))
	// Output: true false
}

// Only errors that tend to pass are worth a retry.
func ExampleTemporary() {
	policy := redrive.RetryPolicy{RetryIf: redrive.Temporary}
	fmt.Println(policy.RetryIf(context.DeadlineExceeded), policy.RetryIf(errBadAddress))
	// Output: true false
}
