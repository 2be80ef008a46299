package redrive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive/internal/store"
	"github.com/redrive-go/redrive/internal/wire"
)

// Defaults of [ClientOptions].
const (
	DefaultPrefix         = store.DefaultPrefix
	DefaultMaxPayload     = 1 << 20
	DefaultEnqueueTimeout = 10 * time.Second
	DefaultReplicaTimeout = time.Second
)

// ClientOptions configures a [Client].
type ClientOptions struct {
	// Prefix starts every key in Redis. Clients and workers that share queues
	// share it. It matches [A-Za-z0-9_.:-]{1,128}. Defaults to [DefaultPrefix].
	Prefix string
	// MaxPayload bounds the encoded arguments of a job, in bytes.
	// Defaults to [DefaultMaxPayload].
	MaxPayload int
	// EnqueueTimeout bounds how long an enqueue is tried while Redis does not
	// answer; a shorter deadline of the context goes first.
	// Defaults to [DefaultEnqueueTimeout].
	EnqueueTimeout time.Duration
	// Replicas is how many replicas must have a job before its enqueue is answered:
	// WAIT of Redis. With fewer in time the enqueue returns [*ReplicationError], and
	// the job stays. It narrows what a failover loses and does not rule it out: the
	// replica that is promoted may be another. Defaults to 0: the master's word is
	// enough.
	Replicas int
	// ReplicaTimeout bounds the wait for Replicas, which holds up the enqueues behind
	// it. It is less than the ReadTimeout of the client that [NewClient] is given.
	// Defaults to [DefaultReplicaTimeout], 1 s.
	ReplicaTimeout time.Duration
	// Logger is told of enqueues that Redis does not answer at once; never of
	// payloads. Defaults to [slog.Default].
	Logger *slog.Logger
}

func (o ClientOptions) withDefaults() ClientOptions {
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if o.MaxPayload == 0 {
		o.MaxPayload = DefaultMaxPayload
	}
	if o.EnqueueTimeout == 0 {
		o.EnqueueTimeout = DefaultEnqueueTimeout
	}
	setDefault(&o.ReplicaTimeout, DefaultReplicaTimeout)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

func (o *ClientOptions) validate() error {
	var errs []error
	if err := store.CheckName("ClientOptions.Prefix", o.Prefix); err != nil {
		errs = append(errs, err)
	}
	if o.MaxPayload < 0 {
		errs = append(errs, fmt.Errorf("ClientOptions.MaxPayload is %d: use a positive number of bytes", o.MaxPayload))
	}
	if o.EnqueueTimeout < 0 {
		errs = append(errs, fmt.Errorf("ClientOptions.EnqueueTimeout is %v: use a positive duration", o.EnqueueTimeout))
	}
	return errors.Join(errs...)
}

// A Client enqueues jobs and looks at queues. It is safe for use by many
// goroutines, holds no connection of its own, and needs no closing: concurrent
// calls of Enqueue share round trips.
type Client struct {
	rdb  redis.UniversalClient
	opts ClientOptions

	mu     sync.Mutex
	queues map[string]*clientQueue
}

// clientQueue is what a client keeps per queue it has used.
type clientQueue struct {
	store *store.Queue
	lane  *lane
	watch *watch
}

// NewClient returns a client that uses rdb, which stays the caller's to close.
// It reports every invalid option by name. Redis is not contacted.
func NewClient(rdb redis.UniversalClient, opts ClientOptions) (*Client, error) {
	opts = opts.withDefaults()
	err := errors.Join(opts.validate(), opts.validateReplicas(rdb))
	if rdb == nil {
		err = errors.Join(errors.New("rdb is nil: pass a go-redis client"), err)
	}
	if err != nil {
		return nil, fmt.Errorf("redrive: NewClient: %w", err)
	}
	return &Client{rdb: rdb, opts: opts, queues: make(map[string]*clientQueue)}, nil
}

// queue returns the state of a queue whose name is valid.
func (c *Client) queue(name string) *clientQueue {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, ok := c.queues[name]
	if !ok {
		s := store.Open(c.rdb, c.opts.Prefix, name)
		q = &clientQueue{store: s, lane: newLane(s, name, &c.opts), watch: newWatch(s)}
		c.queues[name] = q
	}
	return q
}

// EnqueueOptions changes one enqueue.
type EnqueueOptions struct {
	// ID names the job. While a job of that id waits, runs or is a dead letter, the
	// enqueue adds nothing and its receipt says Duplicate. It matches
	// [A-Za-z0-9_.:-]{1,128}. Defaults to a new UUIDv7.
	ID string
	// Queue is where the job goes. Defaults to the task's queue.
	Queue string
	// Delay is how long the job waits, from the moment Redis has it, by the clock
	// of Redis. Excludes RunAt. Defaults to 0: at once.
	Delay time.Duration
	// RunAt is when the job is due, by the clock of Redis; a time in the past is at
	// once. Excludes Delay. Defaults to the zero time: at once.
	RunAt time.Time
	// IdempotencyKey is what [Idempotent] keys on: jobs with the same key have one
	// effect. Defaults to none, and then Idempotent uses the job's ID.
	IdempotencyKey string
	// Headers travel with the job, for tracing and the like. Defaults to none.
	Headers map[string]string
}

// MaxIdempotencyKey bounds [EnqueueOptions.IdempotencyKey], in bytes.
const MaxIdempotencyKey = 512

func (o *EnqueueOptions) validate(jobs int) error {
	var errs []error
	add := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrInvalidOptions}, args...)...))
	}
	if err := store.CheckName("EnqueueOptions.Queue", o.Queue); err != nil {
		add("%w", err)
	}
	if o.ID != "" {
		if err := store.CheckName("EnqueueOptions.ID", o.ID); err != nil {
			add("%w", err)
		}
		if jobs > 1 {
			add("EnqueueOptions.ID names one job, and %d are enqueued: leave it empty", jobs)
		}
	}
	if o.Delay < 0 {
		add("EnqueueOptions.Delay is %v: use 0 for at once, or a positive duration", o.Delay)
	}
	if o.Delay > 0 && !o.RunAt.IsZero() {
		add("EnqueueOptions.Delay and RunAt are both set: use one")
	}
	if len(o.IdempotencyKey) > MaxIdempotencyKey {
		add("EnqueueOptions.IdempotencyKey has %d bytes: use at most %d", len(o.IdempotencyKey), MaxIdempotencyKey)
	}
	if !utf8.ValidString(o.IdempotencyKey) {
		// JSON would make one key of several.
		add("EnqueueOptions.IdempotencyKey is not valid UTF-8: encode it as text")
	}
	if o.IdempotencyKey != "" && jobs > 1 {
		add("EnqueueOptions.IdempotencyKey is one effect's, and %d jobs are enqueued: enqueue them singly", jobs)
	}
	return errors.Join(errs...)
}

// newJob builds one job around encoded arguments.
func (c *Client) newJob(task string, payload []byte, o *EnqueueOptions) (store.NewJob, error) {
	if len(payload) > c.opts.MaxPayload {
		return store.NewJob{}, fmt.Errorf("%w: %d bytes, and ClientOptions.MaxPayload is %d: pass a reference to the data instead",
			ErrPayloadTooLarge, len(payload), c.opts.MaxPayload)
	}
	now := time.Now()
	env := wire.Envelope{
		Task: task, Args: payload, Binary: !wire.Valid(payload),
		EnqueuedAt: now.UnixMilli(), IdempotencyKey: o.IdempotencyKey, Headers: o.Headers,
	}
	job := store.NewJob{ID: o.ID, Delay: o.Delay}
	switch {
	case o.Delay > 0:
		env.RunAt = now.Add(o.Delay).UnixMilli()
	case o.RunAt.After(now):
		// Rounded up: never early (I12).
		env.RunAt = o.RunAt.Add(time.Millisecond - 1).UnixMilli()
		job.RunAt = env.RunAt
	}
	if job.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return store.NewJob{}, fmt.Errorf("make a job id: %w", err)
		}
		job.ID = id.String()
	}
	job.Envelope = env.Append(nil)
	return job, nil
}

// enqueue sends jobs in bounded batches. It returns the indexes of jobs whose id
// was taken and how many jobs were answered for; jobs that too few replicas have
// are among them.
func (c *Client) enqueue(ctx context.Context, queue string, lookDead bool, jobs []store.NewJob) (taken []int, sent int, err error) {
	lane := c.queue(queue).lane
	for sent < len(jobs) {
		batch := jobs[sent:min(sent+store.MaxBatch, len(jobs))]
		dups, err := lane.enqueue(ctx, lookDead, batch)
		if _, few := errors.AsType[*ReplicationError](err); err != nil && !few {
			return taken, sent, err
		}
		for _, i := range dups {
			taken = append(taken, sent+i)
		}
		sent += len(batch)
		if err != nil {
			return taken, sent, err
		}
	}
	return taken, sent, nil
}

// QueueStats is one consistent look at a queue.
type QueueStats struct {
	// Ready jobs wait for a worker, Delayed ones for their time; Active ones are
	// owned by a worker; Dead ones are dead letters.
	Ready, Delayed, Active, Dead int64
	// Workers counts the workers with a lease, live or lapsed and not yet reaped.
	Workers int64
	// Paused is true between [Client.Pause] and [Client.Resume].
	Paused bool
	// The rest counts what happened since the queue was first used.
	Enqueued, Succeeded, Discarded, Retried, Snoozed, Crashed, Interrupted, Released, Died int64
	// Requeued, Drained, Deleted and Dropped dead letters are gone: jobs again, taken
	// out ([DeadLetters.Drain], [ReviewedLetter.Resolve]), deleted, or beyond the
	// retention of their task.
	Requeued, Drained, Deleted, Dropped int64
}

// Stats reads a queue's figures. A queue that was never used has none.
func (c *Client) Stats(ctx context.Context, queue string) (QueueStats, error) {
	if err := store.CheckName("queue name", queue); err != nil {
		return QueueStats{}, fmt.Errorf("redrive: Stats: %w", err)
	}
	s, err := c.queue(queue).store.Stats(ctx)
	if err != nil {
		return QueueStats{}, fmt.Errorf("redrive: %w", unavailable(ctx, err))
	}
	n := s.Counters
	return QueueStats{
		Ready: s.Ready, Delayed: s.Delayed, Active: s.Active, Dead: s.Dead, Workers: s.Workers, Paused: s.Paused,
		Enqueued: n[store.Enqueued], Succeeded: n[store.Succeeded], Discarded: n[store.Discarded],
		Retried: n[store.Retried], Snoozed: n[store.Snoozed], Crashed: n[store.Crashed],
		Interrupted: n[store.Interrupted], Released: n[store.Released], Died: n[store.Died],
		Requeued: n[store.Requeued], Drained: n[store.Drained], Deleted: n[store.Deleted], Dropped: n[store.Dropped],
	}, nil
}

// Pause stops workers from claiming jobs of the queue, from their next claim on,
// until [Client.Resume]. Jobs that run go on; enqueues are accepted.
func (c *Client) Pause(ctx context.Context, queue string) error {
	if err := store.CheckName("queue name", queue); err != nil {
		return fmt.Errorf("redrive: Pause: %w", err)
	}
	if err := c.queue(queue).store.Pause(ctx); err != nil {
		return fmt.Errorf("redrive: %w", unavailable(ctx, err))
	}
	return nil
}

// Resume ends a pause.
func (c *Client) Resume(ctx context.Context, queue string) error {
	if err := store.CheckName("queue name", queue); err != nil {
		return fmt.Errorf("redrive: Resume: %w", err)
	}
	if err := c.queue(queue).store.Resume(ctx); err != nil {
		return fmt.Errorf("redrive: %w", unavailable(ctx, err))
	}
	return nil
}
