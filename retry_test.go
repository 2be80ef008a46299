package redrive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var (
	errTestA = errors.New("A")
	errTestB = errors.New("B")
)

func TestRetryPolicy_Defaults(t *testing.T) {
	p := RetryPolicy{}.withDefaults()
	require.Equal(t, DefaultMaxRetries, p.MaxRetries)
	require.Equal(t, Exponential(time.Second, 10*time.Minute), p.Backoff)
	require.Equal(t, EqualJitter, p.Jitter)

	given := RetryPolicy{MaxRetries: NoRetries, Backoff: Constant(0), Jitter: NoJitter,
		Rules: []RetryRule{{If: Is(errTestA)}}}
	p = given.withDefaults()
	require.Equal(t, NoRetries, p.MaxRetries)
	require.Equal(t, Constant(0), p.Backoff)
	require.Equal(t, NoJitter, p.Jitter)
	require.Equal(t, DefaultMaxRetries, p.Rules[0].Policy.MaxRetries, "a rule does not inherit")
	require.Zero(t, given.Rules[0].Policy.MaxRetries, "the given rules are not written to")
}

func TestRetryPolicy_ValidateNamesEveryProblem(t *testing.T) {
	require.NoError(t, RetryPolicy{}.validate())
	require.NoError(t, RetryPolicy{MaxRetries: Unlimited, Rules: []RetryRule{{If: Temporary}}}.validate())
	for name, tc := range map[string]struct {
		policy RetryPolicy
		want   []string
	}{
		"retries":         {RetryPolicy{MaxRetries: -2}, []string{"MaxRetries: -2"}},
		"jitter":          {RetryPolicy{Jitter: 5}, []string{"Jitter: Jitter(5)"}},
		"negative wait":   {RetryPolicy{Backoff: Constant(-1)}, []string{"Backoff: constant wait -1ns"}},
		"no base":         {RetryPolicy{Backoff: Exponential(0, 1)}, []string{"Backoff: base 0s"}},
		"base above max":  {RetryPolicy{Backoff: Exponential(2, 1)}, []string{"Backoff: max 1ns"}},
		"no step":         {RetryPolicy{Backoff: Linear(0, 0)}, []string{"Backoff: base 0s"}},
		"step above max":  {RetryPolicy{Backoff: Linear(2, 1)}, []string{"Backoff: max 1ns"}},
		"factor":          {RetryPolicy{Backoff: ExponentialFactor(1, 2, 0.9)}, []string{"Backoff: factor 0.9"}},
		"factor NaN":      {RetryPolicy{Backoff: ExponentialFactor(1, 2, math.NaN())}, []string{"Backoff: factor NaN"}},
		"factor infinite": {RetryPolicy{Backoff: ExponentialFactor(1, 2, math.Inf(1))}, []string{"Backoff: factor +Inf"}},
		"empty schedule":  {RetryPolicy{Backoff: Schedule()}, []string{"Backoff: the schedule is empty"}},
		"schedule":        {RetryPolicy{Backoff: Schedule(1, -1)}, []string{"Backoff: wait 2 of the schedule, -1ns"}},
		"no BackOff":      {RetryPolicy{Backoff: FromBackOff(nil)}, []string{"Backoff: FromBackOff has no function"}},
		"nil BackOff": {RetryPolicy{Backoff: FromBackOff(func() BackOff { return nil })},
			[]string{"Backoff: the function of FromBackOff returns nil"}},
		"everything": {RetryPolicy{MaxRetries: -7, Jitter: 8, Backoff: ExponentialFactor(0, -1, 0), Rules: []RetryRule{
			{If: Temporary},
			{Policy: RetryPolicy{MaxRetries: -3, Rules: []RetryRule{{}}}},
			{If: Temporary, Policy: RetryPolicy{Backoff: Schedule()}},
		}}, []string{
			"MaxRetries: -7", "Jitter: Jitter(8)", "Backoff: base 0s", "Backoff: max -1ns", "Backoff: factor 0",
			"Rules[1].If: is nil", "Rules[1].Policy.Rules: rules do not nest", "Rules[1].Policy: MaxRetries: -3",
			"Rules[2].Policy: Backoff: the schedule is empty",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.policy.validate()
			for _, want := range tc.want {
				require.ErrorContains(t, err, want)
			}
			require.Error(t, tc.policy.withDefaults().validate(), "defaults do not hide it")
			require.Panics(t, func() { Retry(tc.policy) })
			require.Nil(t, tc.policy.Preview("job"))
		})
	}
}

// run decides as the worker does for a job whose attempts end with the given errors,
// in order, and returns the decisions up to the one that ends the job.
func run(p RetryPolicy, errs ...error) (decisions []Outcome, m *Message) {
	p = p.withDefaults()
	m = &Message{ID: "job", ruleRetries: map[int]int{}}
	for _, err := range errs {
		d := decide(&p, m, err)
		decisions = append(decisions, Disposition(d))
		switch d.action {
		case ActionRetry:
			m.Retries++
			if d.rule >= 0 {
				m.ruleRetries[d.rule]++
			}
		case ActionSnooze:
		default:
			return decisions, m
		}
	}
	return decisions, m
}

func TestPolicy_RetriesAsOftenAsItSaysAndThenIsExhausted(t *testing.T) {
	exhausted := Outcome{Action: ActionDead, Reason: ReasonExhausted}
	for name, tc := range map[string]struct {
		max, want int
	}{
		"default": {0, 5}, "one": {1, 1}, "none": {NoRetries, 0}, "seven": {7, 7},
	} {
		t.Run(name, func(t *testing.T) {
			p := RetryPolicy{MaxRetries: tc.max}
			got, _ := run(p, slices.Repeat([]error{errTestA}, 20)...)
			require.Len(t, got, tc.want+1)
			require.Equal(t, exhausted, got[tc.want])
			preview := p.Preview("job")
			require.Len(t, preview, tc.want)
			for i, d := range preview {
				require.Equal(t, Outcome{Action: ActionRetry, Delay: d}, got[i], "the preview is exact")
			}

			got, _ = run(p, slices.Repeat([]error{RetryAfter(time.Second, errTestA)}, 20)...)
			require.Len(t, got, tc.want+1, "the limit holds for RetryAfter")
			require.Equal(t, exhausted, got[tc.want])
		})
	}

	unlimited := RetryPolicy{MaxRetries: Unlimited}
	require.Len(t, unlimited.Preview("job"), 100)
	unlimited = unlimited.withDefaults()
	d := decide(&unlimited, &Message{Retries: math.MaxInt - 1}, errTestA)
	require.Equal(t, ActionRetry, d.action)
}

func TestPolicy_SnoozeUsesNoRetry(t *testing.T) {
	got, m := run(RetryPolicy{MaxRetries: 1}, slices.Repeat([]error{Snooze(time.Second)}, 50)...)
	require.Len(t, got, 50)
	require.Equal(t, Outcome{Action: ActionSnooze, Delay: time.Second}, got[49], "and is not spread")
	require.Zero(t, m.Retries)
}

func TestPolicy_SpreadsRetryAfter(t *testing.T) {
	p := RetryPolicy{}.withDefaults()
	waits := map[time.Duration]bool{}
	for i := range 100 {
		d := decide(&p, &Message{ID: fmt.Sprint(i)}, RetryAfter(time.Minute, errTestA))
		require.GreaterOrEqual(t, d.delay, time.Minute)
		require.LessOrEqual(t, d.delay, 66*time.Second)
		waits[d.delay] = true
	}
	require.Greater(t, len(waits), 90)
}

func TestPolicy_AnotherGenerationDrawsOtherWaits(t *testing.T) {
	p := RetryPolicy{}.withDefaults()
	first := decide(&p, &Message{ID: "job", Retries: 2}, errTestA)
	second := decide(&p, &Message{ID: "job", Retries: 2, Generation: 1}, errTestA)
	require.Equal(t, p.Preview("job")[2], first.delay)
	require.NotEqual(t, first.delay, second.delay)
	require.NotEqual(t, p.Preview("job"), p.Preview("other job"))
}

func TestPolicy_RetryIf(t *testing.T) {
	p := RetryPolicy{RetryIf: Is(errTestA), Jitter: NoJitter}.withDefaults()
	permanent := Outcome{Action: ActionDead, Reason: ReasonPermanent}
	decideOn := func(err error) Outcome { return Disposition(decide(&p, &Message{}, err)) }
	require.Equal(t, permanent, decideOn(errTestB))
	require.Equal(t, Outcome{Action: ActionRetry, Delay: time.Second}, decideOn(fmt.Errorf("x: %w", errTestA)))
	require.Equal(t, Outcome{Action: ActionRetry, Delay: time.Minute}, decideOn(RetryAfter(time.Minute, errTestB)))
	require.Equal(t, Outcome{Action: ActionRetry, Delay: time.Minute}, decideOn(throttled{time.Minute}))
	require.Equal(t, Outcome{Action: ActionSnooze, Delay: 1}, decideOn(Snooze(1)))
	require.Equal(t, Outcome{Action: ActionDiscard}, decideOn(Discard(errTestB)))
	require.Equal(t, permanent, decideOn(Permanent(errTestA)))
	require.Equal(t, permanent, decideOn(backoff.Permanent(errTestA)))
}

func TestRules_FirstMatchDecidesWithItsOwnCount(t *testing.T) {
	p := RetryPolicy{
		MaxRetries: 2, Backoff: Constant(time.Second), Jitter: NoJitter,
		Rules: []RetryRule{
			{If: Is(errTestA), Policy: RetryPolicy{MaxRetries: 3, Backoff: Linear(time.Minute, time.Hour), Jitter: NoJitter}},
			{If: Is(errTestA, errTestB), Policy: RetryPolicy{MaxRetries: NoRetries}},
		},
	}
	retry := func(d time.Duration) Outcome { return Outcome{Action: ActionRetry, Delay: d} }
	exhausted := Outcome{Action: ActionDead, Reason: ReasonExhausted}

	got, m := run(p, errTestA, io.EOF, errTestA, io.EOF, errTestA)
	require.Equal(t, []Outcome{
		retry(time.Minute), retry(time.Second), retry(2 * time.Minute), retry(time.Second), retry(3 * time.Minute),
	}, got)
	require.Equal(t, 5, m.Retries)
	require.Equal(t, map[int]int{0: 3}, m.ruleRetries)

	withDefaults := p.withDefaults()
	require.Equal(t, exhausted, Disposition(decide(&withDefaults, m, errTestA)), "the rule's three are used up")
	require.Equal(t, exhausted, Disposition(decide(&withDefaults, m, io.EOF)), "the policy's two are used up")

	got, _ = run(p, errTestB)
	require.Equal(t, []Outcome{exhausted}, got, "the second rule")

	got, m = run(p, RetryAfter(time.Hour, errTestA), RetryAfter(0, errTestA), errTestA, RetryAfter(0, errTestA))
	require.Equal(t, []Outcome{retry(time.Hour), retry(0), retry(3 * time.Minute), exhausted}, got,
		"a RetryAfter uses the count and the limit of its rule")
	require.Equal(t, map[int]int{0: 3}, m.ruleRetries)

	d := decide(&withDefaults, &Message{}, Permanent(errTestA))
	require.Equal(t, ReasonPermanent, d.reason)
}

func TestRules_RetryIfOfTheRuleIsAsked(t *testing.T) {
	got, _ := run(RetryPolicy{
		RetryIf: func(error) bool { return false },
		Rules:   []RetryRule{{If: Is(errTestA), Policy: RetryPolicy{RetryIf: Is(errTestB), Jitter: NoJitter}}},
	}, errors.Join(errTestA, errTestB), errTestA)
	require.Equal(t, []Outcome{
		{Action: ActionRetry, Delay: time.Second},
		{Action: ActionDead, Reason: ReasonPermanent},
	}, got)
}

// However errors of several kinds interleave, each kind is retried as often as its own
// policy says and its waits are those of its own n-th retry.
func TestRules_CountsAreIndependent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := rapid.SliceOfN(rapid.IntRange(-1, 6), 3, 3).Draw(t, "limits")
		kinds := []error{errTestA, errTestB, io.EOF} // the last is the policy's own
		policy := func(i int) RetryPolicy {
			return RetryPolicy{MaxRetries: limits[i], Backoff: Linear(time.Duration(i+1)*time.Second, time.Hour)}
		}
		p := policy(2)
		p.Rules = []RetryRule{{If: Is(errTestA), Policy: policy(0)}, {If: Is(errTestB), Policy: policy(1)}}
		sequence := rapid.SliceOfN(rapid.IntRange(0, 2), 1, 40).Draw(t, "sequence")

		errs := make([]error, len(sequence))
		for i, kind := range sequence {
			errs[i] = kinds[kind]
		}
		got, _ := run(p, errs...)
		var used [3]int
		for i, o := range got {
			kind := sequence[i]
			waits := policy(kind).Preview("job")
			if used[kind] == len(waits) {
				if o != (Outcome{Action: ActionDead, Reason: ReasonExhausted}) {
					t.Fatalf("attempt %d of %v: %+v, and kind %d has no retry left", i+1, sequence, o, kind)
				}
				return
			}
			if o != (Outcome{Action: ActionRetry, Delay: waits[used[kind]]}) {
				t.Fatalf("attempt %d of %v: %+v, want a retry after %v", i+1, sequence, o, waits[used[kind]])
			}
			used[kind]++
		}
		if len(got) != len(sequence) {
			t.Fatalf("ended after %d of %v", len(got), sequence)
		}
	})
}

func TestPolicy_CountsOfAnotherPolicyDoNoHarm(t *testing.T) {
	p := RetryPolicy{MaxRetries: 2}.withDefaults()
	// Rule 4 existed when the job last failed; the counts of the ledger may disagree.
	d := decide(&p, &Message{ID: "job", Retries: 3, ruleRetries: map[int]int{4: 9}}, errTestA)
	require.Equal(t, Outcome{Action: ActionRetry, Delay: p.Preview("job")[0]}, Disposition(d))
}

func TestPolicy_AStoppedBackOffEndsARetryAfterToo(t *testing.T) {
	p := RetryPolicy{MaxRetries: Unlimited, Backoff: FromBackOff(func() BackOff {
		return backoff.WithMaxRetries(backoff.NewConstantBackOff(time.Second), 2)
	})}
	exhausted := Outcome{Action: ActionDead, Reason: ReasonExhausted}
	for _, err := range []error{errTestA, RetryAfter(0, errTestA)} {
		got, _ := run(p, slices.Repeat([]error{err}, 5)...)
		require.Len(t, got, 3)
		require.Equal(t, exhausted, got[2])
	}
}

func TestRetry_DecidesOnceAndTheInnermostPolicyDoes(t *testing.T) {
	handler := HandlerFunc(func(context.Context, *Message) ([]byte, error) { return []byte("partial"), errTestA })
	inner := RetryPolicy{Backoff: Constant(time.Minute), Jitter: NoJitter}
	outer := RetryPolicy{MaxRetries: NoRetries}
	between := func(f func(error) error) Middleware {
		return func(next Handler) Handler {
			return HandlerFunc(func(ctx context.Context, m *Message) ([]byte, error) {
				b, err := next.Process(ctx, m)
				return b, f(err)
			})
		}
	}
	for name, tc := range map[string]struct {
		f    func(error) error
		want Outcome
	}{
		"as it is":       {func(err error) error { return err }, Outcome{Action: ActionRetry, Delay: time.Minute}},
		"wrapped":        {func(err error) error { return fmt.Errorf("x: %w", err) }, Outcome{Action: ActionRetry, Delay: time.Minute}},
		"made permanent": {Permanent, Outcome{Action: ActionDead, Reason: ReasonPermanent}},
		"swallowed":      {func(error) error { return nil }, Outcome{}},
		"replaced":       {func(error) error { return errTestB }, Outcome{Action: ActionDead, Reason: ReasonExhausted}},
	} {
		t.Run(name, func(t *testing.T) {
			h := Chain(Retry(outer), between(tc.f), Retry(inner))(handler)
			result, err := h.Process(t.Context(), &Message{ID: "job"})
			require.Equal(t, "partial", string(result))
			require.Equal(t, tc.want, Disposition(err))
			if name == "wrapped" {
				require.EqualError(t, err, "x: A")
				require.ErrorIs(t, err, errTestA)
			}
			if err != nil {
				d, ok := errors.AsType[*directive](err)
				require.True(t, ok && d.decided)
			}
		})
	}
}

func TestRetry_SuccessIsNil(t *testing.T) {
	h := Retry(RetryPolicy{})(HandlerFunc(func(context.Context, *Message) ([]byte, error) { return nil, nil }))
	_, err := h.Process(t.Context(), &Message{})
	require.True(t, err == nil, "and not a typed nil")
}

func TestRetry_LeavesErrorsOfAStoppingWorkerAlone(t *testing.T) {
	for cause, decided := range map[error]bool{
		ErrShutdown: false, ErrLeaseLost: false, fmt.Errorf("x: %w", ErrShutdown): false,
		ErrTimeout: true, ErrLockLost: true,
	} {
		for _, returned := range []error{errTestA, Permanent(errTestA)} {
			ctx, cancel := context.WithCancelCause(t.Context())
			h := Retry(RetryPolicy{})(HandlerFunc(func(context.Context, *Message) ([]byte, error) {
				cancel(cause)
				return nil, returned
			}))
			_, err := h.Process(ctx, &Message{})
			if decided {
				d, ok := errors.AsType[*directive](err)
				require.True(t, ok && d.decided, "%v", cause)
			} else {
				require.True(t, err == returned, "%v: %#v", cause, err)
			}
		}
	}
}

func TestRetry_PolicyOfTheCallerMayChangeLater(t *testing.T) {
	rules := []RetryRule{{If: Is(errTestA), Policy: RetryPolicy{MaxRetries: NoRetries}}}
	h := Retry(RetryPolicy{Rules: rules})(HandlerFunc(func(context.Context, *Message) ([]byte, error) { return nil, errTestA }))
	rules[0] = RetryRule{}
	_, err := h.Process(t.Context(), &Message{})
	require.Equal(t, ReasonExhausted, Disposition(err).Reason)
}

func TestPredicates(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("x: %w", errors.Join(io.EOF, err)) }
	require.True(t, Is(errTestA, errTestB)(wrap(errTestB)))
	require.False(t, Is(errTestA)(errTestB))
	require.False(t, Is()(errTestA))
	require.True(t, As[throttled]()(wrap(throttled{})))
	require.False(t, As[throttled]()(wrap(errTestA)))
	require.True(t, As[net.Error]()(wrap(&net.DNSError{})), "an interface is a type too")

	dial := func(err error) error {
		return &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", err)}
	}
	for _, err := range []error{
		context.DeadlineExceeded, os.ErrDeadlineExceeded, ErrTimeout, io.ErrUnexpectedEOF,
		dial(syscall.ECONNREFUSED), dial(syscall.ECONNRESET), dial(syscall.ECONNABORTED), dial(syscall.EPIPE),
		dial(syscall.ETIMEDOUT), &net.DNSError{IsTimeout: true},
	} {
		require.True(t, Temporary(err), "%v", err)
		require.True(t, Temporary(wrap(Permanent(err))), "%v", err)
	}
	require.True(t, Temporary(errors.Join(&net.DNSError{IsNotFound: true}, &net.DNSError{IsTimeout: true})),
		"the timeout need not be the first network error")
	for _, err := range []error{nil, io.EOF, errTestA, context.Canceled, dial(syscall.EACCES), &net.DNSError{IsNotFound: true}} {
		require.False(t, Temporary(err), "%v", err)
	}
}
