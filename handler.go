package redrive

import (
	"context"
	"time"
)

// A Handler runs jobs. It is the untyped layer under [Task]: it sees the
// payload as bytes. The returned bytes are the job's result; the returned error
// settles the job (see the package comment for what each kind of error means).
type Handler interface {
	Process(ctx context.Context, m *Message) ([]byte, error)
}

// HandlerFunc adapts a function to [Handler].
type HandlerFunc func(ctx context.Context, m *Message) ([]byte, error)

// Process calls f.
func (f HandlerFunc) Process(ctx context.Context, m *Message) ([]byte, error) { return f(ctx, m) }

// Middleware wraps a handler. It runs once per attempt, so what it defers runs
// after every attempt, whatever its outcome.
type Middleware func(Handler) Handler

// Chain joins middleware into one: the first listed is the outermost.
func Chain(mws ...Middleware) Middleware {
	return func(h Handler) Handler {
		dead := deadLetterOf(h)
		for i := len(mws) - 1; i >= 0; i-- {
			h = mws[i](h)
			if dead == nil {
				dead = deadLetterOf(h)
			}
		}
		return withDeadLetter(h, dead)
	}
}

// Message is one job as a handler sees it. A handler must not change it, nor
// keep it or its payload after it returned.
type Message struct {
	// ID names the job; it is unique in its queue.
	ID string
	// Task is the name of the task that the job belongs to.
	Task string
	// Queue is the queue that the job was claimed from.
	Queue string
	// Payload is the encoded arguments.
	Payload []byte
	// Headers are what [EnqueueOptions.Headers] gave. May be nil.
	Headers map[string]string
	// IdempotencyKey is what [EnqueueOptions.IdempotencyKey] gave. May be empty.
	IdempotencyKey string
	// EnqueuedAt is when the job was enqueued, by the producer's clock.
	EnqueuedAt time.Time
	// RunAt is when the job was first due: EnqueuedAt, or later for a delayed job.
	RunAt time.Time
	// FirstStartedAt is when the first attempt of this generation began.
	FirstStartedAt time.Time
	// Generation counts how often the job came back from the dead letters.
	Generation int

	// Starts counts the attempts, this one included.
	Starts int
	// Retries counts the attempts that ended in an error, a panic or a timeout.
	// Only these use up [RetryPolicy.MaxRetries].
	Retries int
	// Crashes counts the attempts whose worker process died.
	Crashes int
	// Snoozes counts the attempts that ended in [Snooze].
	Snoozes int
	// Interrupts counts the attempts that a graceful shutdown cut short.
	Interrupts int
	// Errors is the error history: the first three and the last seven records.
	Errors []ErrorRecord

	ruleRetries map[int]int // retries counted by each RetryRule, by its index
	prefix      string      // of the worker
	token       int64       // of the claim of this attempt: a later attempt has a higher one
	noResult    bool        // set by Idempotent: the success has a result that is not known
}

// ErrorRecord is one failed attempt in a job's history.
type ErrorRecord struct {
	// Time is when the attempt ended.
	Time time.Time `json:"time"`
	// Attempt is the number of the attempt, from 1.
	Attempt int `json:"attempt"`
	// Worker is the identity of the worker that ran it.
	Worker string `json:"worker"`
	// Duration is how long the handler ran.
	Duration time.Duration `json:"duration_ns"`
	// Error is the error's text, truncated.
	Error string `json:"error"`
	// Delay is the wait that was chosen before the next attempt; zero for the last.
	Delay time.Duration `json:"delay_ns"`
}
