package redrive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/redrive-go/redrive/internal/store"
)

// DefaultQueue is the queue of tasks that name none.
const DefaultQueue = "default"

// DefaultTimeout bounds one attempt of a task that sets no timeout.
const DefaultTimeout = 10 * time.Minute

// NoTimeout, as [TaskOptions.Timeout], lets an attempt run for ever.
const NoTimeout time.Duration = -1

// None is the result type of a task that has no result.
type None struct{}

// Codec encodes arguments and results. Encoded bytes that are valid JSON travel
// as they are, so that Redis shows them readable; others travel as base64.
type Codec interface {
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error
}

// TaskOptions is what all jobs of a task share: the data half of a base class.
// Its behavioural half is a group, [Mux.With].
type TaskOptions struct {
	// Queue is where jobs go, unless [EnqueueOptions.Queue] says otherwise.
	// Defaults to [DefaultQueue].
	Queue string
	// Timeout bounds one attempt: past it the handler's context is cancelled with
	// [ErrTimeout]. The handler keeps its slot until it returns. [NoTimeout] is
	// off. Defaults to [DefaultTimeout].
	Timeout time.Duration
	// Retry says what follows a failed attempt. Defaults to the policy that the
	// zero [RetryPolicy] describes.
	Retry RetryPolicy
	// ResultTTL is how long the result is kept after the job's end, for
	// [Receipt.Wait]. Defaults to 0: not kept.
	ResultTTL time.Duration
	// MaxAge bounds a job's life, from when it was first due (its enqueue, or the
	// end of its delay): a job older than that does not start, and one whose next
	// attempt would be later is dead now. Defaults to 0: no bound.
	MaxAge time.Duration
	// Codec encodes arguments and results. Defaults to encoding/json.
	Codec Codec
}

// With returns a copy of o that f has changed.
func (o TaskOptions) With(f func(*TaskOptions)) TaskOptions {
	f(&o)
	return o
}

func (o TaskOptions) withDefaults() TaskOptions {
	if o.Queue == "" {
		o.Queue = DefaultQueue
	}
	switch o.Timeout {
	case 0:
		o.Timeout = DefaultTimeout
	case NoTimeout:
		o.Timeout = 0
	}
	if o.Codec == nil {
		o.Codec = jsonCodec{}
	}
	o.Retry = o.Retry.withDefaults()
	return o
}

func (o *TaskOptions) validate() error {
	var errs []error
	if err := store.CheckName("TaskOptions.Queue", o.Queue); err != nil {
		errs = append(errs, err)
	}
	if o.Timeout < 0 {
		errs = append(errs, fmt.Errorf("TaskOptions.Timeout is %v: use a positive duration, or NoTimeout", o.Timeout))
	}
	if o.ResultTTL < 0 {
		errs = append(errs, fmt.Errorf("TaskOptions.ResultTTL is %v: use 0 for no result, or a positive duration", o.ResultTTL))
	}
	if o.MaxAge < 0 {
		errs = append(errs, fmt.Errorf("TaskOptions.MaxAge is %v: use 0 for no bound, or a positive duration", o.MaxAge))
	}
	if err := o.Retry.validate(); err != nil {
		errs = append(errs, fmt.Errorf("TaskOptions.Retry: %w", err))
	}
	return errors.Join(errs...)
}

// A Task is a kind of work: a name, the types of its arguments and its result,
// and the options its jobs share. It is a value to declare once, in a package
// that producers and workers import.
type Task[A, R any] struct {
	name    string
	opts    TaskOptions
	pointer bool // A is a pointer type
}

// NewTask defines a task. It panics on an invalid name or option: they are
// constants of the program. Names match [A-Za-z0-9_.:-]{1,128}.
func NewTask[A, R any](name string, opts TaskOptions) *Task[A, R] {
	opts = opts.withDefaults()
	if err := errors.Join(store.CheckName("task name", name), opts.validate()); err != nil {
		panic(fmt.Sprintf("redrive: NewTask(%q): %v", name, err))
	}
	return &Task[A, R]{name: name, opts: opts, pointer: reflect.TypeFor[A]().Kind() == reflect.Pointer}
}

// Name returns the task's name.
func (t *Task[A, R]) Name() string { return t.name }

// Options returns the task's options, defaults filled in. A timeout of
// [NoTimeout] reads as 0.
func (t *Task[A, R]) Options() TaskOptions { return t.opts }

// Enqueue adds a job. Nil options are the defaults.
//
// It answers when Redis has the job (what Redis makes durable is its own
// setting). It returns [ErrPayloadTooLarge], [ErrInvalidOptions] or an encoding
// error before Redis is touched; [ErrBackpressure] when Redis is full;
// [*AmbiguousError] when no answer says whether Redis has the job;
// [*ReplicationError], along with the receipt, when Redis has it and fewer replicas
// than [ClientOptions.Replicas] do.
func (t *Task[A, R]) Enqueue(ctx context.Context, c *Client, args A, opts *EnqueueOptions) (*Receipt[R], error) {
	receipts, err := t.enqueue(ctx, c, []A{args}, opts)
	if len(receipts) == 0 {
		return nil, err
	}
	return &receipts[0], err
}

// EnqueueMany adds a job for each of the arguments, in order, in one script call
// per 500 jobs. Options apply to each job, so ID and IdempotencyKey must be
// empty unless there is exactly one.
//
// All arguments are encoded and checked before the first job is sent. If a later
// batch fails, the receipts of the batches before it are returned along with
// the error; if it fails by a [*ReplicationError], those of its own jobs, too.
func (t *Task[A, R]) EnqueueMany(ctx context.Context, c *Client, args []A, opts *EnqueueOptions) ([]*Receipt[R], error) {
	all, err := t.enqueue(ctx, c, args, opts)
	receipts := make([]*Receipt[R], len(all))
	for i := range all {
		receipts[i] = &all[i]
	}
	return receipts, err
}

func (t *Task[A, R]) enqueue(ctx context.Context, c *Client, args []A, opts *EnqueueOptions) ([]Receipt[R], error) {
	if c == nil {
		return nil, fmt.Errorf("redrive: enqueue %s: client is nil", t.name)
	}
	o := EnqueueOptions{}
	if opts != nil {
		o = *opts
	}
	if o.Queue == "" {
		o.Queue = t.opts.Queue
	}
	jobs, err := t.encode(c, args, &o)
	if err != nil {
		return nil, fmt.Errorf("redrive: enqueue %s: %w", t.name, err)
	}
	taken, sent, err := c.enqueue(ctx, o.Queue, o.ID != "", jobs)
	receipts := make([]Receipt[R], sent)
	for i := range receipts {
		receipts[i] = t.receipt(c, o.Queue, jobs[i].ID)
	}
	for _, i := range taken {
		receipts[i].Duplicate = true
	}
	if err != nil {
		err = fmt.Errorf("redrive: enqueue %s: %w", t.name, err)
	}
	return receipts, err
}

// encode turns arguments into jobs, or reports every problem.
func (t *Task[A, R]) encode(c *Client, args []A, o *EnqueueOptions) ([]store.NewJob, error) {
	if err := o.validate(len(args)); err != nil {
		return nil, err
	}
	jobs := make([]store.NewJob, len(args))
	for i := range args {
		if t.pointer && reflect.ValueOf(args[i]).IsNil() {
			return nil, fmt.Errorf("%w: the arguments are a nil %T: pass a value", ErrInvalidOptions, args[i])
		}
		payload, err := marshal(t.opts.Codec, args[i])
		if err != nil {
			return nil, fmt.Errorf("encode the arguments: %w", err)
		}
		if jobs[i], err = c.newJob(t.name, payload, o); err != nil {
			return nil, err
		}
	}
	return jobs, nil
}

// Receipt returns a receipt for a job enqueued earlier, perhaps by another
// process, on the task's own queue.
func (t *Task[A, R]) Receipt(c *Client, id string) *Receipt[R] {
	r := t.receipt(c, t.opts.Queue, id)
	return &r
}

func (t *Task[A, R]) receipt(c *Client, queue, id string) Receipt[R] {
	return Receipt[R]{ID: id, client: c, queue: queue, codec: t.opts.Codec}
}

// Handle registers fn as the task's handler, inside the middleware of the mux,
// the task's [Retry] policy and mws, in this order. It panics on a taken name
// and on a nil function.
func (t *Task[A, R]) Handle(m *Mux, fn func(context.Context, *Job[A]) (R, error), mws ...Middleware) {
	chain := append([]Middleware{Retry(t.opts.Retry)}, checkMiddleware(mws)...)
	m.handle(t.name, t.Handler(fn), chain, &route{
		retry: t.opts.Retry, timeout: t.opts.Timeout, resultTTL: t.opts.ResultTTL, maxAge: t.opts.MaxAge,
	})
}

// Handler returns fn as an untyped handler: it decodes the arguments, bounds
// the attempt by the task's timeout and encodes the result. Arguments that do
// not decode and a result that does not encode are permanent failures.
func (t *Task[A, R]) Handler(fn func(context.Context, *Job[A]) (R, error)) Handler {
	if fn == nil {
		panic(fmt.Sprintf("redrive: task %q: handler is nil", t.name))
	}
	timeout, codec := t.opts.Timeout, t.opts.Codec
	return HandlerFunc(func(ctx context.Context, m *Message) ([]byte, error) {
		job := Job[A]{Message: m}
		if err := codec.Unmarshal(m.Payload, &job.Args); err != nil {
			return nil, permanentReason(ReasonMalformed, fmt.Errorf("decode the arguments of %s: %w", m.Task, err))
		}
		if timeout > 0 {
			timed, end := withTimeout(ctx, timeout)
			defer end()
			ctx = underLock(timed)
		}
		result, err := fn(ctx, &job)
		if err != nil {
			return nil, err
		}
		if _, none := any(result).(None); none {
			return nil, nil
		}
		b, err := marshal(codec, result)
		if err != nil {
			return nil, Permanent(fmt.Errorf("%w of %s: %w", errEncodeResult, m.Task, err))
		}
		return b, nil
	})
}

// errEncodeResult tells [Idempotent] that the handler's work is done all the same.
var errEncodeResult = errors.New("encode the result")

// Key adapts a function of the task's arguments to the key functions of
// [Idempotent] and [Singleton]. Arguments that do not decode give an empty key.
func (t *Task[A, R]) Key(f func(A) string) func(*Message) string {
	return func(m *Message) string {
		var args A
		if err := t.opts.Codec.Unmarshal(m.Payload, &args); err != nil {
			return ""
		}
		return f(args)
	}
}

// Job is what a typed handler gets: the message and its decoded arguments.
type Job[A any] struct {
	*Message
	Args A
}

// NoResult adapts a handler that returns only an error.
func NoResult[A any](fn func(context.Context, *Job[A]) error) func(context.Context, *Job[A]) (None, error) {
	return func(ctx context.Context, job *Job[A]) (None, error) { return None{}, fn(ctx, job) }
}

// jsonCodec is the default codec.
type jsonCodec struct{}

func (jsonCodec) Marshal(v any) ([]byte, error) { return json.Marshal(v) }

// Unmarshal says what kind of value does not fit; encoding/json quotes numbers, and
// errors are logged.
func (jsonCodec) Unmarshal(data []byte, v any) error {
	err := json.Unmarshal(data, v)
	if misfit, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		kind := *misfit
		kind.Value, _, _ = strings.Cut(misfit.Value, " ")
		return &kind
	}
	return err
}

// marshal turns a panic of a user's codec or Marshal method into an error.
func marshal(c Codec, v any) (b []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return c.Marshal(v)
}
