package redrive

import (
	"context"
	"fmt"
	"time"

	"github.com/redrive-go/redrive/internal/store"
)

// IdempotencyStore keeps a record of each effect: [Idempotent] uses Redis, and a
// store in the database that holds the effect can commit both in one transaction.
//
// Each method is one atomic step, and the step's conditions are checked in it. A
// call may be repeated with the same arguments, after an answer that was lost, and
// then has no further effect and gets the same answer. Calls are concurrent. A
// lease is measured by the store's own clock. A method that returns an error other
// than those named may have done its step or not; timeouts and lost connections
// (net.Error, io.EOF, context.DeadlineExceeded) are tried again, other errors are
// the job's.
type IdempotencyStore interface {
	// Claim makes c the claim on its effect, and returns an IdempotencyClaimed
	// record with a fence that is higher than those of all earlier claims, if
	//   - there is no record, or its TTL has passed;
	//   - c's own attempt holds the claim: then it gets the same fence again;
	//   - an earlier attempt of c's owner holds the claim;
	//   - the lease of the claim has lapsed and the fingerprint is c's.
	//
	// Else it changes nothing. The record of a completed effect is returned as it is;
	// a running one of another owner is returned as IdempotencyBusy. It returns
	// ErrKeyReused if the record has another fingerprint, whatever its state, unless
	// it is running and c's owner holds it; ErrClaimLost if a later attempt of c's
	// owner holds it.
	Claim(ctx context.Context, c IdempotencyClaim) (IdempotencyRecord, error)
	// Extend makes the lease of a running claim end c.Lease from now. It returns
	// ErrClaimLost unless the record is running and its owner, attempt and fence are
	// c's.
	Extend(ctx context.Context, c IdempotencyClaim) error
	// Complete turns the claim into a completed effect, which is kept for c.TTL from
	// now. A lease that has lapsed does not matter as long as nobody took over. It
	// returns ErrClaimLost unless the owner, attempt and fence are c's. If the
	// handler has completed the record itself, Complete may add the result to it.
	Complete(ctx context.Context, c IdempotencyClaim, r IdempotencyRecord) error
	// Release deletes the record if it is running and its owner, attempt and fence
	// are c's; else it does nothing. A completed effect stays.
	Release(ctx context.Context, c IdempotencyClaim) error
}

// IdempotencyClaim is the claim of one attempt of a job on an effect.
type IdempotencyClaim struct {
	// Prefix, Task and Key name the effect. The key is any text of up to
	// [MaxIdempotencyKey] bytes.
	Prefix, Task, Key string
	// Owner names the job: its queue and ID.
	Owner string
	// Attempt is one attempt of the owner; a later one has a higher number.
	Attempt int64
	// Fingerprint stands for the task and the payload: a SHA-256 in hex.
	Fingerprint string
	// Fence grows with every claim on the effect. Pass it on to a system that can
	// refuse a lower one than it has seen. Zero in a call of Claim.
	Fence int64
	// Lease and TTL are those of [IdempotencyOptions].
	Lease, TTL time.Duration
}

// IdempotencyState is where an effect stands.
type IdempotencyState uint8

const (
	// IdempotencyClaimed: the claim is the caller's.
	IdempotencyClaimed IdempotencyState = iota + 1
	// IdempotencyBusy: another job's claim is live.
	IdempotencyBusy
	// IdempotencyDone: the effect is done.
	IdempotencyDone
)

// IdempotencyRecord is what a store knows of an effect.
type IdempotencyRecord struct {
	// State is where the effect stands.
	State IdempotencyState
	// Fence is that of the claim, for IdempotencyClaimed.
	Fence int64
	// Result is the handler's encoded result, for IdempotencyDone.
	Result []byte
	// NoResult says why an effect that is done has no result. Empty if it has one,
	// if only one of zero bytes.
	NoResult string
}

type claimKey struct{}

// IdempotencyClaimFrom returns the claim that the handler of ctx runs under. Its
// Key is what to pass on to the system that has the effect; a store of one's own
// needs all of it to complete the record in the handler's transaction. ok is false
// outside of [Idempotent].
func IdempotencyClaimFrom(ctx context.Context) (c IdempotencyClaim, ok bool) {
	c, ok = ctx.Value(claimKey{}).(IdempotencyClaim)
	return c, ok
}

// redisIdempotency is the default store.
type redisIdempotency struct{ store *store.Idempotency }

func (s redisIdempotency) Claim(ctx context.Context, c IdempotencyClaim) (IdempotencyRecord, error) {
	state, fence, text, err := s.store.Claim(ctx, (*store.EffectClaim)(&c))
	if err != nil {
		return IdempotencyRecord{}, err
	}
	switch state {
	case store.EffectClaimed:
		return IdempotencyRecord{State: IdempotencyClaimed, Fence: fence}, nil
	case store.EffectDone:
		return IdempotencyRecord{State: IdempotencyDone, Result: text}, nil
	case store.EffectDoneBare:
		return IdempotencyRecord{State: IdempotencyDone, NoResult: string(text)}, nil
	case store.EffectBusy:
		return IdempotencyRecord{State: IdempotencyBusy}, nil
	case store.EffectReused:
		return IdempotencyRecord{}, ErrKeyReused
	case store.EffectOvertaken:
		return IdempotencyRecord{}, fmt.Errorf("%w to a later attempt of the job", ErrClaimLost)
	}
	return IdempotencyRecord{}, fmt.Errorf("unknown state %q", state)
}

func (s redisIdempotency) Extend(ctx context.Context, c IdempotencyClaim) error {
	return held(s.store.Extend(ctx, (*store.EffectClaim)(&c)))
}

func (s redisIdempotency) Complete(ctx context.Context, c IdempotencyClaim, r IdempotencyRecord) error {
	return held(s.store.Complete(ctx, (*store.EffectClaim)(&c), r.Result, r.NoResult))
}

func (s redisIdempotency) Release(ctx context.Context, c IdempotencyClaim) error {
	return s.store.Release(ctx, (*store.EffectClaim)(&c))
}

// held turns the answer of a fenced step into an error.
func held(ok bool, err error) error {
	if err == nil && !ok {
		return ErrClaimLost
	}
	return err
}
