package redrive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redrive-go/redrive/internal/wire"
)

// Defaults and values of [DeadLetterOptions].
const (
	// DefaultMaxCount is how many dead letters of one task a queue keeps.
	DefaultMaxCount = 10_000
	// DefaultLetterAge is how long a queue keeps a dead letter.
	DefaultLetterAge = 90 * 24 * time.Hour
	// KeepAll, as MaxCount, keeps dead letters however many there are.
	KeepAll = -1
	// KeepForever, as MaxAge, keeps dead letters however old they are.
	KeepForever time.Duration = -1
	// DefaultOnDeadTimeout bounds one call of OnDead.
	DefaultOnDeadTimeout = 10 * time.Second
)

// DeadLetterOptions says what becomes of the dead letters of tasks. The zero value
// is what a task without a [DeadLetter] has.
type DeadLetterOptions struct {
	// MaxCount is how many dead letters of one task a queue keeps; the oldest beyond
	// it are dropped, whether [DeadLetterOptions.OnDead] has heard of them or not, and
	// whether they are under review or not. [KeepAll] is off.
	// Defaults to DefaultMaxCount, 10,000.
	MaxCount int
	// MaxAge is how long a dead letter is kept, from the death of its job; it may be
	// kept longer by up to the worker's lease. [KeepForever] is off.
	// Defaults to DefaultLetterAge, 90 days.
	MaxAge time.Duration
	// Redact returns what a dead letter shows in place of the arguments. Where that
	// differs from the arguments the letter is marked as redacted, and its job cannot
	// be requeued unless its arguments are edited. If Redact panics, or returns what
	// is not JSON, the letter shows null. Of a job that cannot be decoded, nothing is
	// kept. Redact must not change args. Error texts, headers and the idempotency key
	// are not passed to it and stay. It must be safe for concurrent use.
	// Defaults to keeping the arguments.
	Redact func(task string, args []byte) []byte
	// OnDead hears of every dead letter after Redis has it, at least once: the call
	// is owed in Redis from the moment of the burial, so that a worker which dies
	// before it, or during it, leaves it to another whose mux has an OnDead for the
	// task. An error or a panic has it called again, after a wait that doubles from a
	// second to five minutes. A letter that is requeued, deleted, drained or dropped
	// by then is heard of no more. It must be safe for concurrent use; up to 16 calls
	// run at once per queue, and a call that ignores its context keeps its place.
	// Defaults to none.
	OnDead func(ctx context.Context, e *DeadLetterEntry) error
	// OnDeadTimeout bounds the context of one call of OnDead. A call that a dead
	// worker left is made again so long, and two seconds, after it began.
	// Defaults to DefaultOnDeadTimeout, 10 s.
	OnDeadTimeout time.Duration
	// OnDrop hears, from the worker that dropped them, how many letters of a task
	// exceeded MaxCount or MaxAge. The process may die before the call, so sum up
	// [QueueStats.Dropped] where every one counts. It must be safe for concurrent use,
	// and is given ten seconds. Drops are logged, too. Defaults to none.
	OnDrop func(ctx context.Context, queue, task string, n int)
}

func (o DeadLetterOptions) withDefaults() DeadLetterOptions {
	setDefault(&o.MaxCount, DefaultMaxCount)
	setDefault(&o.MaxAge, DefaultLetterAge)
	setDefault(&o.OnDeadTimeout, DefaultOnDeadTimeout)
	return o
}

func (o *DeadLetterOptions) validate() error {
	var errs []error
	if o.MaxCount < KeepAll {
		errs = append(errs, fmt.Errorf("DeadLetterOptions.MaxCount is %d: use a positive number, or KeepAll", o.MaxCount))
	}
	if o.MaxAge < 0 && o.MaxAge != KeepForever {
		errs = append(errs, fmt.Errorf("DeadLetterOptions.MaxAge is %v: use a positive duration, or KeepForever", o.MaxAge))
	}
	if o.OnDeadTimeout < 0 {
		errs = append(errs, fmt.Errorf("DeadLetterOptions.OnDeadTimeout is %v: use a positive duration", o.OnDeadTimeout))
	}
	return errors.Join(errs...)
}

// defaultDeadLetter is for tasks without a [DeadLetter]. It is never changed.
var defaultDeadLetter = DeadLetterOptions{}.withDefaults()

// DeadLetter sets what becomes of the dead letters of the tasks it is around. It
// marks the chain and passes calls through: the worker reads it when it buries a
// job. Of several around a handler the innermost counts, as a whole. Jobs that have
// no handler (an unknown task, an envelope that cannot be decoded) take that of
// [Mux.Use] on the mux of the worker.
//
// Give it to [Mux.Use], [Mux.With], [Task.Handle] or [Chain], not to a middleware
// of your own, which would hide it. It panics on invalid options.
func DeadLetter(o DeadLetterOptions) Middleware {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		panic(fmt.Sprintf("redrive: DeadLetter: %v", err))
	}
	return func(next Handler) Handler {
		if inner := deadLetterOf(next); inner != nil {
			return &layer{Handler: next, kind: layerDeadLetter, dead: inner}
		}
		return &layer{Handler: next, kind: layerDeadLetter, dead: &o}
	}
}

// deadLetterOf returns the options that a handler's outermost layer carries.
func deadLetterOf(h Handler) *DeadLetterOptions {
	if l, ok := h.(*layer); ok {
		return l.dead
	}
	return nil
}

// withDeadLetter has h carry the options of a DeadLetter that it hides.
func withDeadLetter(h Handler, dead *DeadLetterOptions) Handler {
	l, ok := h.(*layer)
	switch {
	case dead == nil || ok && l.dead == dead:
		return h
	case ok:
		return &layer{Handler: l.Handler, kind: l.kind, dead: dead}
	}
	return &layer{Handler: h, dead: dead}
}

// deadLetter returns the options for the dead letters of a task.
func (t *routes) deadLetter(task string) *DeadLetterOptions {
	r := t.byTask[task]
	if r == nil {
		r = t.fallback
	}
	if r == nil || r.dead == nil {
		return &defaultDeadLetter
	}
	return r.dead
}

// hears reports whether any dead letter has an OnDead here.
func (t *routes) hears() bool {
	if t.fallback != nil && t.fallback.dead != nil && t.fallback.dead.OnDead != nil {
		return true
	}
	for _, r := range t.byTask {
		if r.dead != nil && r.dead.OnDead != nil {
			return true
		}
	}
	return false
}

// redact replaces the payload of a letter by what the user's function makes of it;
// whatever goes wrong, nothing that it meant to hide is kept.
func (o *DeadLetterOptions) redact(d *wire.DeadLetter) {
	if o.Redact == nil {
		return
	}
	if d.Raw != nil { // there is no telling what it holds
		d.Raw, d.Redacted = nil, true
		return
	}
	args := []byte(d.Args)
	if d.Data != nil {
		args = d.Data
	}
	shown, ok := callRedact(o.Redact, d.TaskName, args)
	if ok && bytes.Equal(shown, args) {
		return
	}
	d.Redacted, d.Args, d.Data = true, nil, nil
	if ok && wire.Valid(shown) {
		d.Args = json.RawMessage(bytes.Clone(shown))
	}
}

func callRedact(f func(string, []byte) []byte, task string, args []byte) (shown []byte, ok bool) {
	defer func() {
		if recover() != nil {
			shown, ok = nil, false
		}
	}()
	return f(task, bytes.Clone(args)), true
}
