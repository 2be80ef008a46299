package redrive

import (
	"errors"
	"math"
	"math/big"
	"testing"
	"time"
)

// exactWait is the wait before a retry by exact arithmetic: base·factor^(n-1) or
// n·step, and never more than max.
func exactWait(linear bool, base, max time.Duration, factor float64, n int) *big.Float {
	exact := func(x float64) *big.Float { return new(big.Float).SetPrec(400).SetFloat64(x) }
	limit := exact(0).SetInt64(int64(max))
	wait := exact(0).SetInt64(int64(base))
	if linear {
		wait.Mul(wait, exact(float64(n)))
	} else {
		for range n - 1 {
			if wait.Mul(wait, exact(factor)); wait.Cmp(limit) > 0 {
				break
			}
		}
	}
	if wait.Cmp(limit) > 0 {
		return limit
	}
	return wait
}

// FuzzBackoffGrows: without jitter the wait is the formula's, cut to the longest, and
// a later retry never waits less.
func FuzzBackoffGrows(f *testing.F) {
	f.Add(false, int64(time.Second), int64(time.Hour), 2.0, uint16(7))
	f.Add(true, int64(time.Second), int64(time.Hour), 1.0, uint16(3600))
	f.Add(false, int64(1), int64(math.MaxInt64), 1.0000001, uint16(900))
	f.Add(false, int64(3), int64(math.MaxInt64-1), math.MaxFloat64, uint16(2))
	f.Add(true, int64(math.MaxInt64), int64(math.MaxInt64), 0.0, uint16(2))
	f.Add(false, int64(1)<<53+1, int64(math.MaxInt64), 1.0, uint16(1))
	f.Fuzz(func(t *testing.T, linear bool, base, max int64, factor float64, retry uint16) {
		b := ExponentialFactor(time.Duration(base), time.Duration(max), factor)
		if linear {
			b = Linear(time.Duration(base), time.Duration(max))
		}
		p := RetryPolicy{MaxRetries: Unlimited, Jitter: NoJitter, Backoff: b}
		if p.validate() != nil {
			return
		}
		p = p.withDefaults()
		n := int(retry%2000) + 1
		wait, _ := firstDelay(p, "job", 0, n)
		next, _ := firstDelay(p, "job", 0, n+1)
		if next < wait || wait < b.base || next > b.max {
			t.Fatalf("%+v: retry %d waits %d, the next one %d", b, n, wait, next)
		}
		if last, _ := firstDelay(p, "job", 0, math.MaxInt); last < next {
			t.Fatalf("%+v: retry %d waits %d, the last one %d", b, n+1, next, last)
		}
		want := exactWait(linear, b.base, b.max, factor, n)
		off, _ := new(big.Float).Sub(want, new(big.Float).SetInt64(int64(wait))).Float64()
		whole, _ := want.Float64()
		// A float64 has 53 bits and loses up to one in each power.
		if math.Abs(off) > 1+whole*float64(n)*0x1p-52 {
			t.Fatalf("%+v: retry %d waits %d and not %.0f", b, n, wait, whole)
		}
	})
}

// FuzzRetryAfter: a wait that was asked for is never cut short, is spread by a
// tenth and half a minute at most, and is the same each time.
func FuzzRetryAfter(f *testing.F) {
	f.Add(int64(time.Minute), "job", 0, 3, uint8(3))
	f.Add(int64(math.MaxInt64), "job", -1, 0, uint8(2))
	f.Add(int64(-1), "", 0, -7, uint8(4))
	f.Add(int64(9), "job", 1, math.MaxInt, uint8(1))
	f.Fuzz(func(t *testing.T, asked int64, id string, generation, retries int, jitter uint8) {
		p := RetryPolicy{MaxRetries: Unlimited, Jitter: Jitter(jitter % 5), Backoff: Constant(time.Hour)}.withDefaults()
		if p.Jitter == DecorrelatedJitter {
			retries %= 300 // it walks from the first
		}
		if retries >= math.MaxInt-1 {
			retries-- // nobody gets that far
		}
		m := &Message{ID: id, Generation: generation, Retries: retries}
		d := time.Duration(asked)
		got := Disposition(decide(&p, m, RetryAfter(d, errors.New("busy"))))
		low := max(d, 0)
		high := low
		if p.Jitter != NoJitter {
			high += min(low/10, 30*time.Second, math.MaxInt64-low)
		}
		if got.Action != ActionRetry || got.Delay < low || got.Delay > high {
			t.Fatalf("asked for %d, got %+v, outside [%d, %d]", d, got, low, high)
		}
		if again := Disposition(decide(&p, m, RetryAfter(d, errors.New("another")))); again != got {
			t.Fatalf("the same input gave %+v and then %+v", got, again)
		}
	})
}
