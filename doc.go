// Package redrive is a task queue on Redis whose subject is what happens when
// work fails: retries, idempotency, dead letters and locks.
//
// A [Task] names a kind of work and the types of its arguments and result. A
// [Client] enqueues jobs of it. A [Worker], in the same process or another,
// claims jobs and runs them through the handlers of a [Mux]:
//
//	enqueue ──▶ ready ──claim──▶ active ──nil──────────────▶ done
//	              ▲  ▲             │ ├─error, Snooze──▶ delayed ─┐
//	              │  └─────────────┼─┼──────────────── when due ─┘
//	              └─shutdown, crash┘ └─Permanent, retries used up─▶ dead letter
//
// What a handler returns settles its job, and nothing else does:
//
//   - nil: done; the result is kept for [TaskOptions.ResultTTL]
//   - an error: the job runs again as its [RetryPolicy] says, or becomes a dead
//     letter when retries or [TaskOptions.MaxAge] are used up
//   - [RetryAfter]: the same, after the wait it names
//   - [Snooze]: the job runs again later and no retry is used
//   - [Permanent]: a dead letter at once
//   - [Discard]: gone, counted and logged
//   - a panic or runtime.Goexit: a [*PanicError], as an error
//   - an error while the context's cause is [ErrShutdown]: back to the front of
//     the queue, no retry is used
//   - anything while another worker owns the job ([ErrLeaseLost]): nothing is
//     written
//
// A job runs at least once. Every settle carries the token of its claim and is
// refused when that is not current, so a worker that was thought dead changes
// nothing. docs/guarantees.md lists what is promised and which test shows it.
package redrive
