package main

const (
	rootPkg = "."
	wirePkg = "./internal/wire"
)

// engineMutants are defects of the worker and the client.
var engineMutants = []mutant{
	{
		name: "acknowledge-before-redis", breaks: "I1",
		story:   "An enqueue that Redis did not answer is reported as done.",
		edits:   []edit{{"lane.go", "case err == nil && l.replicas == 0:", "case err == nil || store.Transient(err):"}},
		pkg:     rootPkg,
		killers: []string{"TestAnUnreachableRedisIsSaidSoAndNothingIsAmbiguous"},
	},
	{
		name: "settled-before-redis", breaks: "I1",
		story:   "A job counts as settled when its end is sent, and not when Redis has it.",
		edits:   []edit{{"courier.go", "send := c.call(by, group, batch)", "send := c.call(by, group, batch)\n\tq.confirmed(batch, nil)"}},
		pkg:     rootPkg,
		killers: []string{"TestI1_NothingIsAcknowledgedBeforeRedisHasConfirmed"},
		part:    "embedded",
	},
	{
		name: "settle-on-a-cancelled-context", breaks: "I15",
		story:   "The end of a job is written under the context of Run: what returns during a shutdown runs again.",
		edits:   []edit{{"courier.go", "context.WithTimeout(s.settle, sendTimeout)", "context.WithTimeout(s.running, sendTimeout)"}},
		pkg:     rootPkg,
		killers: []string{"TestI15_WhatReturnsDuringTheShutdownIsSettled"},
	},
	{
		name: "deaf-handlers-hold-up-the-shutdown", breaks: "I15",
		story:   "Run waits for handlers that ignore their context past its timeout.",
		edits:   []edit{{"session.go", "s.await(deadline)", "s.await(deadline.Add(2 * time.Second))"}},
		pkg:     rootPkg,
		killers: []string{"TestI15_HandlersThatIgnoreTheirContextDoNotHoldUpTheShutdown"},
	},
	{
		name: "hanging-calls-hold-up-the-shutdown", breaks: "I15",
		story:   "Run waits for heartbeats into a black hole past its timeout.",
		edits:   []edit{{"session.go", "within(&s.keepers, time.Until(deadline)+150*time.Millisecond)", "s.keepers.Wait()"}},
		pkg:     rootPkg,
		killers: []string{"TestI15_ABlackHoleDoesNotHoldUpTheShutdown"},
	},
	{
		name: "leave-is-not-tried-again", breaks: "I15",
		story:   "The answer to the leave is lost, and Run says that its jobs must wait for the lease to lapse.",
		edits:   []edit{{"session.go", "!store.Transient(err)", "true"}},
		pkg:     rootPkg,
		killers: []string{"TestI15_AWorkerWhoseLeaveIsNotAnsweredLeavesAgain"},
	},
	{
		name: "shutdown-uses-a-retry", breaks: "I8",
		story:   "An error that the shutdown caused counts as the job's failure.",
		edits:   []edit{{"attempt.go", "case errors.Is(cause, ErrShutdown):", "case false:"}},
		pkg:     rootPkg,
		killers: []string{"TestI15_AnAttemptCutShortByAShutdownIsFirstAgain"},
	},
	{
		name: "outage-uses-a-retry", breaks: "I3",
		story:   "An error that the loss of the lease caused counts as the job's failure.",
		edits:   []edit{{"attempt.go", "case errors.Is(cause, ErrLeaseLost):", "case false:"}},
		pkg:     rootPkg,
		killers: []string{"TestI3_AnOutageLongerThanTheLeaseCancelsAndPutsBackUncounted"},
	},
	{
		name: "reap-without-grace", breaks: "I3",
		story:   "The first worker that is back after an outage takes the jobs of all others, which still run.",
		edits:   []edit{{"keeper.go", "lease - time.Since(k.contact); grace > 0", "lease - time.Since(k.contact); grace > lease"}},
		pkg:     rootPkg,
		killers: []string{"TestI3_OutageGrace"},
	},
	{
		name: "clock-jump-reaps-the-living", breaks: "I3",
		story:   "The clock of Redis jumps ahead, all leases lapse at once, and the first worker to see it takes the jobs of all others.",
		edits:   []edit{{"keeper.go", "jump > lease/3", "jump < lease/3 && jump > lease/3"}},
		pkg:     rootPkg,
		killers: []string{"TestI3_AJumpOfTheServersClockIsNoCrash"},
	},
	{
		name: "put-back-a-claim-in-flight", breaks: "I3",
		story:   "A job whose claim is on its way to its worker is given to another.",
		edits:   []edit{{"keeper.go", "time.Since(first.since) < q.s.opts.Lease/4", "false"}},
		pkg:     rootPkg,
		killers: []string{"TestI3_AClaimOnItsWayIsNotPutBack"},
	},
	{
		name: "disowned-claim-is-started", breaks: "I3",
		story:   "A claim is given up and its job put back; when its answer comes after all, the job is started all the same.",
		edits:   []edit{{"session.go", "q.disowned[id] = stray{token: token, since: time.Now()}", ""}},
		pkg:     rootPkg,
		killers: []string{"TestI3_AClaimThatWasGivenUpStartsNothingWhenItIsHeardOf"},
	},
	{
		name: "lost-lease-goes-unnoticed", breaks: "I3",
		story:   "A worker out of touch for a whole lease lets its handlers go on, while others run their jobs.",
		edits:   []edit{{"keeper.go", "k.q.loseLease()", ""}},
		pkg:     rootPkg,
		killers: []string{"TestI3_AWorkerOutOfTouchForALeaseCancelsItsHandlers"},
	},
	{
		name: "lease-ends-with-the-hanging-beat", breaks: "I3",
		story: "A handler hears that its lease has lapsed when the heartbeat that hangs is given up: until then another worker runs its job, too.",
		edits: []edit{
			{"keeper.go", "k.expiry.Reset(time.Until(until))", ""},
			{"keeper.go", "k.missed = true", "k.missed = true\n\t\tk.lapsed()"},
		},
		pkg:     rootPkg,
		killers: []string{"TestI3_AHandlersContextEndsBeforeAnotherWorkerCanHaveTheJob"},
	},
	{
		name: "unknown-task-is-dead-at-once", breaks: "I1",
		story:   "A job whose producer was deployed before its worker is a dead letter.",
		edits:   []edit{{"attempt.go", "if age > a.q.s.opts.UnknownTaskAge {", "if age >= 0 {"}},
		pkg:     rootPkg,
		killers: []string{"TestAnUnknownTaskWaitsForAWorkerThatKnowsIt"},
		part:    "embedded",
	},
	{
		name: "claims-go-on-in-a-shutdown", breaks: "I15",
		story:   "A worker that is told to stop goes on claiming with each job that it settles.",
		edits:   []edit{{"schedule.go", "if s.stopping || !q.hungry {", "if !q.hungry {"}},
		pkg:     rootPkg,
		killers: []string{"TestI15_AShutdownClaimsNothingMore"},
	},
	{
		name: "strays-stay", breaks: "I7",
		story:   "A job whose claim nobody heard of stays with a worker that does not run it.",
		edits:   []edit{{"keeper.go", "time.Since(first.since) < q.s.opts.Lease/4", "true"}},
		pkg:     rootPkg,
		killers: []string{"TestI3_AClaimOnItsWayIsNotPutBack"},
	},
	{
		name: "crash-uses-a-retry", breaks: "I8",
		story:   "The death of a process uses up a retry of the jobs that it ran.",
		edits:   []edit{{"keeper.go", "a.ledger.Crashes++", "a.ledger.Retries++"}},
		pkg:     rootPkg,
		killers: []string{"TestI8_ADeadWorkersJobsCountACrashAndNoRetry"},
	},
	{
		name: "poison-runs-for-ever", breaks: "I8",
		story:   "A job that kills its process each time is never given up.",
		edits:   []edit{{"keeper.go", "case a.ledger.Crashes >= q.s.opts.MaxCrashes:", "case false:"}},
		pkg:     rootPkg,
		killers: []string{"TestI8_TheLastCrashIsACrashLoop"},
	},
	{
		name: "snooze-uses-a-retry", breaks: "I8",
		story:   "A snooze counts as a failure.",
		edits:   []edit{{"attempt.go", "a.ledger.Snoozes++", "a.ledger.Retries++"}},
		pkg:     rootPkg,
		killers: []string{"TestI8_EachReturnValueMovesItsOwnCounter"},
	},
	{
		name: "nobody-reaps", breaks: "I9",
		story:   "The jobs of a dead worker stay with it.",
		edits:   []edit{{"keeper.go", "k.expired, k.lapse = b.Expired, time.Time{}", "k.expired, k.lapse = nil, time.Time{}"}},
		pkg:     rootPkg,
		killers: []string{"TestI8_ADeadWorkersJobsCountACrashAndNoRetry"},
	},
	{
		name: "refused-reap-is-reported", breaks: "I4",
		story:   "A reap that came too late is traced and logged as one that took place.",
		edits:   []edit{{"keeper.go", "backOf = without(backOf, settled.Refused)", "_ = settled"}},
		pkg:     rootPkg,
		killers: []string{"TestI4_AReapThatComesTooLateIsNotReported"},
	},
	{
		name: "broken-connection-puts-off-recovery", breaks: "I9",
		story:   "A worker whose connection breaks now and then never takes the jobs of a dead one.",
		edits:   []edit{{"keeper.go", "k.missed = true", "k.missed, k.contact = true, time.Time{}"}},
		pkg:     rootPkg,
		killers: []string{"TestI9_BrokenConnectionsDoNotPutOffTheRecovery"},
		part:    "embedded",
	},
	{
		name: "decode-error-aborts-a-sweep", breaks: "I13",
		story:   "One job of a dead worker that does not decode keeps all its others from running.",
		edits:   []edit{{"keeper.go", "case err != nil:\n\t\t\ta.bury(ReasonMalformed, err)", "case err != nil:\n\t\t\treturn 0, err"}},
		pkg:     rootPkg,
		killers: []string{"TestI8_ADeadWorkersJobsCountACrashAndNoRetry"},
	},
	{
		name: "panic-kills-the-worker", breaks: "I13",
		story:   "A handler that panics takes the process along.",
		edits:   []edit{{"attempt.go", "if r := recover(); r != nil {\n\t\t\tstack", "if r := any(nil); r != nil {\n\t\t\tstack"}},
		pkg:     rootPkg,
		killers: []string{"TestI8_EachReturnValueMovesItsOwnCounter"},
	},
	{
		name: "goexit-takes-a-runner", breaks: "I13",
		story:   "Each handler that ends its goroutine takes a slot along for good.",
		edits:   []edit{{"attempt.go", "s.runners.replace()", ""}},
		pkg:     rootPkg,
		killers: []string{"TestI13_AHandlerThatEndsItsGoroutineKeepsNoSlot"},
	},
	{
		name: "connections-stay-open", breaks: "I16",
		story:   "A worker that has stopped leaves its connections to Redis open.",
		edits:   []edit{{"session.go", "_ = s.ops.Close()", "_ = s.ops"}},
		pkg:     rootPkg,
		killers: []string{"TestI16_AWorkerThatStoppedHoldsNoConnection"},
	},
	{
		name: "lock-connections-stay-open", breaks: "I16",
		story:   "The connections that renewals use stay open after the last lock.",
		edits:   []edit{{"lock.go", "_ = l.own.Close()", "_ = l.own"}},
		pkg:     rootPkg,
		killers: []string{"TestI16_AWorkerThatStoppedHoldsNoConnection"},
	},
	{
		name: "letter-loses-unknown-members", breaks: "I2",
		story:   "What a newer producer wrote into a job is gone once it was a dead letter.",
		edits:   []edit{{"internal/wire/deadletter.go", "Headers: d.Headers, Extra: d.Extra,", "Headers: d.Headers,"}},
		pkg:     wirePkg,
		killers: []string{"TestDeadLetterEnvelope_RestoresWhatWasEnqueued"},
	},
	{
		name: "slot-given-away", breaks: "concurrency",
		story: "At its timeout a job is ended and its slot given to the next, while its handler still runs.",
		edits: []edit{{"attempt.go", "result, err = call(ctx, a.route.handler, &a.msg)\n\treturned = true",
			`ended, late := make(chan struct{}), make(<-chan time.Time)
	go func() {
		_, _ = call(ctx, a.route.handler, &a.msg)
		close(ended)
	}()
	if a.route.timeout > 0 {
		late = time.After(a.route.timeout)
	}
	select {
	case <-ended:
	case <-late:
		err = ErrTimeout
	}
	returned = true`}},
		pkg:     rootPkg,
		killers: []string{"TestASlotIsKeptUntilItsHandlerReturns"},
	},
	{
		name: "nobody-watches", breaks: "isolation",
		story:   "A quick task blocks, and what was claimed with it waits.",
		edits:   []edit{{"runners.go", "r.watch.Reset(patience)", ""}},
		pkg:     rootPkg,
		killers: []string{"TestAQuickTaskThatBlocksHoldsUpNothingClaimedWithIt"},
		part:    "virtual time",
	},
	{
		name: "watch-calls-one", breaks: "isolation",
		story:   "A quick task blocks, and what was claimed with it starts one by one.",
		edits:   []edit{{"runners.go", "r.hurry = true\n", "\n"}},
		pkg:     rootPkg,
		killers: []string{"TestAQuickTaskThatBlocksHoldsUpNothingClaimedWithIt"},
		part:    "virtual time",
	},
	{
		name: "rounds-wait-for-handlers", breaks: "isolation",
		story:   "Ended attempts are written only when no other waits to be run.",
		edits:   []edit{{"runners.go", " || now.Sub(r.due[0].since) > patience", ""}},
		pkg:     rootPkg,
		killers: []string{"TestJobsAreSettledWhileOthersOfTheirBatchWaitForAProcessor"},
	},
	{
		name: "weight-ignored", breaks: "fairness",
		story:   "Queues share the slots evenly, whatever their weight.",
		edits:   []edit{{"session.go", "weight: float64(o.Weight)", "weight: 1"}},
		pkg:     rootPkg,
		killers: []string{"TestWeightsShareSlotsAndNoQueueStarves"},
	},
	{
		name: "full-worker-keeps-the-news", breaks: "wake-up",
		story:   "A worker with all slots taken tells nobody that a job is due.",
		edits:   []edit{{"schedule.go", "if s.slots == 0 && q.told", "if s.slots < 0 && q.told"}},
		pkg:     rootPkg,
		killers: []string{"TestI12_ADelayedJobDoesNotWaitForTheWorkerThatKnowsOfIt"},
		part:    "redis",
	},
	{
		name: "stale-claim-forgets", breaks: "wake-up",
		story:   "The late answer to an old claim makes the worker forget what it has heard since.",
		edits:   []edit{{"schedule.go", "case y.news == q.news:", "default:"}},
		pkg:     rootPkg,
		killers: []string{"TestAStaleAnswerForgetsNothing"},
	},
}
