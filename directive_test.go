package redrive

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/require"
)

// throttled is an error of a client library that says when to come back.
type throttled struct{ after time.Duration }

func (e throttled) Error() string             { return fmt.Sprintf("throttled for %v", e.after) }
func (e throttled) RetryAfter() time.Duration { return e.after }

// converts hides a throttled that only its As method shows.
type converts struct{ to throttled }

func (e converts) Error() string { return "converts" }
func (e converts) As(target any) bool {
	t, ok := target.(*interface{ RetryAfter() time.Duration })
	if ok {
		*t = e.to
	}
	return ok
}

func TestDisposition(t *testing.T) {
	const m = time.Minute
	plain := errors.New("plain")
	wrap := func(err error) error { return fmt.Errorf("context: %w", err) }
	var (
		done    = Outcome{}
		retry   = Outcome{Action: ActionRetry}
		after   = Outcome{Action: ActionRetryAfter, Delay: m}
		snooze  = Outcome{Action: ActionSnooze, Delay: m}
		dead    = Outcome{Action: ActionDead, Reason: ReasonPermanent}
		discard = Outcome{Action: ActionDiscard}
	)
	for name, tc := range map[string]struct {
		err  error
		want Outcome
	}{
		"nil":                    {nil, done},
		"plain":                  {plain, retry},
		"RetryAfter":             {RetryAfter(m, plain), after},
		"RetryAfter nil":         {RetryAfter(m, nil), after},
		"RetryAfter in the past": {RetryAfter(-m, plain), Outcome{Action: ActionRetryAfter}},
		"Snooze":                 {Snooze(m), snooze},
		"Snooze in the past":     {Snooze(-m), Outcome{Action: ActionSnooze}},
		"Permanent":              {Permanent(plain), dead},
		"Permanent nil":          {Permanent(nil), done},
		"Discard":                {Discard(plain), discard},
		"Discard nil":            {Discard(nil), done},
		"own reason": {permanentReason(ReasonKeyReused, plain),
			Outcome{Action: ActionDead, Reason: ReasonKeyReused}},

		"wrapped once":  {wrap(Permanent(plain)), dead},
		"wrapped twice": {wrap(wrap(Snooze(m))), snooze},
		"joined":        {errors.Join(plain, Discard(plain)), discard},
		"two %w":        {fmt.Errorf("%w and %w", plain, RetryAfter(m, plain)), after},
		"joined deep":   {wrap(errors.Join(plain, wrap(errors.Join(io.EOF, Snooze(m))))), snooze},

		"outermost: Permanent of RetryAfter":  {Permanent(RetryAfter(m, plain)), dead},
		"outermost: RetryAfter of Permanent":  {RetryAfter(m, wrap(Permanent(plain))), after},
		"outermost: Discard of Permanent":     {Discard(wrap(Permanent(plain))), discard},
		"outermost: Permanent of Discard":     {wrap(Permanent(wrap(Discard(plain)))), dead},
		"joined: the first":                   {errors.Join(Snooze(m), Permanent(plain)), snooze},
		"joined: the first, though it nests":  {errors.Join(wrap(Discard(plain)), Permanent(plain)), discard},
		"joined: the first before the deeper": {errors.Join(wrap(wrap(Snooze(m))), Permanent(plain)), snooze},

		"backoff.Permanent":                       {backoff.Permanent(plain), dead},
		"backoff.Permanent wrapped":               {wrap(backoff.Permanent(plain)), dead},
		"backoff.Permanent under a directive":     {RetryAfter(m, backoff.Permanent(plain)), after},
		"backoff.Permanent over a directive":      {backoff.Permanent(RetryAfter(m, plain)), after},
		"backoff.Permanent joined before":         {errors.Join(backoff.Permanent(plain), Discard(plain)), discard},
		"hint":                                    {throttled{m}, after},
		"hint wrapped":                            {wrap(throttled{m}), after},
		"hint of zero is none":                    {throttled{0}, retry},
		"hint below zero is none":                 {throttled{-m}, retry},
		"the second hint, as the first is none":   {errors.Join(throttled{0}, throttled{m}), after},
		"the first hint":                          {errors.Join(throttled{m}, throttled{2 * m}), after},
		"hint by an As method":                    {wrap(converts{throttled{m}}), after},
		"hint after backoff.Permanent":            {errors.Join(throttled{m}, backoff.Permanent(plain)), dead},
		"hint inside a directive":                 {Permanent(throttled{m}), dead},
		"hint before a directive":                 {errors.Join(throttled{2 * m}, RetryAfter(m, plain)), after},
		"RetryAfter 0 is a directive and no hint": {RetryAfter(0, throttled{m}), Outcome{Action: ActionRetryAfter}},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, Disposition(tc.err)) })
	}
}

func TestDirectives_AreTransparent(t *testing.T) {
	cause := fmt.Errorf("read: %w", io.ErrUnexpectedEOF)
	for name, err := range map[string]error{
		"RetryAfter": RetryAfter(time.Second, cause), "Permanent": Permanent(cause), "Discard": Discard(cause),
		"decided": decide(&RetryPolicy{}, &Message{}, cause),
	} {
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, name)
		require.EqualError(t, err, "read: unexpected EOF", name)
	}
	require.ErrorAs(t, Permanent(throttled{1}), new(throttled))
	require.EqualError(t, RetryAfter(0, nil), "redrive: the handler asked for a retry")
	require.EqualError(t, Snooze(0), "redrive: the handler snoozed the job")
	require.NoError(t, Permanent(nil))
	require.NoError(t, Discard(nil))
}

// I13: the text of a broken error is that error's own problem.
func TestDirectives_TextOfAPanickingError(t *testing.T) {
	var typedNil *throttled
	for _, err := range []error{typedNil, &backoff.PermanentError{}} {
		require.Contains(t, Permanent(err).Error(), "panicked")
	}
}

func TestAction_String(t *testing.T) {
	var names []string
	for a := ActionDone; a <= ActionRelease+1; a++ {
		names = append(names, a.String())
	}
	require.Equal(t, []string{"done", "retry", "retry-after", "snooze", "dead", "discard", "release", "Action(7)"}, names)
}

// errorTree builds an error from bytes and lists, outermost first, what each of its
// parts asks for.
type errorTree struct {
	bytes []byte
	parts []treePart
}

type treePart struct {
	level int // 0: our own directives, 1: backoff.Permanent, 2: hints
	want  Outcome
}

func (b *errorTree) next() byte {
	if len(b.bytes) == 0 {
		return 0
	}
	c := b.bytes[0]
	b.bytes = b.bytes[1:]
	return c
}

func (b *errorTree) build(depth int) error {
	op, arg := b.next(), b.next()
	d := time.Duration(int8(arg)) * time.Second
	delay := max(d, 0)
	part := func(level int, want Outcome) { b.parts = append(b.parts, treePart{level, want}) }
	if depth == 0 {
		op %= 5
	}
	switch op % 12 {
	case 0:
		return errors.New("leaf")
	case 1:
		part(0, Outcome{Action: ActionSnooze, Delay: delay})
		return Snooze(d)
	case 2:
		part(0, Outcome{Action: ActionRetryAfter, Delay: delay})
		return RetryAfter(d, nil)
	case 3:
		if d > 0 {
			part(2, Outcome{Action: ActionRetryAfter, Delay: d})
		}
		return throttled{d}
	case 4:
		part(1, Outcome{Action: ActionDead, Reason: ReasonPermanent})
		return &backoff.PermanentError{} // its Error panics
	case 5:
		return fmt.Errorf("wrap: %w", b.build(depth-1))
	case 6:
		part(0, Outcome{Action: ActionDead, Reason: ReasonPermanent})
		return Permanent(b.build(depth - 1))
	case 7:
		part(0, Outcome{Action: ActionDiscard})
		return Discard(b.build(depth - 1))
	case 8:
		part(0, Outcome{Action: ActionRetryAfter, Delay: delay})
		return RetryAfter(d, b.build(depth-1))
	case 9:
		part(1, Outcome{Action: ActionDead, Reason: ReasonPermanent})
		return backoff.Permanent(b.build(depth - 1))
	default:
		errs := make([]error, arg%4)
		for i := range errs {
			errs[i] = b.build(depth - 1)
		}
		if op%12 == 10 {
			return joined(errs)
		}
		return errors.Join(append(errs, errors.New("joined"))...)
	}
}

// joined is a multi-error that, unlike errors.Join, may be empty and hold nils.
type joined []error

func (j joined) Error() string   { return "joined" }
func (j joined) Unwrap() []error { return append([]error{nil}, j...) }

func (b *errorTree) want() Outcome {
	for level := range 3 {
		for _, p := range b.parts {
			if p.level == level {
				return p.want
			}
		}
	}
	return Outcome{Action: ActionRetry}
}

// FuzzDirectives builds random trees of errors: nothing panics, the outermost
// directive wins, and a decision is the same however often it is made.
func FuzzDirectives(f *testing.F) {
	f.Add([]byte{0, 0})
	f.Add([]byte{6, 0, 8, 60, 0, 0})
	f.Add([]byte{11, 3, 0, 0, 5, 0, 1, 30, 7, 0, 0, 0})
	f.Add([]byte{9, 0, 10, 2, 3, 200, 3, 5})
	f.Add([]byte{5, 0, 4, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		b := &errorTree{bytes: data}
		err := b.build(6)
		want := b.want()
		if got := Disposition(err); got != want {
			t.Fatalf("%#v: got %+v, want %+v", err, got, want)
		}

		p := RetryPolicy{MaxRetries: Unlimited, Jitter: NoJitter, Backoff: Constant(time.Hour)}.withDefaults()
		m := &Message{ID: "job", Retries: 3}
		switch want.Action {
		case ActionRetry:
			want.Delay = time.Hour
		case ActionRetryAfter:
			want.Action = ActionRetry
		}
		decided := decide(&p, m, err)
		if got := Disposition(decided); got != want {
			t.Fatalf("%#v: decided %+v, want %+v", err, got, want)
		}
		if decided.Error() != errorText(err) {
			t.Fatalf("the text changed from %q to %q", errorText(err), decided.Error())
		}
		other := RetryPolicy{MaxRetries: NoRetries}.withDefaults()
		if again := decide(&other, m, errors.Join(decided)); Disposition(again) != want || !again.decided {
			t.Fatalf("%#v: decided again, %+v", err, again)
		}
		if got := Disposition(RetryAfter(time.Second, decided)); got.Action != ActionRetryAfter {
			t.Fatalf("a directive around the decision loses: %+v", got)
		}
	})
}
