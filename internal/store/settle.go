package store

import (
	"context"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// A Settler identifies one call that ends attempts. The same Call sent again
// gets the first answer (I6).
type Settler struct {
	// Worker owns the jobs.
	Worker string
	// Call is unique among the calls on this worker's jobs.
	Call string
	// Reap ends the jobs only if the worker's lease has lapsed.
	Reap bool
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

// fence returns the arguments that fence.lua reads.
func (s *Settler) fence(memo string, stride, jobs int) []any {
	args := make([]any, 0, 5+stride*jobs+2)
	reap := ""
	if s.Reap {
		reap = s.Worker
	}
	return append(args, s.Call, reap, memo, stride, jobs)
}

// Finish ends jobs that succeeded, or were discarded, at most [MaxBatch]. It
// returns the indexes of those whose token was refused: nothing was written for
// them, another owns the job (I4).
func (q *Queue) Finish(ctx context.Context, s Settler, counter Counter, jobs []Done) (refused []int, err error) {
	k := &q.keys
	keys := []string{k.Worker(s.Worker), k.Workers, k.Jobs, k.Ledger, k.Stats}
	stride := 2
	if slices.ContainsFunc(jobs, func(d Done) bool { return d.TTL > 0 }) {
		stride = 5
	}
	args := s.fence("#finish", stride, len(jobs))
	for i := range jobs {
		j := &jobs[i]
		args = append(args, j.ID, j.Token)
		switch {
		case stride == 2:
		case j.TTL > 0:
			keys = append(keys, k.Result(j.ID))
			args = append(args, len(keys), j.Result, ceilMillis(j.TTL))
		default:
			args = append(args, 0, "", 0)
		}
	}
	return q.settle(ctx, "finish", finishScript, keys, append(args, string(counter), k.Channel))
}

// Putback puts jobs back, at most [MaxBatch]; the answer is that of Finish.
func (q *Queue) Putback(ctx context.Context, s Settler, jobs []Putback) (refused []int, err error) {
	k := &q.keys
	args := s.fence("#putback", 5, len(jobs))
	for i := range jobs {
		j := &jobs[i]
		var delay any = "front"
		if !j.Front {
			delay = ceilMillis(j.Delay)
		}
		args = append(args, j.ID, j.Token, delay, j.Ledger, string(j.Counter))
	}
	return q.settle(ctx, "put back", putbackScript,
		[]string{k.Worker(s.Worker), k.Workers, k.Ready, k.Delayed, k.Ledger, k.Stats, k.Bell}, args)
}

// Bury turns jobs into dead letters, at most [MaxBatch]; the answer is that of
// Finish.
func (q *Queue) Bury(ctx context.Context, s Settler, jobs []Burial) (refused []int, err error) {
	k := &q.keys
	keys := []string{k.Worker(s.Worker), k.Workers, k.Jobs, k.Ledger, k.Dead, k.Letters, k.Hooks, k.Stats, k.DeadTasks}
	known := make(map[string]int) // where in keys
	place := func(own ...string) int {
		if _, ok := known[own[0]]; !ok {
			known[own[0]] = len(keys) + 1
			keys = append(keys, own...)
		}
		return known[own[0]]
	}
	args := s.fence("#bury", 7, len(jobs))
	for i := range jobs {
		j := &jobs[i]
		hook := ""
		if j.Hook {
			hook = "1"
		}
		args = append(args, j.ID, j.Token, place(k.DeadTask(j.Task), k.TaskHooks(j.Task)), j.Task,
			place(k.Why(indexedReason(j.Reason))), j.Entry, hook)
	}
	return q.settle(ctx, "bury", buryScript, keys, append(args, k.Channel))
}

func (q *Queue) settle(ctx context.Context, op string, script *redis.Script, keys []string, args []any) ([]int, error) {
	res, err := q.run(ctx, script, keys, args)
	if err != nil {
		return nil, q.wrap(op, err)
	}
	text, ok := res.(string)
	if !ok {
		return nil, q.malformed(op, res)
	}
	refused, err := indexes(text, 0)
	if err != nil {
		return nil, q.malformed(op, res)
	}
	return refused, nil
}
