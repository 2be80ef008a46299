package store

import (
	"context"
	"slices"
	"time"
)

// A Settler identifies one call that ends attempts. The same Call sent again
// gets the first answer (I6).
type Settler struct {
	// Worker owns the jobs.
	Worker string
	// Lane has one call in flight; see [Lanes].
	Lane int
	// Call is unique among the calls on this worker's jobs.
	Call string
	// Reap ends the jobs only if the worker's lease has lapsed.
	Reap bool
	// Next, if not nil, claims jobs for the worker in the same step.
	Next *ClaimCall

	jobs int // how many the call ends
}

// Settled is the answer to a call that ends attempts.
type Settled struct {
	// Refused holds the indexes of jobs whose token was refused: nothing was written
	// for them, another owns the job (I4).
	Refused []int
	// Claimed is the answer to [Settler.Next].
	Claimed Claimed
}

// Owned names a job by the token of its claim.
type Owned struct{ ID, Token string }

// Done is a job that leaves the queue.
type Done struct {
	Owned
	// Result is kept for TTL, if that is positive.
	Result []byte
	TTL    time.Duration
}

// Putback is a job that runs again.
type Putback struct {
	Owned
	// Front puts the job first in the queue at once; else Delay counts.
	Front bool
	Delay time.Duration
	// Ledger replaces the job's ledger, unless empty.
	Ledger []byte
	// Counter is the counter of the queue to raise.
	Counter Counter
}

// Burial is a job that becomes a dead letter.
type Burial struct {
	Owned
	Task string
	// Reason is one of [Reasons].
	Reason string
	Entry  []byte
	// Hook keeps the letter's id for the hook that must hear of it.
	Hook bool
}

var memos = [Lanes]string{"#s0", "#s1"}

// fence returns the keys and arguments that fence.lua reads, after those of the
// claim if there is one.
func (q *Queue) fence(s *Settler, stride, jobs int) (keys []string, args []any) {
	s.jobs = jobs
	args = make([]any, 0, claimArgs+5+stride*jobs+2)
	if s.Next != nil {
		keys, args = q.claimKeys(s.Next.Worker), s.Next.args(args)
	}
	reap := ""
	if s.Reap {
		reap = s.Worker
	}
	return append(keys, q.keys.Worker(s.Worker), q.keys.Workers), append(args, s.Call, reap, memos[s.Lane], stride, jobs)
}

// key returns the place of the key added last, as the settling script counts.
func (s *Settler) key(keys []string) int {
	if s.Next != nil {
		return len(keys) - claimKeys
	}
	return len(keys)
}

// Finish ends jobs that succeeded, or were discarded, at most [MaxBatch].
func (q *Queue) Finish(ctx context.Context, s Settler, counter Counter, jobs []Done) (Settled, error) {
	k := &q.keys
	stride := 2
	if slices.ContainsFunc(jobs, func(d Done) bool { return d.TTL > 0 }) {
		stride = 5
	}
	keys, args := q.fence(&s, stride, len(jobs))
	keys = append(keys, k.Jobs, k.Ledger, k.Stats)
	for i := range jobs {
		j := &jobs[i]
		args = append(args, &j.ID, &j.Token) // pointers: an interface of a string allocates
		switch {
		case stride == 2:
		case j.TTL > 0:
			keys = append(keys, k.Result(j.ID))
			args = append(args, s.key(keys), j.Result, ceilMillis(j.TTL))
		default:
			args = append(args, 0, "", 0)
		}
	}
	return q.settle(ctx, "finish", finishScript, &s, keys, append(args, string(counter), k.Channel))
}

// Putback puts jobs back, at most [MaxBatch].
func (q *Queue) Putback(ctx context.Context, s Settler, jobs []Putback) (Settled, error) {
	k := &q.keys
	keys, args := q.fence(&s, 5, len(jobs))
	for i := range jobs {
		j := &jobs[i]
		var delay any = "front"
		if !j.Front {
			delay = ceilMillis(j.Delay)
		}
		args = append(args, &j.ID, &j.Token, delay, j.Ledger, string(j.Counter))
	}
	return q.settle(ctx, "put back", putbackScript, &s,
		append(keys, k.Ready, k.Delayed, k.Ledger, k.Stats, k.Bell), args)
}

// Bury turns jobs into dead letters, at most [MaxBatch].
func (q *Queue) Bury(ctx context.Context, s Settler, jobs []Burial) (Settled, error) {
	k := &q.keys
	keys, args := q.fence(&s, 7, len(jobs))
	keys = append(keys, k.Jobs, k.Ledger, k.Dead, k.Letters, k.Hooks, k.Stats, k.DeadTasks)
	known := make(map[string]int) // where in keys
	place := func(own ...string) int {
		if _, ok := known[own[0]]; !ok {
			keys = append(keys, own[0])
			known[own[0]] = s.key(keys)
			keys = append(keys, own[1:]...)
		}
		return known[own[0]]
	}
	for i := range jobs {
		j := &jobs[i]
		hook := ""
		if j.Hook {
			hook = "1"
		}
		args = append(args, &j.ID, &j.Token, place(k.DeadTask(j.Task), k.TaskHooks(j.Task)), j.Task,
			place(k.Why(indexedReason(j.Reason))), j.Entry, hook)
	}
	return q.settle(ctx, "bury", buryScript, &s, keys, append(args, k.Channel))
}

func (q *Queue) settle(ctx context.Context, op string, script settleScript, s *Settler, keys []string, args []any) (Settled, error) {
	lua := script.alone
	if s.Next != nil {
		lua = script.andClaim
	}
	res, err := q.run(ctx, lua, keys, args)
	if err != nil {
		return Settled{}, q.wrap(op, err)
	}
	var settled Settled
	if s.Next != nil {
		both, ok := res.([]any)
		if !ok || len(both) != 2 {
			return Settled{}, q.malformed(op, res)
		}
		if settled.Claimed, err = q.claimed(both[1]); err != nil {
			return Settled{}, err
		}
		res = both[0]
	}
	text, ok := res.(string)
	if ok {
		settled.Refused, ok = indexes(text, 0, s.jobs)
	}
	if !ok {
		return Settled{}, q.malformed(op, res)
	}
	return settled, nil
}
