package model_test

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/redrive-go/redrive/internal/model"
	"github.com/redrive-go/redrive/internal/store"
)

// operations are what a model and a queue in Redis have in common.
type operations interface {
	Pass(time.Duration)

	Enqueue(lane string, call int64, lookDead bool, jobs []store.NewJob) ([]int, error)
	Claim(store.ClaimCall) store.Claimed
	Finish(store.Settler, store.Counter, []store.Done) store.Settled
	Putback(store.Settler, []store.Putback) store.Settled
	Bury(store.Settler, []store.Burial) store.Settled
	Beat(worker string, lease time.Duration) store.Beat
	Expired(worker string) []store.ClaimedJob
	Leave(worker string) int
	Pause()
	Resume()
	Ring()
	Listen() bool
	Bell() bool

	TakeLetters(c model.Caller, task, token string, lease time.Duration, n int, after store.LetterCursor) store.Page
	ReleaseLetters(token string, ids []string) int
	EndLetters(model.Caller, store.Counter, []store.LetterEnd) ([]store.LetterFate, error)
	TrimLetters(c model.Caller, task string, count int, age time.Duration) (dropped, left int, err error)
	TakeHooks(c model.Caller, task string, n int, lease time.Duration) store.HookLetters
	EndHook(task string, l store.Letter, deadline int64, heard bool)

	Stats() store.Stats
	Waiting() []store.WaitingJob
	NextDue() time.Time
	Owned(worker string) map[string]string
	Fate(id string) store.Fate
	Letters(x store.LetterIndex, after store.LetterCursor, limit int) store.Page
	LettersByID(ids []string) []store.Letter
	CountLetters(store.LetterIndex) int64
	LetterCounts() store.LetterCounts
	LetterTask(id string) string
	DeadTasks() []string
	HookTasks() []store.HookTask
}

var (
	_ operations = (*model.Queue)(nil)
	_ operations = (*queue)(nil)
)

// queue is a queue in Redis, with the methods of a model. Any error that the model
// has not fails the test.
type queue struct {
	t *rapid.T
	b *backend
	q *store.Queue

	now    int64
	tokens []string // as claims gave them: the first is the model's t1
}

func must[T any](q *queue, v T, err error) T {
	require.NoError(q.t, err, q.b.name)
	return v
}

func (q *queue) Pass(d time.Duration) {
	q.now += d.Milliseconds()
	require.NoError(q.t, q.b.pass(q.t.Context(), q.now, d))
}

// name is what the model calls a token. I4: each new one is above the last.
func (q *queue) name(token string) string {
	i := slices.Index(q.tokens, token)
	if i < 0 {
		i = len(q.tokens)
		q.tokens = append(q.tokens, token)
		if i > 0 {
			require.Greater(q.t, q.number(token), q.number(q.tokens[i-1]), "I4: a token of %s goes back", q.b.name)
		}
	}
	return fmt.Sprintf("t%d", i+1)
}

func (q *queue) number(token string) int64 {
	n, err := strconv.ParseInt(token, 10, 64)
	return must(q, n, err)
}

// token is what the queue calls a token of the model.
func (q *queue) token(name string) string {
	n, err := strconv.Atoi(name[1:])
	if must(q, n, err); n == 0 || n > len(q.tokens) {
		return "0" // nobody's
	}
	return q.tokens[n-1]
}

// named names the tokens of jobs. Only the first answer of a claim has an order.
func (q *queue) named(jobs []store.ClaimedJob) []store.ClaimedJob {
	known := len(q.tokens)
	for i := range jobs {
		jobs[i].Token = q.name(jobs[i].Token)
	}
	if len(q.tokens) == known {
		slices.SortFunc(jobs, func(a, b store.ClaimedJob) int { return cmp.Compare(a.ID, b.ID) })
	}
	return jobs
}

func (q *queue) settled(s store.Settled, err error) store.Settled {
	must(q, s, err)
	q.named(s.Claimed.Jobs)
	return s
}

func (q *queue) caller(c model.Caller) *store.Caller {
	caller := store.NewCaller(c.Name)
	for range c.Call {
		caller.Next()
	}
	return caller
}

func (q *queue) Enqueue(lane string, call int64, lookDead bool, jobs []store.NewJob) ([]int, error) {
	return q.q.Enqueue(q.t.Context(), lane, call, lookDead, jobs)
}

func (q *queue) Claim(c store.ClaimCall) store.Claimed {
	claimed, err := q.q.Claim(q.t.Context(), c)
	must(q, claimed, err)
	q.named(claimed.Jobs)
	return claimed
}

func (q *queue) Finish(s store.Settler, counter store.Counter, jobs []store.Done) store.Settled {
	jobs = slices.Clone(jobs)
	for i := range jobs {
		jobs[i].Token = q.token(jobs[i].Token)
	}
	return q.settled(q.q.Finish(q.t.Context(), s, counter, jobs))
}

func (q *queue) Putback(s store.Settler, jobs []store.Putback) store.Settled {
	jobs = slices.Clone(jobs)
	for i := range jobs {
		jobs[i].Token = q.token(jobs[i].Token)
	}
	return q.settled(q.q.Putback(q.t.Context(), s, jobs))
}

func (q *queue) Bury(s store.Settler, jobs []store.Burial) store.Settled {
	jobs = slices.Clone(jobs)
	for i := range jobs {
		jobs[i].Token = q.token(jobs[i].Token)
	}
	return q.settled(q.q.Bury(q.t.Context(), s, jobs))
}

func (q *queue) Beat(worker string, lease time.Duration) store.Beat {
	b, err := q.q.Beat(q.t.Context(), worker, lease)
	return must(q, b, err)
}

func (q *queue) Expired(worker string) []store.ClaimedJob {
	jobs, err := q.q.Expired(q.t.Context(), worker)
	return q.named(must(q, jobs, err))
}

// Leave also sorts what it put back, of which no order is promised.
func (q *queue) Leave(worker string) int {
	ctx, ready := q.t.Context(), q.b.prefix+":{q}:ready"
	n, err := q.q.Leave(ctx, worker)
	if must(q, n, err) > 1 {
		back, err := q.b.rdb.LRange(ctx, ready, 0, int64(n)-1).Result()
		slices.Sort(must(q, back, err))
		for i, id := range back {
			require.NoError(q.t, q.b.rdb.LSet(ctx, ready, int64(i), id).Err())
		}
	}
	return n
}

func (q *queue) Pause()  { require.NoError(q.t, q.q.Pause(q.t.Context())) }
func (q *queue) Resume() { require.NoError(q.t, q.q.Resume(q.t.Context())) }
func (q *queue) Ring()   { require.NoError(q.t, q.q.Ring(q.t.Context())) }

func (q *queue) Listen() bool {
	rang, err := q.q.Listen(q.t.Context(), time.Second)
	return must(q, rang, err)
}

func (q *queue) Bell() bool {
	n, err := q.b.rdb.LLen(q.t.Context(), q.b.prefix+":{q}:bell").Result()
	return must(q, n, err) > 0
}

func (q *queue) TakeLetters(c model.Caller, task, token string, lease time.Duration, n int, after store.LetterCursor) store.Page {
	p, err := q.q.TakeLetters(q.t.Context(), q.caller(c), task, token, lease, n, after)
	return must(q, p, err)
}

func (q *queue) ReleaseLetters(token string, ids []string) int {
	n, err := q.q.ReleaseLetters(q.t.Context(), token, ids)
	return must(q, n, err)
}

func (q *queue) EndLetters(c model.Caller, counter store.Counter, ends []store.LetterEnd) ([]store.LetterFate, error) {
	return q.q.EndLetters(q.t.Context(), q.caller(c), counter, ends)
}

func (q *queue) TrimLetters(c model.Caller, task string, count int, age time.Duration) (dropped, left int, err error) {
	return q.q.TrimLetters(q.t.Context(), q.caller(c), task, count, age)
}

func (q *queue) TakeHooks(c model.Caller, task string, n int, lease time.Duration) store.HookLetters {
	h, err := q.q.TakeHooks(q.t.Context(), q.caller(c), task, n, lease)
	return must(q, h, err)
}

func (q *queue) EndHook(task string, l store.Letter, deadline int64, heard bool) {
	require.NoError(q.t, q.q.EndHook(q.t.Context(), task, l, deadline, heard))
}

func (q *queue) Stats() store.Stats {
	s, err := q.q.Stats(q.t.Context())
	return must(q, s, err)
}

func (q *queue) Waiting() []store.WaitingJob {
	w, err := q.q.Waiting(q.t.Context())
	return must(q, w, err)
}

func (q *queue) NextDue() time.Time {
	due, err := q.q.NextDue(q.t.Context())
	return must(q, due, err)
}

func (q *queue) Owned(worker string) map[string]string {
	owned, err := q.q.Owned(q.t.Context(), worker)
	for id, token := range must(q, owned, err) {
		owned[id] = q.name(token)
	}
	return owned
}

func (q *queue) Fate(id string) store.Fate {
	f, err := q.q.Fate(q.t.Context(), id)
	return must(q, f, err)
}

func (q *queue) Letters(x store.LetterIndex, after store.LetterCursor, limit int) store.Page {
	p, err := q.q.Letters(q.t.Context(), x, after, limit)
	return must(q, p, err)
}

func (q *queue) LettersByID(ids []string) []store.Letter {
	l, err := q.q.LettersByID(q.t.Context(), ids)
	return must(q, l, err)
}

func (q *queue) CountLetters(x store.LetterIndex) int64 {
	n, err := q.q.CountLetters(q.t.Context(), x)
	return must(q, n, err)
}

func (q *queue) LetterCounts() store.LetterCounts {
	c, err := q.q.LetterCounts(q.t.Context())
	return must(q, c, err)
}

func (q *queue) LetterTask(id string) string {
	task, err := q.q.LetterTask(q.t.Context(), id)
	return must(q, task, err)
}

func (q *queue) DeadTasks() []string {
	tasks, err := q.q.DeadTasks(q.t.Context(), "", store.MaxBatch)
	return must(q, tasks, err)
}

func (q *queue) HookTasks() []store.HookTask {
	tasks, err := q.q.HookTasks(q.t.Context())
	return must(q, tasks, err)
}
