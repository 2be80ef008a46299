package redrive

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const maxDuration = time.Duration(math.MaxInt64)

func TestBackoff_RawFollowsItsFormula(t *testing.T) {
	const s = time.Second
	for name, tc := range map[string]struct {
		backoff Backoff
		want    []time.Duration // of the retries 1, 2, …
	}{
		"constant":            {Constant(3 * s), []time.Duration{3 * s, 3 * s, 3 * s}},
		"constant zero":       {Constant(0), []time.Duration{0, 0}},
		"linear":              {Linear(2*s, 5*s), []time.Duration{2 * s, 4 * s, 5 * s, 5 * s}},
		"exponential":         {Exponential(s, 10*s), []time.Duration{s, 2 * s, 4 * s, 8 * s, 10 * s, 10 * s}},
		"meets its cap":       {Exponential(s, 4*s), []time.Duration{s, 2 * s, 4 * s, 4 * s}},
		"cap is the base":     {Exponential(s, s), []time.Duration{s, s}},
		"factor 3":            {ExponentialFactor(s, time.Minute, 3), []time.Duration{s, 3 * s, 9 * s, 27 * s, 60 * s}},
		"factor 1.5 is not 1": {ExponentialFactor(1, 100, 1.5), []time.Duration{1, 1, 2, 3, 5, 7, 11}},
		"factor 1":            {ExponentialFactor(s, time.Minute, 1), []time.Duration{s, s, s}},
		"schedule":            {Schedule(0, 5*s, s), []time.Duration{0, 5 * s, s, s, s}},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, tc.backoff.validate())
			for i, want := range tc.want {
				require.Equal(t, want, tc.backoff.raw(i+1), "retry %d", i+1)
			}
			require.Equal(t, tc.want[0], tc.backoff.raw(0), "a number below 1 is 1")
			require.Equal(t, tc.want[0], tc.backoff.raw(math.MinInt))
		})
	}
}

func TestBackoff_ExtremeValuesReachTheCapAndNotTheSign(t *testing.T) {
	for _, b := range []Backoff{
		Exponential(1, maxDuration),
		Exponential(maxDuration-1, maxDuration),
		ExponentialFactor(1, maxDuration, math.MaxFloat64),
		ExponentialFactor(1, maxDuration, 1.0001),
		Linear(1, time.Hour),
		Linear(maxDuration/2, maxDuration),
	} {
		require.NoError(t, b.validate())
		require.Equal(t, b.max, b.raw(math.MaxInt), "%+v", b)
		for n := 1; n < 200; n++ {
			require.Positive(t, b.raw(n), "%+v retry %d", b, n)
			require.LessOrEqual(t, b.raw(n), b.raw(n+1), "%+v retry %d", b, n)
		}
	}
}

func TestSchedule_KeepsItsOwnCopy(t *testing.T) {
	waits := []time.Duration{time.Second, time.Minute}
	b := Schedule(waits...)
	waits[0] = time.Hour
	require.Equal(t, time.Second, b.raw(1))
}

// The vectors pin the hash: a change would move the schedule of every job that
// waits, and break ports of it. They come from a program in another language.
func TestJitter_HashIsPinned(t *testing.T) {
	for _, tc := range []struct {
		id            string
		generation, n int
		want          float64
	}{
		{"", 0, 1, 0.2267295487348987},
		{"job-1", 0, 1, 0.7889826061327812},
		{"job-1", 0, 2, 0.6657308998571096},
		{"job-1", 1, 1, 0.4305247041811062},
		{"01890a5d-ac96-774b-bcce-b302099a8057", 3, 1000000, 0.23813883426383387},
	} {
		got := jitterUnit(jitterSeed(tc.id, tc.generation), tc.n)
		require.Equal(t, tc.want, got, "%q generation %d retry %d", tc.id, tc.generation, tc.n)
	}
}

// The hash must be even over jobs for one retry, over retries of one job, and
// independent from one retry to the next.
func TestJitter_HashIsUniform(t *testing.T) {
	const draws, cells = 20000, 20
	for name, pair := range map[string]func(i int) (float64, float64){
		"over jobs": func(i int) (float64, float64) {
			seed := jitterSeed(fmt.Sprintf("job-%d", i), 0)
			return jitterUnit(seed, 1), jitterUnit(seed, 2)
		},
		"over retries": func(i int) (float64, float64) {
			seed := jitterSeed("job", 0)
			return jitterUnit(seed, i+1), jitterUnit(seed, i+2)
		},
		"over generations": func(i int) (float64, float64) {
			return jitterUnit(jitterSeed("job", i), 1), jitterUnit(jitterSeed("job", i+1), 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var counts [cells]float64
			var covariance float64
			for i := range draws {
				u, v := pair(i)
				counts[int(u*cells)]++
				covariance += (u - 0.5) * (v - 0.5) / draws
			}
			var chi2 float64
			for _, c := range counts {
				chi2 += (c - draws/cells) * (c - draws/cells) / (draws / cells)
			}
			require.Less(t, chi2, 43.8, "19 degrees of freedom, p = 0.001")
			require.Less(t, math.Abs(covariance*12), 0.03, "correlation of neighbours")
		})
	}
}

// The recipe's defect: min(cap, base·2^n + jitter) gives every job the same wait once
// it reaches the cap.
func TestJitter_StillSpreadsAtTheCap(t *testing.T) {
	const jobs = 4000
	const limit = time.Minute
	for jitter, low := range map[Jitter]time.Duration{
		EqualJitter: limit / 2, FullJitter: time.Second, DecorrelatedJitter: time.Second,
	} {
		p := RetryPolicy{MaxRetries: 20, Backoff: Exponential(time.Second, limit), Jitter: jitter}
		last := make([]float64, jobs)
		for i := range last {
			waits := p.Preview(fmt.Sprintf("job-%d", i))
			last[i] = waits[19].Seconds()
		}
		slices.Sort(last)
		p05, p50, p95 := last[jobs/20], last[jobs/2], last[jobs-jobs/20]
		distinct := len(slices.Compact(slices.Clone(last)))
		t.Logf("%v: p05 %.1f s, p50 %.1f s, p95 %.1f s, %d distinct of %d", jitter, p05, p50, p95, distinct, jobs)
		require.GreaterOrEqual(t, last[0], low.Seconds())
		require.Less(t, last[jobs-1], limit.Seconds())
		require.Greater(t, distinct, jobs*99/100, "%v", jitter)
		// The middle 90 % of the jobs take the middle 90 % of the range, more or less:
		// they neither bunch in the middle nor at an end.
		if jitter != DecorrelatedJitter {
			require.InDelta(t, 0.9*(limit-low).Seconds(), p95-p05, 1.5, "%v", jitter)
			require.InDelta(t, (low + (limit-low)/2).Seconds(), p50, 1, "%v", jitter)
		} else {
			require.Greater(t, p95-p05, 0.8*limit.Seconds())
			require.Less(t, p95, 0.99*limit.Seconds(), "waits bunch at the cap")
		}
	}
}

func TestJitter_String(t *testing.T) {
	require.Equal(t, []string{"default", "none", "full", "equal", "decorrelated", "Jitter(9)"}, []string{
		Jitter(0).String(), NoJitter.String(), FullJitter.String(), EqualJitter.String(),
		DecorrelatedJitter.String(), Jitter(9).String(),
	})
}

// drawBackoff draws a valid Backoff of our own.
func drawBackoff(t *rapid.T) Backoff {
	wait := func(low time.Duration, label string) time.Duration {
		return rapid.OneOf(
			rapid.Map(rapid.Int64Range(0, int64(time.Hour)), func(n int64) time.Duration { return low + time.Duration(n) }),
			rapid.Map(rapid.Int64Range(int64(low), math.MaxInt64), func(n int64) time.Duration { return time.Duration(n) }),
			rapid.SampledFrom([]time.Duration{low, max(low, maxDuration-1), maxDuration}),
		).Filter(func(d time.Duration) bool { return d >= low }).Draw(t, label)
	}
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		return Constant(wait(0, "constant"))
	case 1:
		step := wait(1, "step")
		return Linear(step, wait(step, "max"))
	case 2:
		base := wait(1, "base")
		factor := rapid.OneOf(rapid.Just(1.0), rapid.Float64Range(1.001, 4), rapid.Float64Range(4, math.MaxFloat64)).Draw(t, "factor")
		return ExponentialFactor(base, wait(base, "max"), factor)
	default:
		waits := make([]time.Duration, rapid.IntRange(1, 5).Draw(t, "entries"))
		for i := range waits {
			waits[i] = wait(0, "entry")
		}
		return Schedule(waits...)
	}
}

var anyRetryNumber = rapid.OneOf(rapid.IntRange(1, 100), rapid.IntRange(1, math.MaxInt-1))

func TestBackoff_RawNeverFallsNorLeavesItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := drawBackoff(t)
		if err := b.validate(); err != nil {
			t.Fatal(err)
		}
		n := anyRetryNumber.Draw(t, "n")
		this, next := b.raw(n), b.raw(n+1)
		if this < 0 || this > b.max || b.kind != backoffSchedule && this < b.base {
			t.Fatalf("raw(%d) = %d is outside [%d, %d]", n, this, b.base, b.max)
		}
		if b.kind != backoffSchedule && next < this {
			t.Fatalf("raw(%d) = %d, raw(%d) = %d", n, this, n+1, next)
		}
	})
}

// checkWait fails unless wait keeps the bounds of its jitter for retry n.
func checkWait(t interface{ Fatalf(string, ...any) }, p RetryPolicy, n int, wait time.Duration) {
	raw := p.Backoff.raw(n)
	low, high := raw, raw
	switch p.Jitter {
	case FullJitter:
		low = min(p.Backoff.base, time.Second, raw)
	case EqualJitter:
		low = raw - raw/2
	case DecorrelatedJitter:
		low, high = p.Backoff.base, p.Backoff.max
	}
	if wait < low || wait > high {
		t.Fatalf("%+v: the wait before retry %d, %d, is outside [%d, %d]", p, n, wait, low, high)
	}
	if wait == 0 && p.Backoff.raw(n) > 0 {
		t.Fatalf("%+v: no wait before retry %d", p, n)
	}
}

func firstDelay(p RetryPolicy, id string, generation, n int) (time.Duration, bool) {
	for d := range p.delays(id, generation, n) {
		return d, true
	}
	return 0, false
}

func TestJitter_KeepsItsBoundsAndIsPure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := RetryPolicy{
			Backoff: drawBackoff(t),
			Jitter:  rapid.SampledFrom([]Jitter{NoJitter, FullJitter, EqualJitter, DecorrelatedJitter}).Draw(t, "jitter"),
		}
		n := anyRetryNumber.Draw(t, "n")
		if p.Jitter == DecorrelatedJitter {
			n = n%300 + 1 // it walks from the first
		}
		id, generation := rapid.String().Draw(t, "id"), rapid.IntRange(0, 5).Draw(t, "generation")
		wait, _ := firstDelay(p, id, generation, n)
		checkWait(t, p, n, wait)
		if again, _ := firstDelay(p, id, generation, n); again != wait {
			t.Fatalf("the same input gave %d and then %d", wait, again)
		}
	})
}

// The floor is a second also where the base is longer: a longer floor would take from
// the spread, which is what full jitter is for.
func TestJitter_FullReachesDownToASecond(t *testing.T) {
	p := RetryPolicy{MaxRetries: 1000, Backoff: Constant(100 * time.Second), Jitter: FullJitter}
	shortest := slices.Min(p.Preview("job"))
	require.GreaterOrEqual(t, shortest, time.Second)
	require.Less(t, shortest, 2*time.Second)
}

func TestJitter_DecorrelatedGrowsAtMostThreefold(t *testing.T) {
	p := RetryPolicy{MaxRetries: 50, Backoff: Exponential(time.Second, time.Hour), Jitter: DecorrelatedJitter}
	for i := range 200 {
		prev := time.Second
		for n, wait := range p.Preview(fmt.Sprintf("job-%d", i)) {
			require.GreaterOrEqual(t, wait, time.Second)
			require.LessOrEqual(t, wait, min(time.Hour, 3*prev), "retry %d", n+1)
			prev = wait
		}
	}
}

func TestRetryAfter_IsNeverEarlyAndSpreadsUpwards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.OneOf(rapid.Int64Range(0, int64(time.Hour)), rapid.Int64(),
			rapid.Int64Range(math.MaxInt64-int64(time.Minute), math.MaxInt64)).Draw(t, "d"))
		id, n := rapid.String().Draw(t, "id"), anyRetryNumber.Draw(t, "n")
		p := RetryPolicy{}.withDefaults()
		got := p.spread(d, id, 0, n)
		if d <= 0 {
			if got != 0 {
				t.Fatalf("%v is not now", got)
			}
			return
		}
		if got < d || got-d > min(d/10, 30*time.Second) {
			t.Fatalf("asked %d, got %d", d, got)
		}
		p.Jitter = NoJitter
		if got := p.spread(d, id, 0, n); got != d {
			t.Fatalf("asked %d without jitter, got %d", d, got)
		}
	})

	p := RetryPolicy{}.withDefaults()
	var waits []time.Duration
	for i := range 1000 {
		waits = append(waits, p.spread(time.Minute, fmt.Sprint(i), 0, 1))
	}
	require.Greater(t, slices.Max(waits)-slices.Min(waits), 5*time.Second, "jobs told the same d stay together")
}

// countdown is a BackOff that gives 3, 2, 1 and then stops. It starts used up, so
// that only Reset makes it right.
type countdown struct{ left int }

func (c *countdown) Reset() { c.left = 3 }
func (c *countdown) NextBackOff() time.Duration {
	if c.left == 0 {
		return backoff.Stop
	}
	c.left--
	return time.Duration(c.left + 1)
}

func TestFromBackOff_WaitIsTheNthOfAFreshOne(t *testing.T) {
	p := RetryPolicy{
		MaxRetries: Unlimited,
		Jitter:     FullJitter,
		Backoff:    FromBackOff(func() BackOff { return new(countdown) }),
	}
	require.Equal(t, []time.Duration{3, 2, 1}, p.Preview("job"), "no jitter on top, and Stop ends it")
	for n, want := range map[int]time.Duration{1: 3, 2: 2, 3: 1} {
		got, ok := firstDelay(p, "job", 0, n)
		require.True(t, ok)
		require.Equal(t, want, got)
	}
	_, ok := firstDelay(p, "job", 0, 4)
	require.False(t, ok)
}

func FuzzBackoffBounds(f *testing.F) {
	f.Add(uint8(2), uint8(3), int64(time.Second), int64(time.Hour), 2.0, "job", 0, 7)
	f.Add(uint8(2), uint8(2), int64(1), int64(math.MaxInt64), math.MaxFloat64, "", -1, math.MaxInt)
	f.Add(uint8(1), uint8(4), int64(math.MaxInt64-1), int64(math.MaxInt64), 0.0, "j", 9, 300)
	f.Add(uint8(3), uint8(1), int64(0), int64(-5), math.NaN(), "j", 0, 2)
	f.Fuzz(func(t *testing.T, kind, jitter uint8, a, b int64, factor float64, id string, generation, n int) {
		p := RetryPolicy{Jitter: Jitter(jitter)}
		switch kind % 4 {
		case 0:
			p.Backoff = Constant(time.Duration(a))
		case 1:
			p.Backoff = Linear(time.Duration(a), time.Duration(b))
		case 2:
			p.Backoff = ExponentialFactor(time.Duration(a), time.Duration(b), factor)
		case 3:
			p.Backoff = Schedule(time.Duration(a), time.Duration(b))
		}
		if p.validate() != nil {
			if waits := p.Preview(id); waits != nil {
				t.Fatalf("an invalid policy waits %v", waits)
			}
			return
		}
		p = p.withDefaults()
		n = max(n, 1)
		if p.Jitter == DecorrelatedJitter {
			n = n%300 + 1 // it walks from the first
		}
		wait, ok := firstDelay(p, id, generation, n)
		if !ok {
			t.Fatal("the waits ended")
		}
		checkWait(t, p, n, wait)
		if again, _ := firstDelay(p, id, generation, n); again != wait {
			t.Fatalf("the same input gave %d and then %d", wait, again)
		}
	})
}
