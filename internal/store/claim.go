package store

import (
	"context"
	"time"
)

// ClaimState says how a claim went.
type ClaimState string

// The states of a claim.
const (
	ClaimOK     ClaimState = "ok"
	ClaimPaused ClaimState = "paused"
	// ClaimLapsed: the worker has no live lease; it must beat first.
	ClaimLapsed ClaimState = "lapsed"
	// ClaimStale: a later claim of this worker was here before.
	ClaimStale ClaimState = "stale"
)

// Claimed is the answer to a claim.
type Claimed struct {
	State ClaimState
	// Now is the time of Redis.
	Now time.Time
	// NextDue is when the next delayed job is due; zero when there is none.
	NextDue time.Time
	Jobs    []ClaimedJob
}

// ClaimedJob is one job that a worker owns.
type ClaimedJob struct {
	ID    string
	Token string
	// Envelope is empty when the job's payload is missing.
	Envelope string
	// Ledger is empty for a job that was never put back.
	Ledger string
}

// Claim gives the worker up to n jobs. A worker makes one claim at a time on a
// queue, each with a higher number than the last, and the same number when it
// sends a claim again: then it gets the same jobs (I7). With probe it writes even
// when there is nothing to claim, so that a server that may not be the master any
// more refuses.
func (q *Queue) Claim(ctx context.Context, worker string, call int64, n int, probe bool) (Claimed, error) {
	sure := "0"
	if probe {
		sure = "1"
	}
	k := &q.keys
	res, err := q.run(ctx, claimScript,
		[]string{k.Ready, k.Jobs, k.Ledger, k.Delayed, k.Worker(worker), k.Workers, k.Stats, k.Bell},
		[]any{worker, call, min(n, MaxBatch), sure})
	if err != nil {
		return Claimed{}, q.wrap("claim", err)
	}
	reply, ok := res.([]any)
	if !ok || len(reply) < 3 {
		return Claimed{}, q.malformed("claim", res)
	}
	state, _ := reply[0].(string)
	c := Claimed{State: ClaimState(state), Now: msTime(reply[1]), NextDue: msTime(reply[2])}
	if c.State != ClaimOK {
		return c, nil
	}
	if len(reply) != 7 {
		return Claimed{}, q.malformed("claim", res)
	}
	token, _ := reply[3].(string)
	if c.Jobs, ok = claimedJobs(reply[4], nil, reply[5], reply[6]); !ok {
		return Claimed{}, q.malformed("claim", res)
	}
	for i := range c.Jobs {
		c.Jobs[i].Token = token
	}
	return c, nil
}

// claimedJobs joins the parallel arrays of a reply. tokens may be nil, ledgers
// may be empty; a nil element is an entry that does not exist.
func claimedJobs(ids, tokens, envelopes, ledgers any) ([]ClaimedJob, bool) {
	is, ok1 := ids.([]any)
	es, ok2 := envelopes.([]any)
	ls, ok3 := ledgers.([]any)
	ts, _ := tokens.([]any)
	if !ok1 || !ok2 || !ok3 || len(es) != len(is) || tokens != nil && len(ts) != len(is) {
		return nil, false
	}
	jobs := make([]ClaimedJob, len(is))
	for i := range is {
		j := &jobs[i]
		j.ID, _ = is[i].(string)
		j.Envelope, _ = es[i].(string)
		if i < len(ls) {
			j.Ledger, _ = ls[i].(string)
		}
		if ts != nil {
			j.Token, _ = ts[i].(string)
		}
	}
	return jobs, true
}

// msTime reads a time in ms; -1 is the zero time.
func msTime(v any) time.Time {
	ms, _ := v.(int64)
	if ms < 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
