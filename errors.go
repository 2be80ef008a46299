package redrive

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redrive-go/redrive/internal/store"
)

// Errors of an enqueue.
var (
	// ErrPayloadTooLarge: the encoded arguments exceed [ClientOptions.MaxPayload].
	ErrPayloadTooLarge = errors.New("payload too large")
	// ErrInvalidOptions: a field of [EnqueueOptions] is invalid; the text names it.
	ErrInvalidOptions = errors.New("invalid options")
	// ErrBackpressure: Redis is at its memory limit and takes no more jobs until
	// workers have drained some. Nothing was enqueued.
	ErrBackpressure = errors.New("redis is full")
	// ErrUnavailable: Redis could not be reached or could not answer in time. Other
	// calls return it, too: what they do may be done again.
	ErrUnavailable = errors.New("redis is unavailable")
)

// unavailable marks an error of a call that Redis did not answer, unless it is the
// caller's context that ended it.
func unavailable(ctx context.Context, err error) error {
	if ctx.Err() == nil && store.Transient(err) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// Errors of a receipt.
var (
	// ErrNoResult: the job has ended, or never existed, and left nothing to read:
	// its ResultTTL is zero or has passed.
	ErrNoResult = errors.New("redrive: the job left no result")
)

// ErrUnknownTask: no handler is registered for the job's task.
var ErrUnknownTask = errors.New("redrive: no handler for task")

// Causes of the cancellation of a job's context; see [context.Cause].
var (
	// ErrShutdown: the worker stops and the job has used up its grace. An error
	// returned now sends the job back to the front of its queue; no retry is used.
	ErrShutdown = errors.New("redrive: worker is shutting down")
	// ErrTimeout: the job ran longer than [TaskOptions.Timeout].
	ErrTimeout = errors.New("redrive: job timed out")
	// ErrLeaseLost: the worker's lease lapsed and another worker may own the job.
	ErrLeaseLost = errors.New("redrive: lease lost")
	// ErrLockLost: the lock that the job runs under may be held by another.
	ErrLockLost = errors.New("redrive: lock lost")
)

// AmbiguousError says that an enqueue was sent and no answer came: Redis may or
// may not have the jobs. Enqueue again with the same [EnqueueOptions.ID]: a job
// that is there already is reported as a duplicate and runs once.
type AmbiguousError struct {
	// IDs are the ids of the jobs in question.
	IDs []string
	// Err is why no answer came.
	Err error
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("no answer says whether redis has the %d jobs sent: %v", len(e.IDs), e.Err)
}

// Unwrap returns e.Err.
func (e *AmbiguousError) Unwrap() error { return e.Err }

// FailedError is what [Receipt.Wait] returns for a job that failed for good or
// was discarded.
type FailedError struct {
	// ID and Task name the job.
	ID, Task string
	// Reason says why it was given up.
	Reason Reason
	// Retries is how many were used.
	Retries int
	// Message is the text of the last error.
	Message string
}

func (e *FailedError) Error() string {
	return fmt.Sprintf("redrive: job %s of task %s failed (%s after %d retries): %s", e.ID, e.Task, e.Reason, e.Retries, e.Message)
}

// PanicError is what a panic in a handler, or its call of runtime.Goexit, becomes.
type PanicError struct {
	// Value is what the handler panicked with; nil for runtime.Goexit.
	Value any
	// Stack is the goroutine's stack, truncated to 4 KiB.
	Stack string
}

func (e *PanicError) Error() string {
	if e.Value == nil {
		return "handler called runtime.Goexit"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "panic: %v", e.Value)
	if e.Stack != "" {
		b.WriteString("\n")
		b.WriteString(e.Stack)
	}
	return b.String()
}

// Unwrap returns the value of the panic if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
