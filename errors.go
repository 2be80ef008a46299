package redrive

import "errors"

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
