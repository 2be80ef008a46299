package store

import (
	"context"
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

// settleMemos are the fields of a worker's hash that remember its last settles.
var settleMemos = [Lanes]string{"#s0", "#s1"}

// fence returns the keys and arguments that fence.lua reads, after the arguments of
// the claim if there is one. There are more keys to come, and so many arguments for
// each job.
func (q *Queue) fence(s *Settler, owned func(i int) *Owned, jobs, more, fields int) (keys, args []any) {
	s.jobs = jobs
	args = make([]any, 0, claimArgs+6+(2+fields)*jobs+2)
	if s.Next != nil {
		args = s.Next.args(args)
	}
	reap := "0"
	if s.Reap {
		reap = "1"
	}
	tokens := 1
	for i := range jobs {
		if owned(i).Token != owned(0).Token {
			tokens = jobs
			break
		}
	}
	args = append(args, &s.Call, &s.Worker, reap, &settleMemos[s.Lane], jobs, tokens)
	for i := range jobs {
		args = append(args, &owned(i).ID) // pointers: an interface of a string allocates
	}
	for i := range tokens {
		args = append(args, &owned(i).Token)
	}
	return q.queueKeys(s.Worker, more), args
}

// Finish ends jobs that succeeded, or were discarded, at most [MaxBatch].
func (q *Queue) Finish(ctx context.Context, s Settler, counter Counter, jobs []Done) (Settled, error) {
	k := &q.keys
	results, fields := 0, 0
	for i := range jobs {
		if jobs[i].TTL > 0 {
			results++
			fields = 3
		}
	}
	keys, args := q.fence(&s, func(i int) *Owned { return &jobs[i].Owned }, len(jobs), results, fields)
	args = append(args, string(counter))
	if results == 0 {
		return q.settle(ctx, "finish", finishScript, &s, keys, args)
	}
	for i := range jobs {
		if j := &jobs[i]; j.TTL > 0 {
			result := k.Result(j.ID)
			keys = append(keys, &result)
			args = append(args, len(keys), (*blob)(&j.Result), ceilMillis(j.TTL))
		} else {
			args = append(args, 0, "", 0)
		}
	}
	return q.settle(ctx, "finish", finishScript, &s, keys, append(args, k.Channel))
}

// Putback puts jobs back, at most [MaxBatch].
func (q *Queue) Putback(ctx context.Context, s Settler, jobs []Putback) (Settled, error) {
	keys, args := q.fence(&s, func(i int) *Owned { return &jobs[i].Owned }, len(jobs), 0, 3)
	for i := range jobs {
		j := &jobs[i]
		var delay any = "front"
		if !j.Front {
			delay = ceilMillis(j.Delay)
		}
		args = append(args, delay, (*blob)(&j.Ledger), string(j.Counter))
	}
	return q.settle(ctx, "put back", putbackScript, &s, keys, args)
}

// Bury turns jobs into dead letters, at most [MaxBatch].
func (q *Queue) Bury(ctx context.Context, s Settler, jobs []Burial) (Settled, error) {
	k := &q.keys
	keys, args := q.fence(&s, func(i int) *Owned { return &jobs[i].Owned }, len(jobs), 8, 5)
	keys = append(keys, &k.Dead, &k.Letters, &k.Hooks, &k.DeadTasks)
	known := make(map[string]int) // where in keys
	place := func(own ...string) int {
		if _, ok := known[own[0]]; !ok {
			known[own[0]] = len(keys) + 1
			for i := range own {
				keys = append(keys, &own[i])
			}
		}
		return known[own[0]]
	}
	for i := range jobs {
		j := &jobs[i]
		hook := ""
		if j.Hook {
			hook = "1"
		}
		args = append(args, place(k.DeadTask(j.Task), k.TaskHooks(j.Task)), j.Task,
			place(k.Why(indexedReason(j.Reason))), (*blob)(&j.Entry), hook)
	}
	return q.settle(ctx, "bury", buryScript, &s, keys, append(args, k.Channel))
}

func (q *Queue) settle(ctx context.Context, op string, script settleScript, s *Settler, keys, args []any) (Settled, error) {
	lua := script.alone
	if s.Next != nil {
		lua = script.andClaim
	}
	reply, err := q.list(ctx, lua, keys, args)
	if err != nil {
		return Settled{}, q.wrap(op, err)
	}
	if len(reply) == 0 {
		return Settled{}, q.malformed(op, reply)
	}
	refused, claimed := reply[len(reply)-1], reply[:len(reply)-1]
	var settled Settled
	var ok bool
	if settled.Refused, ok = indexes(refused, 0, s.jobs); !ok || s.Next == nil && len(claimed) > 0 {
		return Settled{}, q.malformed(op, reply)
	}
	if s.Next != nil {
		if settled.Claimed, err = q.claimed(claimed); err != nil {
			return Settled{}, err
		}
	}
	return settled, nil
}
