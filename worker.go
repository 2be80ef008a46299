package redrive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive/internal/store"
)

// Defaults of [WorkerOptions].
const (
	DefaultConcurrency     = 10
	DefaultLease           = 30 * time.Second
	DefaultShutdownTimeout = 25 * time.Second
	DefaultMaxCrashes      = 3
	DefaultMaxResult       = 1 << 20
	DefaultUnknownTaskAge  = 24 * time.Hour
)

// MinLease is the shortest lease a worker accepts: renewals come three to a lease.
const MinLease = time.Second

// Queue names a queue that a worker serves.
type Queue struct {
	// Name matches [A-Za-z0-9_.:-]{1,128}. Required.
	Name string
	// Weight is the queue's share of the worker's slots when several queues have
	// work: 3 gets three jobs started for each one of 1. Defaults to 1.
	Weight int
}

// WorkerOptions configures a [Worker].
type WorkerOptions struct {
	// Prefix starts every key in Redis; clients use the same.
	// Defaults to [DefaultPrefix].
	Prefix string
	// Queues are the queues to serve. Defaults to [DefaultQueue] alone.
	Queues []Queue
	// Concurrency is how many jobs run at once: the worker's slots.
	// Defaults to [DefaultConcurrency].
	Concurrency int
	// Lease is how long the worker may be out of touch before others take its jobs
	// over. It is renewed every third of it; jobs may run far longer. At least
	// [MinLease]. Defaults to [DefaultLease].
	Lease time.Duration
	// ShutdownTimeout bounds [Worker.Run]'s end once its context is done. Shortly
	// before it (a fifth of it, at most a second), handlers that still run are
	// cancelled with [ErrShutdown]. Defaults to [DefaultShutdownTimeout].
	ShutdownTimeout time.Duration
	// MaxCrashes is how many times a job's process may die before the job is a dead
	// letter with [ReasonCrashLoop]. Defaults to [DefaultMaxCrashes].
	MaxCrashes int
	// MaxResult bounds an encoded result that is to be kept, in bytes; a larger one
	// is a permanent failure. Defaults to [DefaultMaxResult].
	MaxResult int
	// UnknownTaskAge is how long a job waits for a worker that knows its task; then
	// it is a dead letter with [ReasonUnknownTask]. Defaults to
	// [DefaultUnknownTaskAge].
	UnknownTaskAge time.Duration
	// Name starts the worker's identity in keys, logs and dead letters; a random
	// part follows. Defaults to the host's name.
	Name string
	// Logger gets what an operator needs to know; never payloads.
	// Defaults to [slog.Default].
	Logger *slog.Logger
	// Trace observes the worker. Defaults to none.
	Trace *WorkerTrace
}

func (o WorkerOptions) withDefaults() WorkerOptions {
	setDefault(&o.Prefix, DefaultPrefix)
	setDefault(&o.Concurrency, DefaultConcurrency)
	setDefault(&o.Lease, DefaultLease)
	setDefault(&o.ShutdownTimeout, DefaultShutdownTimeout)
	setDefault(&o.MaxCrashes, DefaultMaxCrashes)
	setDefault(&o.MaxResult, DefaultMaxResult)
	setDefault(&o.UnknownTaskAge, DefaultUnknownTaskAge)
	if len(o.Queues) == 0 {
		o.Queues = []Queue{{Name: DefaultQueue}}
	}
	o.Queues = append([]Queue(nil), o.Queues...)
	for i := range o.Queues {
		setDefault(&o.Queues[i].Weight, 1)
	}
	if o.Name == "" {
		o.Name = hostName()
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Trace == nil {
		o.Trace = &WorkerTrace{}
	}
	return o
}

// setDefault gives v its default if it is zero.
func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// hostName is the host's name, as far as it fits into a key.
func hostName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "worker"
	}
	name = strings.Map(func(r rune) rune {
		if store.CheckName("", string(r)) != nil {
			return '-'
		}
		return r
	}, name)
	return name[:min(len(name), 64)]
}

func (o *WorkerOptions) validate() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	positive := func(field string, v int64, text any) {
		if v < 0 {
			add("WorkerOptions.%s is %v: use a positive value, or 0 for the default", field, text)
		}
	}
	errs = append(errs, store.CheckName("WorkerOptions.Prefix", o.Prefix), store.CheckName("WorkerOptions.Name", o.Name))
	if len(o.Name) > 64 {
		add("WorkerOptions.Name has %d bytes: use at most 64", len(o.Name))
	}
	positive("Concurrency", int64(o.Concurrency), o.Concurrency)
	positive("ShutdownTimeout", int64(o.ShutdownTimeout), o.ShutdownTimeout)
	positive("MaxCrashes", int64(o.MaxCrashes), o.MaxCrashes)
	positive("MaxResult", int64(o.MaxResult), o.MaxResult)
	positive("UnknownTaskAge", int64(o.UnknownTaskAge), o.UnknownTaskAge)
	if o.Lease < MinLease {
		add("WorkerOptions.Lease is %v: use at least %v", o.Lease, MinLease)
	}
	seen := make(map[string]bool)
	for i, q := range o.Queues {
		if err := store.CheckName(fmt.Sprintf("WorkerOptions.Queues[%d].Name", i), q.Name); err != nil {
			errs = append(errs, err)
		}
		if q.Weight < 0 {
			add("WorkerOptions.Queues[%d].Weight is %d: use a positive weight", i, q.Weight)
		}
		if seen[q.Name] {
			add("WorkerOptions.Queues[%d].Name %q is listed twice", i, q.Name)
		}
		seen[q.Name] = true
	}
	return errors.Join(errs...)
}

// A Worker claims jobs, runs them through a [Mux] and settles them.
type Worker struct {
	rdb     redis.UniversalClient
	mux     *Mux
	opts    WorkerOptions
	running atomic.Bool
}

// NewWorker returns a worker that has not started. It reports every invalid
// option by name. Redis is not contacted. rdb stays the caller's to close.
func NewWorker(rdb redis.UniversalClient, mux *Mux, opts WorkerOptions) (*Worker, error) {
	opts = opts.withDefaults()
	errs := []error{opts.validate()}
	if rdb == nil {
		errs = append(errs, errors.New("rdb is nil: pass a go-redis client"))
	}
	if mux == nil {
		errs = append(errs, errors.New("mux is nil: pass the mux that handlers are registered with"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("redrive: NewWorker: %w", err)
	}
	return &Worker{rdb: rdb, mux: mux, opts: opts}, nil
}

// Run serves the queues until ctx is done, then drains: it claims no more, lets
// handlers finish, cancels them with [ErrShutdown] shortly before
// ShutdownTimeout, puts what did not finish back to the front of its queue, and
// returns. It returns nil after a clean drain, [ErrHandlersStuck] if handlers
// ignored their context (their goroutines are all that is left), and an error at
// once if Redis refuses the worker's credentials or commands. While Redis cannot
// be reached, Run keeps trying.
//
// The context is not passed on to handlers: theirs carries its values, and ends
// by the rules above. A worker runs once at a time.
func (w *Worker) Run(ctx context.Context) error {
	if !w.running.CompareAndSwap(false, true) {
		return errors.New("redrive: Worker.Run is running already")
	}
	defer w.running.Store(false)
	s := newSession(ctx, w)
	defer s.close()
	if err := s.register(ctx); err != nil {
		return fmt.Errorf("redrive: Run: %w", err)
	}
	if ctx.Err() == nil { // else it may still be registering, and has nothing to drain
		s.log.Info("redrive: worker started", "queues", len(s.queues), "concurrency", w.opts.Concurrency)
		s.start()
		s.dispatch(ctx)
	}
	err := s.drain()
	s.log.Info("redrive: worker stopped", "error", err)
	return err
}

// newIdentity names one run of a worker. It is never used again, so that a
// worker that comes back owns nothing of what it owned before.
func newIdentity(name string) string {
	id := uuid.New()
	return fmt.Sprintf("%s-%x", name, id[:8])
}
