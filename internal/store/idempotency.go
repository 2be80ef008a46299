package store

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed lua/idem_claim.lua
	idemClaimLua string
	//go:embed lua/idem_extend.lua
	idemExtendLua string
	//go:embed lua/idem_complete.lua
	idemCompleteLua string
	//go:embed lua/idem_release.lua
	idemReleaseLua string

	idemClaimScript    = redis.NewScript(idemClaimLua)
	idemExtendScript   = redis.NewScript(idemExtendLua)
	idemCompleteScript = redis.NewScript(idemCompleteLua)
	idemReleaseScript  = redis.NewScript(idemReleaseLua)
)

// Idempotency keeps one record per effect.
type Idempotency struct {
	q Queue // runs the scripts
}

// OpenIdempotency returns the records in rdb.
func OpenIdempotency(rdb redis.UniversalClient) *Idempotency {
	return &Idempotency{q: Queue{rdb: rdb}}
}

// EffectClaim is the claim of one attempt of a job on an effect.
type EffectClaim struct {
	// Prefix and Task, valid names, and Key, any text, name the effect.
	Prefix, Task, Key string
	// Owner is the job; a later Attempt of it has a higher number.
	Owner   string
	Attempt int64
	// Fingerprint is what jobs of the same key have in common.
	Fingerprint string
	// Fence is what Claim returned.
	Fence int64
	// Lease is how long the claim holds; TTL how long the record is kept after that
	// or after the completion.
	Lease, TTL time.Duration
}

// EffectState says how a claim went.
type EffectState string

// The states of an effect, as a claim finds them.
const (
	EffectClaimed   EffectState = "claimed"
	EffectDone      EffectState = "done"
	EffectDoneBare  EffectState = "bare" // done, and no result is kept
	EffectBusy      EffectState = "busy"
	EffectReused    EffectState = "reused"
	EffectOvertaken EffectState = "overtaken"
)

// Claim claims the effect. fence is set when it is claimed; text is the result of
// an effect that is done, or the reason why none is kept.
func (s *Idempotency) Claim(ctx context.Context, c *EffectClaim) (state EffectState, fence int64, text []byte, err error) {
	const op = "claim"
	res, err := s.run(ctx, op, idemClaimScript, c, c.Owner, c.Attempt, c.Fingerprint, ceilMillis(c.Lease), ceilMillis(c.Lease+c.TTL))
	if err != nil {
		return "", 0, nil, err
	}
	list, _ := res.([]any)
	r := readReply(res, len(list))
	switch state = EffectState(r.text()); state {
	case EffectClaimed:
		fence = r.token()
	case EffectDone, EffectDoneBare:
		text = []byte(r.text())
	case EffectBusy, EffectReused, EffectOvertaken:
	default:
		r.bad = true
	}
	if r.bad || len(r.list) > 0 {
		return "", 0, nil, malformedEffect(op, res)
	}
	return state, fence, text, nil
}

// Extend renews the lease. held is false when the claim is not the record's.
func (s *Idempotency) Extend(ctx context.Context, c *EffectClaim) (held bool, err error) {
	return s.fenced(ctx, "extend", idemExtendScript, c, ceilMillis(c.Lease), ceilMillis(c.Lease+c.TTL))
}

// Complete records that the effect is done, with its result, or with the reason
// why none is kept. held is false when the claim is not the record's.
func (s *Idempotency) Complete(ctx context.Context, c *EffectClaim, result []byte, why string) (held bool, err error) {
	if why != "" {
		return s.fenced(ctx, "complete", idemCompleteScript, c, ceilMillis(c.TTL), string(EffectDoneBare), why)
	}
	return s.fenced(ctx, "complete", idemCompleteScript, c, ceilMillis(c.TTL), string(EffectDone), result)
}

// Release gives the claim up. It does nothing when the claim is not running.
func (s *Idempotency) Release(ctx context.Context, c *EffectClaim) error {
	_, err := s.fenced(ctx, "release", idemReleaseScript, c)
	return err
}

func (s *Idempotency) fenced(ctx context.Context, op string, script *redis.Script, c *EffectClaim, args ...any) (bool, error) {
	res, err := s.run(ctx, op, script, c, append([]any{c.Owner, c.Attempt, c.Fence}, args...)...)
	if err != nil {
		return false, err
	}
	held, ok := yes(res)
	if !ok {
		return false, malformedEffect(op, res)
	}
	return held, nil
}

// run leaves it to the caller to name the key in an error.
func (s *Idempotency) run(ctx context.Context, op string, script *redis.Script, c *EffectClaim, args ...any) (any, error) {
	res, err := s.q.run(ctx, script, []string{idempotencyKey(c.Prefix, c.Task, c.Key)}, args)
	if err != nil {
		if replied(err, "OOM") {
			err = fmt.Errorf("%w: %w", ErrFull, err)
		}
		return nil, fmt.Errorf("%s the idempotency key: %w", op, err)
	}
	return res, nil
}

func malformedEffect(op string, reply any) error {
	return fmt.Errorf("%s the idempotency key: unexpected reply %T %.200v", op, reply, reply)
}
