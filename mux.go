package redrive

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redrive-go/redrive/internal/store"
)

// A Mux sends each job to the handler of its task. Register everything before
// the worker runs; registration panics on a mistake, because its arguments are
// constants of the program.
//
// The order of middleware, outermost first, is: recovery (the worker's own),
// [DeadLetter], [Retry] (each [Task.Handle] adds its own), [Idempotent],
// [Singleton], the timeout (added by [Task.Handle]), the handler.
type Mux struct {
	mws    []Middleware
	root   bool // not a group
	sealed bool // a group or a route has copied mws
	table  *routes
}

// routes is shared by a mux and its groups.
type routes struct {
	byTask map[string]*route
	// fallback has what the middleware of the root mux says of the dead letters of
	// jobs that have no route.
	fallback *route
}

// route is what the worker knows of one task.
type route struct {
	handler   Handler
	retry     RetryPolicy   // for what no Retry middleware sees: runtime.Goexit
	timeout   time.Duration // 0 = none
	resultTTL time.Duration
	maxAge    time.Duration
	dead      *DeadLetterOptions // nil = none given

	// mean is the moving average of what attempts took, in ns, with a weight of 1/16
	// for the last; zero before the first.
	mean atomic.Int64
}

// took notes how long an attempt ran. Of two that end at once, one may be forgotten.
func (r *route) took(d time.Duration) {
	mean := int64(r.pace())
	r.mean.Store(mean + (int64(d)-mean)/16)
}

// pace is how long attempts have taken lately, on average. A task that has not shown
// it is taken for a slow one.
func (r *route) pace() time.Duration {
	if mean := r.mean.Load(); mean > 0 {
		return time.Duration(mean)
	}
	return time.Millisecond
}

// NewMux returns an empty mux.
func NewMux() *Mux {
	return &Mux{root: true, table: &routes{byTask: make(map[string]*route)}}
}

// Use adds middleware around every handler registered later. The first added is
// the outermost. It panics once a handler is registered or a group made:
// they would silently lack it.
func (m *Mux) Use(mws ...Middleware) {
	if m.sealed {
		panic("redrive: Mux.Use after Handle or With: the handlers registered before would lack it; call Use first")
	}
	m.mws = append(m.mws, checkMiddleware(mws)...)
	if m.root {
		m.table.fallback = &route{dead: deadLetterOf(Chain(m.mws...)(HandlerFunc(m.Process)))}
	}
}

// With returns a group: a mux that registers into m, with more middleware
// inside that of m.
func (m *Mux) With(mws ...Middleware) *Mux {
	m.sealed = true
	all := make([]Middleware, 0, len(m.mws)+len(mws))
	all = append(append(all, m.mws...), checkMiddleware(mws)...)
	return &Mux{mws: all, table: m.table}
}

// Handle registers a handler of raw messages. Most programs use [Task.Handle].
// It panics on an invalid or a taken name and on a nil handler.
func (m *Mux) Handle(task string, h Handler) {
	m.handle(task, h, nil, &route{retry: defaultPolicy})
}

// handle wraps h in mws, inside the middleware of the mux. It computes the chain
// once, so that a job costs no closure.
func (m *Mux) handle(task string, h Handler, mws []Middleware, r *route) {
	if err := store.CheckName("task name", task); err != nil {
		panic("redrive: Mux.Handle: " + err.Error())
	}
	if h == nil {
		panic(fmt.Sprintf("redrive: Mux.Handle(%q): handler is nil", task))
	}
	if _, taken := m.table.byTask[task]; taken {
		panic(fmt.Sprintf("redrive: Mux.Handle(%q): the task has a handler already", task))
	}
	m.sealed = true
	r.handler, r.dead = assemble(fmt.Sprintf("redrive: Mux.Handle(%q)", task), h, append(slices.Clone(m.mws), mws...))
	m.table.byTask[task] = r
}

// A layer is the handler that a middleware of this package returns: it tells the
// mux which one it is.
type layer struct {
	Handler
	kind layerKind
	dead *DeadLetterOptions // of the innermost DeadLetter inside; nil = none known
}

type layerKind string

const (
	layerIdempotent layerKind = "Idempotent"
	layerSingleton  layerKind = "Singleton"
	layerDeadLetter layerKind = "DeadLetter"
)

// assemble wraps h and refuses an order that would break a guarantee. The outer
// middleware of a [Mux] may be shared by tasks of all kinds, so only what is wrong
// in any case is refused:
//
//   - Singleton outside Idempotent: a job whose effect is done would be turned away
//     for the lock instead of replaying its result
//   - Idempotent twice: the outer loses its claim to the inner one
//
// It also returns the options of the innermost [DeadLetter].
func assemble(where string, h Handler, mws []Middleware) (Handler, *DeadLetterOptions) {
	idempotent, dead := false, deadLetterOf(h)
	for _, mw := range slices.Backward(mws) {
		h = mw(h)
		l, ok := h.(*layer)
		if !ok {
			continue
		}
		switch {
		case l.kind == layerSingleton && idempotent:
			panic(where + ": Singleton is outside Idempotent: list Idempotent first, so that finished work is replayed and not turned away")
		case l.kind == layerIdempotent && idempotent:
			panic(where + ": Idempotent is there twice: keep one")
		}
		idempotent = idempotent || l.kind == layerIdempotent
		if dead == nil {
			dead = l.dead
		}
	}
	return h, dead
}

// Process runs the handler of the message's task; a task without one returns
// [ErrUnknownTask].
func (m *Mux) Process(ctx context.Context, msg *Message) ([]byte, error) {
	r, ok := m.table.byTask[msg.Task]
	if !ok {
		return nil, fmt.Errorf("%w %q", ErrUnknownTask, msg.Task)
	}
	return r.handler.Process(ctx, msg)
}

func checkMiddleware(mws []Middleware) []Middleware {
	for i, mw := range mws {
		if mw == nil {
			panic(fmt.Sprintf("redrive: middleware %d is nil", i))
		}
	}
	return mws
}
