package redrive

import "time"

// WorkerTrace observes a worker; it can change nothing. Nil functions are
// skipped. They are called from the worker's goroutines, concurrently, and must
// return soon: what they delay is the worker.
type WorkerTrace struct {
	// JobStarted is called before the handler.
	JobStarted func(m *Message)
	// JobSettled is called when Redis has confirmed what became of the job.
	JobSettled func(m *Message, e JobEnd)
	// JobLost is called when Redis refuses the job's end: another worker owns the job,
	// and nothing was written. Or the end was written by an earlier try that was not
	// answered, and the lease lapsed before the next: Redis has forgotten the try.
	JobLost func(m *Message)
	// JobStuck is called once for a handler that still runs after its context has
	// been done for a third of the lease; it keeps its slot.
	JobStuck func(m *Message, since time.Duration)
	// JobReaped is called for each job taken from a worker whose lease lapsed.
	JobReaped func(queue, id, deadWorker string, crashes int)
	// RedisLost is called when a queue stops answering, RedisBack when it answers again.
	RedisLost func(queue string, err error)
	RedisBack func(queue string, after time.Duration)
}

// JobEnd is what became of one attempt.
type JobEnd struct {
	// Action is what was done.
	Action Action
	// Err is the handler's error; nil for a success.
	Err error
	// Reason is why the job is a dead letter, for [ActionDead].
	Reason Reason
	// Delay is the wait before the next attempt, for a retry or a snooze.
	Delay time.Duration
	// Duration is how long the handler ran.
	Duration time.Duration
}
