package main

// pillarMutants are defects of retries, idempotency, dead letters and locks.
var pillarMutants = []mutant{
	{
		name: "jitter-collapses-at-the-cap", breaks: "backoff",
		story:   "Once the wait has reached its maximum all jobs come back at the same moment.",
		edits:   []edit{{"backoff.go", "low = raw - raw/2", "if low = raw; raw < b.max {\n\t\t\t\t\tlow = raw / 2\n\t\t\t\t}"}},
		pkg:     rootPkg,
		killers: []string{"TestJitter_StillSpreadsAtTheCap"},
	},
	{
		name: "backoff-overflows", breaks: "backoff",
		story:   "After enough retries the wait does not fit its type, and is negative.",
		edits:   []edit{{"backoff.go", "f < float64(b.max)", "f > 0"}},
		pkg:     rootPkg,
		killers: []string{"TestBackoff_ExtremeValuesReachTheCapAndNotTheSign"},
	},
	{
		name: "retry-after-comes-early", breaks: "backoff",
		story:   "A server that asked for a minute is asked again before it.",
		edits:   []edit{{"backoff.go", "return d + uniform(0, extra", "return d - uniform(0, extra"}},
		pkg:     rootPkg,
		killers: []string{"TestRetryAfter_IsNeverEarlyAndSpreadsUpwards"},
	},
	{
		name: "negative-delay", breaks: "backoff",
		story:   "RetryAfter passes a negative wait on.",
		edits:   []edit{{"directive.go", "ActionRetryAfter, delay: max(d, 0), err: err}", "ActionRetryAfter, delay: d, err: err}"}},
		pkg:     rootPkg,
		killers: []string{"TestDisposition"},
	},
	{
		name: "complete-after-ack", breaks: "idempotency",
		story:   "The job is settled while its result is still being recorded: a crash in between runs the effect again.",
		edits:   []edit{{"idempotency.go", "if err := r.complete(job, result, why); err != nil {\n\t\treturn nil, err\n\t}", "go func() { _ = r.complete(job, result, why) }()"}},
		pkg:     rootPkg,
		killers: []string{"TestIdempotent_WhatAStoreAnswersDecidesTheJob"},
	},
	{
		name: "complete-on-a-cancelled-context", breaks: "idempotency",
		story:   "An effect that ends as its job's context does is not recorded, and happens again.",
		edits:   []edit{{"idempotency.go", "detach(job, r.opts.Lease)", "context.WithTimeout(job, r.opts.Lease)"}},
		pkg:     rootPkg,
		killers: []string{"TestIdempotent_ACompletionOutlivesTheJobsContextForAWhile"},
	},
	{
		name: "failure-keeps-its-claim", breaks: "idempotency",
		story:   "A job that failed keeps its key busy for a lease.",
		edits:   []edit{{"idempotency.go", "case err != nil:\n\t\tr.release(job)", "case err != nil:"}},
		pkg:     rootPkg,
		killers: []string{"TestIdempotent_EveryFailureReleasesTheClaim"},
	},
	{
		name: "requeue-loses-history", breaks: "dead letters",
		story:   "A requeued job has forgotten what it died of.",
		edits:   []edit{{"requeue.go", ", Errors: d.Errors, Dropped: d.ErrorsDropped", ""}},
		pkg:     rootPkg,
		killers: []string{"TestRequeueGivesTheFullRetriesAgainAndKeepsTheHistory"},
	},
	{
		name: "letters-drop-in-silence", breaks: "dead letters",
		story:   "Letters over their retention go, and nobody is told.",
		edits:   []edit{{"undertaker.go", "if dropped > 0 {", "if false {"}},
		pkg:     rootPkg,
		killers: []string{"TestRetentionKeepsMemoryFlatAndReportsEveryDrop"},
	},
	{
		name: "lock-context-ends-too-late", breaks: "I11",
		story:   "The holder's context lives on after its hold can have lapsed.",
		edits:   []edit{{"hold.go", "sent.Add(ttl - ttl/10)", "sent.Add(ttl + ttl/10)"}},
		pkg:     rootPkg,
		killers: []string{"TestI11_TheContextsTimeCountsFromBeforeTheCall"},
	},
	{
		name: "lock-counts-from-the-answer", breaks: "I11",
		story:   "The time of a hold counts from when its answer came, and not from when it was asked for.",
		edits:   []edit{{"lock.go", "newLock(parent, c.lockID, token, sent)", "newLock(parent, c.lockID, token, sent.Add(time.Since(sent)))"}},
		pkg:     rootPkg,
		killers: []string{"TestI11_TheContextsTimeCountsFromBeforeTheCall"},
	},
	{
		name: "conflict-uses-a-retry", breaks: "I8",
		story:   "A job that waits for another to release its lock uses up its retries.",
		edits:   []edit{{"singleton.go", "return nil, Snooze(time.Duration(o.OnConflict))", "return nil, RetryAfter(time.Duration(o.OnConflict), err)"}},
		pkg:     rootPkg,
		killers: []string{"TestSingletonConflicts"},
	},
}
