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

// Lanes is how many calls a worker may have in flight on one queue. Each of them
// claims and settles in a lane of its own; lane 0 is the keeper's, and that of
// claims that settle nothing.
const Lanes = 2

// A ClaimCall asks for jobs. A lane has one claim in flight, each with a higher
// number than the last, and the same number when the claim is sent again: then it
// gets the same jobs (I7).
type ClaimCall struct {
	Worker string
	Lane   int
	Call   int64
	// N is how many jobs at most, up to [MaxBatch].
	N int
	// Probe makes a server that is not the master any more refuse, instead of
	// saying that there is nothing to claim.
	Probe bool
}

// queueKeys returns the keys that begin those of every script that moves jobs in or
// out of a worker's hands; it has room for more.
func (q *Queue) queueKeys(worker string, more int) []any {
	k, own := &q.keys, q.keys.Worker(worker)
	return append(make([]any, 0, 9+more),
		&k.Ready, &k.Jobs, &k.Ledger, &k.Delayed, &own, &k.Workers, &k.Stats, &k.Bell, &k.Owners)
}

// claimArgs is the number of arguments of claim.lua.
const claimArgs = 6

// claimMemos are the fields of a worker's hash that remember its last claims.
var claimMemos = [Lanes]string{"#c0", "#c1"}

func (c *ClaimCall) args(args []any) []any {
	probe := "0"
	if c.Probe {
		probe = "1"
	}
	n := min(c.N, MaxBatch)
	return append(args, &c.Worker, &claimMemos[c.Lane], c.Call, n, n-1, probe)
}

// Claim gives the worker jobs.
func (q *Queue) Claim(ctx context.Context, c ClaimCall) (Claimed, error) {
	reply, err := q.list(ctx, claimScript, q.queueKeys(c.Worker, 0), c.args(make([]any, 0, claimArgs)))
	if err != nil {
		return Claimed{}, q.wrap("claim", err)
	}
	return q.claimed(reply)
}

// claimed reads the reply of claim.lua. As with [reply], what is not as the header of
// the script says is an error.
func (q *Queue) claimed(reply []string) (Claimed, error) {
	bad := func() (Claimed, error) { return Claimed{}, q.malformed("claim", reply) }
	if len(reply) < 3 {
		return bad()
	}
	now, ok := digits(reply[1])
	due, ok2 := digits(reply[2])
	c := Claimed{State: ClaimState(reply[0]), Now: time.UnixMilli(int64(now))}
	if ok2 {
		c.NextDue = time.UnixMilli(int64(due))
	}
	if !ok || !ok2 && reply[2] != "-1" {
		return bad()
	}
	switch c.State {
	case ClaimOK:
	case ClaimPaused, ClaimLapsed, ClaimStale:
		if len(reply) > 3 {
			return bad()
		}
		return c, nil
	default:
		return bad()
	}
	if len(reply) < 5 {
		return bad()
	}
	token, jobs := reply[3], reply[5:]
	n, ok := digits(reply[4])
	if t, isToken := digits(token); !ok || !isToken || t == 0 || len(jobs) != 2*n && len(jobs) != 3*n {
		return bad()
	}
	c.Jobs = make([]ClaimedJob, n)
	for i := range c.Jobs {
		j := &c.Jobs[i]
		j.Token, j.ID, j.Envelope = token, jobs[i], jobs[n+i]
		if len(jobs) > 2*n {
			j.Ledger = jobs[2*n+i]
		}
		if j.ID == "" {
			return bad()
		}
	}
	return c, nil
}
