package redrive

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestATimeoutBehavesAsThatOfTheContextPackage does the same to a timeoutContext and
// to what it stands in for, looking at different things at different times, and finds
// no difference.
func TestATimeoutBehavesAsThatOfTheContextPackage(t *testing.T) {
	type key struct{}
	const timeout = 10 * time.Second
	stop := errors.New("stop")
	type subject struct {
		ctx    context.Context
		end    func()
		parent context.CancelCauseFunc
		child  context.Context
		after  atomic.Bool // an AfterFunc has run
	}
	looks := map[string]func(s *subject) any{
		"err":   func(s *subject) any { return s.ctx.Err() },
		"cause": func(s *subject) any { return context.Cause(s.ctx) },
		"value": func(s *subject) any { return s.ctx.Value(key{}) },
		"done": func(s *subject) any {
			select {
			case <-s.ctx.Done():
				return true
			default:
				return false
			}
		},
		"deadline": func(s *subject) any { d, ok := s.ctx.Deadline(); return [2]any{d, ok} },
		"child": func(s *subject) any {
			if s.child == nil {
				var cancel context.CancelFunc
				s.child, cancel = context.WithCancel(s.ctx)
				context.AfterFunc(s.ctx, func() { s.after.Store(true) })
				_ = cancel // ends with its parent
			}
			synctest.Wait()
			return [3]any{s.child.Err(), context.Cause(s.child), s.after.Load()}
		},
	}
	acts := map[string]func(s *subject){
		"wait a little": func(*subject) {},
		"wait":          func(*subject) {},
		"end":           func(s *subject) { s.end() },
		// Somebody looks just before, else the order of the two ends cannot be known.
		"parent ends": func(s *subject) { _ = s.ctx.Err(); s.parent(stop) },
	}
	waits := map[string]time.Duration{"wait a little": time.Second, "wait": timeout}
	names := func(m any) (out []string) {
		switch m := m.(type) {
		case map[string]func(s *subject) any:
			for _, n := range []string{"err", "cause", "value", "done", "deadline", "child"} {
				if m[n] != nil {
					out = append(out, n)
				}
			}
		case map[string]func(s *subject):
			for _, n := range []string{"wait a little", "wait", "end", "parent ends"} {
				if m[n] != nil {
					out = append(out, n)
				}
			}
		}
		return out
	}
	rapid.Check(t, func(rt *rapid.T) {
		bounded := rapid.Bool().Draw(rt, "the parent has a deadline")
		steps := rapid.SliceOfN(rapid.SampledFrom(append(names(looks), names(acts)...)), 1, 12).Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) {
			var both [2]subject
			for i := range both {
				s := &both[i]
				base := context.WithValue(context.Background(), key{}, 1)
				if bounded {
					var cancel context.CancelFunc
					base, cancel = context.WithTimeout(base, timeout/2)
					defer cancel()
				}
				base, s.parent = context.WithCancelCause(base)
				defer s.parent(nil)
				if i == 0 {
					s.ctx, s.end = withTimeout(base, timeout)
				} else {
					s.ctx, s.end = context.WithTimeoutCause(base, timeout, ErrTimeout)
				}
				defer s.end()
			}
			for n, step := range steps {
				if look := looks[step]; look != nil {
					require.Equal(t, look(&both[1]), look(&both[0]), "%s, step %d of %q", step, n, steps)
					continue
				}
				acts[step](&both[0])
				acts[step](&both[1])
				time.Sleep(waits[step])
				synctest.Wait()
			}
		})
	})
}
