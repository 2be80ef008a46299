package store

import (
	"context"
	"strconv"
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
	return append(make([]any, 0, 8+more),
		&k.Ready, &k.Jobs, &k.Ledger, &k.Delayed, &own, &k.Workers, &k.Stats, &k.Bell)
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

// claimed reads the reply of claim.lua.
func (q *Queue) claimed(reply []string) (Claimed, error) {
	if len(reply) < 3 {
		return Claimed{}, q.malformed("claim", reply)
	}
	now, err := strconv.ParseInt(reply[1], 10, 64)
	due, err2 := strconv.ParseInt(reply[2], 10, 64)
	c := Claimed{State: ClaimState(reply[0]), Now: msTime(now), NextDue: msTime(due)}
	if err != nil || err2 != nil {
		return Claimed{}, q.malformed("claim", reply)
	}
	if c.State != ClaimOK {
		return c, nil
	}
	if len(reply) < 5 {
		return Claimed{}, q.malformed("claim", reply)
	}
	token, jobs := reply[3], reply[5:]
	n, err := strconv.Atoi(reply[4])
	if err != nil || n < 0 || len(jobs) != 2*n && len(jobs) != 3*n {
		return Claimed{}, q.malformed("claim", reply)
	}
	c.Jobs = make([]ClaimedJob, n)
	for i := range c.Jobs {
		j := &c.Jobs[i]
		j.Token, j.ID, j.Envelope = token, jobs[i], jobs[n+i]
		if len(jobs) > 2*n {
			j.Ledger = jobs[2*n+i]
		}
	}
	return c, nil
}

// msTime reads a time in ms; -1 is the zero time.
func msTime(v any) time.Time {
	ms, _ := v.(int64)
	if ms < 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
