package redrive_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/faultnet"
	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
)

// A use is one way in which the public API calls Redis. What comes of it does not
// depend on the fault that befalls the calls.
type use struct {
	name string
	// calls are scripts, by their name in [store.Scripts], or commands; each has every
	// fault in turn. "a|b" is either of them, where chance decides which one is called.
	calls []string
	// do arms the fault, makes the calls, and says what came of them.
	do func(s *stage) string
	// want is what do says, whatever the fault.
	want string
}

// uses lists all of them.
func uses() []use {
	return slices.Concat(enqueueUses, workerUses, readUses, checkUses, letterUses, lockUses, effectUses)
}

// mishap is a fault of every call: a reply that is lost is lost once for each.
type mishap struct {
	name string
	// opaque hides the client's kind, so that all calls are the user's client's own,
	// which resends.
	opaque bool
	set    func(p *faultnet.Proxy, m faultnet.Match) *faultnet.Rule
}

func mishaps() []mishap {
	all := []mishap{
		{name: "none"},
		{name: "each reply is lost", set: func(p *faultnet.Proxy, m faultnet.Match) *faultnet.Rule {
			return p.DropReply(everyOther(m), 0)
		}},
		{name: "four replies are lost", set: func(p *faultnet.Proxy, m faultnet.Match) *faultnet.Rule {
			return p.DropReply(first(4, m), 0)
		}},
		{name: "each reply is lost to a client that resends", opaque: true, set: func(p *faultnet.Proxy, m faultnet.Match) *faultnet.Rule {
			return p.DropReply(everyOther(m), 0)
		}},
	}
	for times := 2; times <= 4; times++ {
		for _, first := range []bool{true, false} {
			name := fmt.Sprintf("executed %d times, first answer", times)
			if !first {
				name = fmt.Sprintf("executed %d times, last answer", times)
			}
			all = append(all, mishap{name: name, set: func(p *faultnet.Proxy, m faultnet.Match) *faultnet.Rule {
				return p.Repeat(m, 0, times, first)
			}})
		}
	}
	return all
}

// everyOther chooses the first of what m chooses, the third, and so on: where each
// call is sent until it is answered, each call once.
func everyOther(m faultnet.Match) faultnet.Match {
	n := 0
	return func(cmd []string) bool {
		if !m(cmd) {
			return false
		}
		n++
		return n%2 == 1
	}
}

// first chooses the first n of what m chooses.
func first(n int, m faultnet.Match) faultnet.Match {
	return func(cmd []string) bool {
		if n == 0 || !m(cmd) {
			return false
		}
		n--
		return true
	}
}

// callsOf matches the calls of scripts, or commands.
func callsOf(names string) faultnet.Match {
	var any []faultnet.Match
	for name := range strings.SplitSeq(names, "|") {
		if script, ok := store.Scripts()[name]; ok {
			any = append(any, faultnet.Scripts(script.Hash()))
		} else {
			any = append(any, faultnet.Commands(name))
		}
	}
	return func(cmd []string) bool {
		return slices.ContainsFunc(any, func(m faultnet.Match) bool { return m(cmd) })
	}
}

// opaque is a client that cannot be copied: workers and locks use it as it is.
type opaque struct{ redis.UniversalClient }

// A stage is where a use is played: its rig goes through a proxy.
type stage struct {
	*rig
	clean *rig // goes around the proxy
	proxy *faultnet.Proxy
	arm   func()        // the fault is there from now on
	each  time.Duration // how long a job takes

	mu    sync.Mutex
	runs  map[string]int
	heard []string
	lost  int // attempts whose end was refused, as the worker sees it
}

func newStage(t *testing.T, b *redistest.Backend, m mishap, call string) *stage {
	through, proxy := faulty(t, b, 1)
	s := &stage{rig: through, clean: newRig(t, b), proxy: proxy, runs: make(map[string]int)}
	if m.opaque {
		o := *through.rdb.(*redis.Client).Options()
		o.MaxRetries = 3
		rdb := redis.NewClient(&o)
		t.Cleanup(func() { _ = rdb.Close() })
		s.rdb = opaque{rdb}
		var err error
		s.client, err = redrive.NewClient(s.rdb, redrive.ClientOptions{Prefix: b.Prefix, Logger: quiet})
		require.NoError(t, err)
	}
	loadScripts(s.clean)
	s.arm = func() {}
	if m.set != nil {
		armed := make(chan *faultnet.Rule, 1)
		s.arm = func() { armed <- m.set(proxy, callsOf(call)) }
		t.Cleanup(func() {
			if !t.Failed() {
				require.Positive(t, (<-armed).Hits(), "the use does not call %s", call)
			}
		})
	}
	return s
}

var released = regexp.MustCompile(` released=\d+`)

// loadScripts sees to it that Redis knows the scripts: then each call is performed,
// and none is answered with NOSCRIPT. Not in a pipeline: that empties a script's hash.
func loadScripts(r *rig) {
	for _, script := range store.Scripts() {
		known, err := script.Exists(r.ctx(), r.rdb).Result()
		require.NoError(r.t, err)
		if !known[0] {
			require.NoError(r.t, script.Load(r.ctx(), r.rdb).Err())
		}
	}
}

// TestI6_EveryUseOfEveryScriptHasTheEffectOfOne plays every use of every script with
// every fault: replies are lost, once or four times, to a client that resends and to
// one that does not; calls are performed two to four times. What the caller sees, how
// often handlers run, and all figures of the queue are those of a run without faults.
func TestI6_EveryUseOfEveryScriptHasTheEffectOfOne(t *testing.T) { // alone: its leases are short
	backends := map[string]func(testing.TB) *redistest.Backend{"redis": redistest.Redis}
	if os.Getenv("REDRIVE_LONG") != "" {
		backends["embedded"] = redistest.Embedded
	}
	var cases sync.WaitGroup
	places := make(chan struct{}, 24) // most of the time is waiting
	for name, backend := range backends {
		for _, u := range uses() {
			for _, m := range mishaps() {
				for _, call := range u.calls {
					if m.set == nil && call != u.calls[0] {
						continue
					}
					places <- struct{}{}
					cases.Go(func() {
						defer func() { <-places }()
						t.Run(strings.Join([]string{name, u.name, call, m.name}, "/"), func(t *testing.T) {
							s := newStage(t, backend(t), m, call)
							said := u.do(s)
							if strings.Contains(call, "claim") && m.set != nil {
								// A claim that found nothing is not remembered: a copy may find
								// what nobody hears of. It is put back, uncounted and unrun (I7).
								said = released.ReplaceAllString(said, "")
							}
							require.Equal(t, u.want, said)
						})
					})
				}
			}
		}
	}
	cases.Wait()
}

// TestI6_NoScriptIsWithoutAUse: a script that is new in the store has no test of lost
// replies until a use names it.
func TestI6_NoScriptIsWithoutAUse(t *testing.T) {
	t.Parallel()
	used := make(map[string]bool)
	for _, u := range uses() {
		for _, call := range u.calls {
			for name := range strings.SplitSeq(call, "|") {
				used[name] = true
			}
		}
	}
	for name := range store.Scripts() {
		require.True(t, used[name], "no use calls script %s", name)
	}
}

// act is the task of these tests; its argument says how a job behaves.
var act = redrive.NewTask[string, string]("act", redrive.TaskOptions{Retry: fast, ResultTTL: time.Minute})

// bare is act without a result.
var bare = redrive.NewTask[string, redrive.None]("bare", redrive.TaskOptions{Retry: fast})

// aged is act with an age limit.
var aged = redrive.NewTask[string, redrive.None]("aged", redrive.TaskOptions{MaxAge: time.Hour})

// play runs a job as its argument says.
func (s *stage) play(ctx context.Context, m *redrive.Message, how string) (string, error) {
	s.mu.Lock()
	s.runs[how]++
	s.mu.Unlock()
	sleepFor(ctx, s.each)
	again := m.Starts > 1
	switch {
	case how == "retry" && !again:
		return "", errors.New("once")
	case how == "snooze" && !again:
		return "", redrive.Snooze(time.Millisecond)
	case how == "interrupt" && !again:
		<-ctx.Done()
		return "", ctx.Err()
	case how == "discard":
		return "", redrive.Discard(errors.New("not needed"))
	case how == "permanent":
		return "", redrive.Permanent(errors.New("no use"))
	case how == "exhaust":
		return "", errors.New("never")
	case strings.HasPrefix(how, "long"):
		sleepFor(ctx, 1500*time.Millisecond) // two renewals of a lease of two seconds
	}
	return how + "!", context.Cause(ctx)
}

// mux serves act, bare and aged.
func (s *stage) mux(mw ...redrive.Middleware) *redrive.Mux {
	mux := redrive.NewMux()
	act.Handle(mux, func(ctx context.Context, j *redrive.Job[string]) (string, error) {
		return s.play(ctx, j.Message, j.Args)
	}, mw...)
	for _, task := range []*redrive.Task[string, redrive.None]{bare, aged} {
		task.Handle(mux, redrive.NoResult(func(ctx context.Context, j *redrive.Job[string]) error {
			_, err := s.play(ctx, j.Message, j.Args)
			return err
		}), mw...)
	}
	return mux
}

// put enqueues jobs of act around the proxy, in order.
func (s *stage) put(how ...string) (receipts []*redrive.Receipt[string]) {
	receipts, err := act.EnqueueMany(s.ctx(), s.clean.client, how, nil)
	require.NoError(s.t, err)
	return receipts
}

// serve starts a worker that calls through the proxy.
func (s *stage) serve(slots int, mux *redrive.Mux) *running {
	return s.serveFor(6*time.Second, slots, mux) // a stray is put back after a quarter of it
}

func (s *stage) serveFor(lease time.Duration, slots int, mux *redrive.Mux) *running {
	return s.start(mux, redrive.WorkerOptions{Concurrency: slots, Lease: lease, Trace: &redrive.WorkerTrace{
		JobLost: func(*redrive.Message) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.lost++
		},
	}})
}

// finish runs what waits, around the proxy, and returns what came of the use.
func (s *stage) finish(said ...any) string {
	w := s.clean.start(s.mux(), redrive.WorkerOptions{})
	s.clean.drained()
	require.NoError(s.t, w.stop())
	return s.sum(said...)
}

// began waits until a job has started.
func (s *stage) began(how string) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.runs[how] > 0
	}, patience, time.Millisecond, "no start")
}

// sum returns what the caller said, how often jobs ran, and the figures of the queue.
func (s *stage) sum(said ...any) string {
	out := make([]string, 0, len(said)+10)
	for _, v := range said {
		out = append(out, fmt.Sprint(v))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, how := range slices.Sorted(maps.Keys(s.runs)) {
		out = append(out, fmt.Sprintf("%s:%d", how, s.runs[how]))
	}
	if s.lost > 0 {
		out = append(out, fmt.Sprintf("lost=%d", s.lost))
	}
	q := s.clean.stats(redrive.DefaultQueue)
	for _, f := range []struct {
		name string
		n    int64
	}{
		{"ready", q.Ready}, {"delayed", q.Delayed}, {"active", q.Active}, {"dead", q.Dead},
		{"enqueued", q.Enqueued}, {"succeeded", q.Succeeded}, {"discarded", q.Discarded}, {"retried", q.Retried},
		{"snoozed", q.Snoozed}, {"crashed", q.Crashed}, {"interrupted", q.Interrupted}, {"released", q.Released},
		{"died", q.Died}, {"requeued", q.Requeued}, {"drained", q.Drained}, {"deleted", q.Deleted}, {"dropped", q.Dropped},
	} {
		if f.n != 0 {
			out = append(out, fmt.Sprintf("%s=%d", f.name, f.n))
		}
	}
	return strings.Join(out, " ")
}

// tries makes a call that is tried once until it succeeds; what it returns before
// says that it may be repeated.
func (s *stage) tries(call func() error) {
	s.t.Helper()
	for err := call(); err != nil; err = call() {
		require.ErrorIs(s.t, err, redrive.ErrUnavailable)
		require.NoError(s.t, s.ctx().Err())
	}
}
