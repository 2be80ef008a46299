package store

import (
	"context"
	"strconv"
	"strings"
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

// The numbers of keys and arguments of claim.lua.
const (
	claimKeys = 8
	claimArgs = 5
)

func (q *Queue) claimKeys(worker string) []string {
	k := &q.keys
	keys := make([]string, 0, claimKeys+8)
	return append(keys, k.Ready, k.Jobs, k.Ledger, k.Delayed, k.Worker(worker), k.Workers, k.Stats, k.Bell)
}

func (c *ClaimCall) args(args []any) []any {
	probe := "0"
	if c.Probe {
		probe = "1"
	}
	return append(args, c.Worker, c.Lane, c.Call, min(c.N, MaxBatch), probe)
}

// Claim gives the worker jobs.
func (q *Queue) Claim(ctx context.Context, c ClaimCall) (Claimed, error) {
	res, err := q.run(ctx, claimScript, q.claimKeys(c.Worker), c.args(make([]any, 0, claimArgs)))
	if err != nil {
		return Claimed{}, q.wrap("claim", err)
	}
	return q.claimed(res)
}

// claimed reads the reply of claim.lua.
func (q *Queue) claimed(res any) (Claimed, error) {
	reply, ok := res.([]any)
	if !ok || len(reply) < 3 {
		return Claimed{}, q.malformed("claim", res)
	}
	r := readReply(res, len(reply))
	c := Claimed{State: ClaimState(r.text()), Now: r.time(), NextDue: r.due()}
	switch c.State {
	case ClaimOK:
		r.token()
	case ClaimPaused, ClaimLapsed, ClaimStale:
		r.bad = r.bad || len(r.list) > 0
	default:
		r.bad = true
	}
	if r.bad {
		return Claimed{}, q.malformed("claim", res)
	}
	if c.State != ClaimOK {
		return c, nil
	}
	if len(reply) != 9 {
		return Claimed{}, q.malformed("claim", res)
	}
	var text [6]string
	for i := range text {
		if text[i], ok = reply[3+i].(string); !ok {
			return Claimed{}, q.malformed("claim", res)
		}
	}
	if c.Jobs, ok = unpackJobs(text[0], text[1], text[2:4], text[4:6]); !ok {
		return Claimed{}, q.malformed("claim", res)
	}
	return c, nil
}

// unpackJobs takes the jobs of one claim apart; see pack.lua.
func unpackJobs(token, ids string, envelopes, ledgers []string) ([]ClaimedJob, bool) {
	if ids == "" {
		return nil, envelopes[0] == "" && envelopes[1] == "" && ledgers[0] == "" && ledgers[1] == ""
	}
	packed := ledgers[0] != ""
	jobs := make([]ClaimedJob, strings.Count(ids, ",")+1)
	for i := range jobs {
		j := &jobs[i]
		j.Token = token
		j.ID, ids, _ = strings.Cut(ids, ",")
		var ok bool
		if j.Envelope, ok = unpackOne(envelopes); !ok || j.ID == "" {
			return nil, false
		}
		if !packed {
			continue
		}
		if j.Ledger, ok = unpackOne(ledgers); !ok {
			return nil, false
		}
	}
	return jobs, envelopes[0] == "" && envelopes[1] == "" && ledgers[0] == "" && ledgers[1] == ""
}

// unpackOne takes the first value off a packed pair of sizes and values.
func unpackOne(packed []string) (value string, ok bool) {
	size, rest, _ := strings.Cut(packed[0], ",")
	packed[0] = rest
	n, err := strconv.Atoi(size)
	if err != nil || n < -1 || n > len(packed[1]) {
		return "", false
	}
	if n == -1 { // there is none
		return "", true
	}
	value, packed[1] = packed[1][:n], packed[1][n:]
	return value, true
}
