package redrive

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"
)

// Backoff says how long to wait before the n-th retry, before [Jitter] spreads
// the waits of different jobs. It is an immutable value: policies may share it.
// Make one with [Constant], [Linear], [Exponential], [ExponentialFactor],
// [Schedule] or [FromBackOff]. The zero value stands for the default,
// Exponential(time.Second, 10*time.Minute).
type Backoff struct {
	kind   backoffKind
	base   time.Duration // the shortest wait; of a schedule, the shortest that is not zero
	max    time.Duration // the longest wait
	factor float64       // exponential only
	waits  []time.Duration
	fresh  func() BackOff
}

type backoffKind uint8

const (
	backoffUnset backoffKind = iota
	backoffConstant
	backoffLinear
	backoffExponential
	backoffSchedule
	backoffForeign
)

// BackOff is the part of the interface of github.com/cenkalti/backoff that
// [FromBackOff] adapts.
type BackOff interface {
	// NextBackOff returns the next wait; a negative one ends the retries.
	NextBackOff() time.Duration
	// Reset goes back to the first wait.
	Reset()
}

// Constant waits d before every retry. Zero is allowed and means at once; with
// a job that keeps failing that is a hot loop, which only MaxRetries ends.
func Constant(d time.Duration) Backoff {
	return Backoff{kind: backoffConstant, base: d, max: d}
}

// Linear waits n·step before the n-th retry, and never longer than max.
// The step must be positive, and max at least the step.
func Linear(step, max time.Duration) Backoff {
	return Backoff{kind: backoffLinear, base: step, max: max}
}

// Exponential waits base·2^(n-1) before the n-th retry, and never longer than
// max. The base must be positive, and max at least the base.
func Exponential(base, max time.Duration) Backoff { return ExponentialFactor(base, max, 2) }

// ExponentialFactor is [Exponential] with another factor: base·factor^(n-1),
// never longer than max. The factor must be at least 1; at 1 the wait is the
// base for ever.
func ExponentialFactor(base, max time.Duration, factor float64) Backoff {
	return Backoff{kind: backoffExponential, base: base, max: max, factor: factor}
}

// Schedule waits the n-th of the given durations before the n-th retry, and the
// last of them before every later one. It needs at least one, none negative; a
// zero is taken at its word and retries at once.
func Schedule(waits ...time.Duration) Backoff {
	b := Backoff{kind: backoffSchedule, waits: slices.Clone(waits)}
	for _, w := range waits {
		if w > 0 && (b.base == 0 || w < b.base) {
			b.base = w
		}
		b.max = max(b.max, w)
	}
	return b
}

// FromBackOff waits what a [BackOff] says, for instance one of
// github.com/cenkalti/backoff. The wait before the n-th retry is the n-th
// NextBackOff of a BackOff that fresh has just made and that was Reset, so fresh
// must be safe for concurrent use and must not return nil; it is also called
// once when the policy is checked. A negative wait (backoff.Stop) ends the
// retries: the job becomes a dead letter with [ReasonExhausted].
//
// The policy's [Jitter] is not applied on top. A BackOff that draws its own
// jitter draws anew each time, so [RetryPolicy.Preview] then shows an example of
// the waits and not the waits. MaxElapsedTime of backoff.ExponentialBackOff
// measures the age of the BackOff, not of the job: bound a job's age with
// [TaskOptions.MaxAge].
func FromBackOff(fresh func() BackOff) Backoff {
	return Backoff{kind: backoffForeign, fresh: fresh}
}

func (b Backoff) validate() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf("Backoff: "+format, args...)) }
	switch b.kind {
	case backoffConstant:
		if b.base < 0 {
			add("constant wait %v is negative", b.base)
		}
	case backoffLinear, backoffExponential:
		if b.base <= 0 {
			add("base %v is not positive", b.base)
		}
		if b.max < b.base {
			add("max %v is below the base %v", b.max, b.base)
		}
		if b.kind == backoffExponential && !(b.factor >= 1 && b.factor <= math.MaxFloat64) {
			add("factor %v is not a number of at least 1", b.factor)
		}
	case backoffSchedule:
		if len(b.waits) == 0 {
			add("the schedule is empty")
		}
		for i, w := range b.waits {
			if w < 0 {
				add("wait %d of the schedule, %v, is negative", i+1, w)
			}
		}
	case backoffForeign:
		if b.fresh == nil {
			add("FromBackOff has no function")
		} else if b.fresh() == nil {
			add("the function of FromBackOff returns nil")
		}
	}
	return errors.Join(errs...)
}

// raw returns the wait before retry n (from 1) without jitter. It never falls as
// n grows, except where a schedule does.
func (b Backoff) raw(n int) time.Duration {
	n = max(n, 1)
	switch b.kind {
	case backoffLinear:
		// A division cannot overflow where step·n would.
		if int64(n) > int64(b.max/b.base) {
			return b.max
		}
		return b.base * time.Duration(n)
	case backoffExponential:
		// Compared in float64 and converted once: the product may reach +Inf, never NaN,
		// and what is below max fits.
		if f := float64(b.base) * math.Pow(b.factor, float64(n-1)); f < float64(b.max) {
			return max(b.base, time.Duration(f)) // above 2^53 ns a float64 rounds
		}
		return b.max
	case backoffSchedule:
		return b.waits[min(n, len(b.waits))-1]
	default:
		return b.base
	}
}

// Jitter says how a wait is spread at random, so that jobs that failed together
// do not come back together. The formulas are those of "Exponential Backoff And
// Jitter" (AWS Architecture Blog, 2015) with three repairs: no wait is drawn as
// zero, the default keeps its spread at the cap, and DecorrelatedJitter does not
// bunch there. U(a, b) is uniform between a and b.
//
// The randomness is a hash of the job's ID, its generation and the number of the
// retry: other jobs draw other waits, the same job draws the same ones again.
// The zero value stands for the default, [EqualJitter].
type Jitter uint8

const (
	// NoJitter waits exactly what the backoff says, and exactly what [RetryAfter] asks.
	NoJitter Jitter = iota + 1
	// FullJitter draws U(floor, raw) with floor = min(base, 1s): the widest spread.
	// The floor keeps a retry from being a hot loop.
	FullJitter
	// EqualJitter draws raw/2 + U(0, raw/2). It is the default: at the cap half of
	// the wait is still spread, and no wait is shorter than half of what the
	// backoff says.
	EqualJitter
	// DecorrelatedJitter draws U(base, min(max, 3·prev)), where prev is the wait
	// before, at first the base. It takes no more than the shortest and the longest
	// wait from the backoff, so with [Constant] it spreads nothing. Because a draw
	// above max is not cut to max, waits do not bunch at the cap.
	DecorrelatedJitter
)

// String returns the name in lower case, such as "equal".
func (j Jitter) String() string {
	switch j {
	case 0:
		return "default"
	case NoJitter:
		return "none"
	case FullJitter:
		return "full"
	case EqualJitter:
		return "equal"
	case DecorrelatedJitter:
		return "decorrelated"
	}
	return fmt.Sprintf("Jitter(%d)", uint8(j))
}

// delays yields the waits before the retries from, from+1, … (from 1) of a job,
// without end unless a BackOff stops. The receiver has its defaults.
func (p *RetryPolicy) delays(jobID string, generation, from int) iter.Seq[time.Duration] {
	b := p.Backoff
	return func(yield func(time.Duration) bool) {
		if b.kind == backoffForeign {
			foreign := b.fresh()
			if foreign == nil {
				return
			}
			foreign.Reset()
			for n := 1; ; n++ {
				d := foreign.NextBackOff()
				if d < 0 || n >= from && !yield(d) {
					return
				}
			}
		}
		seed := jitterSeed(jobID, generation)
		if p.Jitter == DecorrelatedJitter {
			// Each wait depends on the one before. Starting over from the first one
			// instead of storing it is what keeps the wait a pure function of n.
			d := b.base
			for n := 1; ; n++ {
				limit := b.max
				if d <= b.max/3 {
					limit = 3 * d
				}
				d = uniform(b.base, limit, jitterUnit(seed, n))
				if n >= from && !yield(d) {
					return
				}
			}
		}
		for n := from; ; n++ {
			raw := b.raw(n)
			low := raw
			switch p.Jitter {
			case FullJitter:
				low = min(b.base, time.Second, raw)
			case EqualJitter:
				low = raw - raw/2 // rounded up: half of 1 ns is not 0
			}
			if !yield(uniform(low, raw, jitterUnit(seed, n))) {
				return
			}
		}
	}
}

// spread returns the wait for a retry that was asked for after d: never earlier,
// and later by U(0, min(d/10, 30s)), because a server that throttles tells every
// job the same d.
func (p *RetryPolicy) spread(d time.Duration, jobID string, generation, n int) time.Duration {
	if d <= 0 {
		return 0
	}
	if p.Jitter == NoJitter {
		return d
	}
	extra := min(d/10, 30*time.Second, math.MaxInt64-d)
	return d + uniform(0, extra, jitterUnit(jitterSeed(jobID, generation), n))
}

// uniform maps u in [0, 1) to [low, high).
func uniform(low, high time.Duration, u float64) time.Duration {
	// The length can round up to a float64 above it, hence min.
	return low + min(time.Duration(u*float64(high-low)), high-low)
}

// jitterSeed and jitterUnit make the u of the jitter formulas. They are fixed, and
// simple enough for another language to predict the same schedule: FNV-1a 64 over
// the job's ID, the generation and the number of the retry (from 1), both as 8
// bytes little-endian; then the finaliser of splitmix64, because FNV-1a leaves the
// last bytes in too few of the high bits; then the high 53 bits as a fraction.
func jitterSeed(jobID string, generation int) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(jobID) {
		h = (h ^ uint64(jobID[i])) * fnvPrime
	}
	return fnvInt(h, generation)
}

func jitterUnit(seed uint64, n int) float64 {
	z := fnvInt(seed, n)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	return float64(z>>11) / (1 << 53)
}

const fnvPrime = 1099511628211

func fnvInt(h uint64, n int) uint64 {
	for v, i := uint64(n), 0; i < 8; v, i = v>>8, i+1 {
		h = (h ^ v&0xff) * fnvPrime
	}
	return h
}
