package main

const (
	storePkg = "./internal/store"
	lua      = scriptsDir + "/"
)

// protocolMutants are defects of the scripts, and of the code that calls them.
var protocolMutants = []mutant{
	{
		name: "settle-without-token", breaks: "I4",
		story:   "Whoever names a job that is claimed ends it, with a token of long ago.",
		edits:   []edit{{lua + "fence.lua", "held[i + 2] == ARGV[at + 1]", "held[i + 2]"}},
		pkg:     storePkg,
		killers: []string{"TestI4_NothingEndsWithoutTheCurrentToken"},
	},
	{
		name: "extend-by-id", breaks: "I4",
		story:   "A claim on an effect is extended by its key alone: a handler that slept past its lease keeps the next one out.",
		edits:   []edit{{lua + "idem_extend.lua", "or r[2] ~= ARGV[1] or r[3] ~= ARGV[2] or r[4] ~= ARGV[3] ", ""}},
		pkg:     storePkg,
		killers: []string{"TestEffectGoesThroughItsStates"},
	},
	{
		name: "token-by-incr", breaks: "I4",
		story:   "Tokens count from a key that a failover loses: an old claim's token is given again.",
		edits:   []edit{{lua + "claim.lua", "math.max(us, tonumber(st[2] or '0') + 1)", "tonumber(st[2] or '0') + 1"}},
		pkg:     storePkg,
		killers: []string{"TestI4_TokensDoNotGoBackWhenTheCounterIsLost"},
	},
	{
		name: "review-without-token", breaks: "I4",
		story:   "A reviewer whose review has lapsed ends a letter that another has under review.",
		edits:   []edit{{lua + "dead_settle.lua", "token ~= '' and holder ~= token", "false"}},
		pkg:     rootPkg,
		killers: []string{"TestReviewsComeBackWhenTheReviewerDies"},
	},
	{
		name: "enqueue-without-nonce", breaks: "I6",
		story:   "An enqueue that is sent again after its job has ended adds it again.",
		edits:   []edit{{lua + "enqueue.lua", "if tonumber(n) == call then return {now, taken} end", ""}},
		pkg:     storePkg,
		killers: []string{"TestI6_EveryQueueScriptTwiceHasTheEffectOfOne"},
	},
	{
		name: "enqueue-takes-a-late-copy", breaks: "I6",
		story:   "A copy of an enqueue that arrives after the next one adds its jobs again.",
		edits:   []edit{{lua + "enqueue.lua", "if tonumber(n) > call then return {-1} end", ""}},
		pkg:     storePkg,
		killers: []string{"TestI6_EveryQueueScriptTwiceHasTheEffectOfOne"},
	},
	{
		name: "settle-without-memory", breaks: "I6",
		story:   "The end of a job that is sent again is refused: the worker believes that it lost the job.",
		edits:   []edit{{lua + "fence.lua", "if call == ARGV[1] then return answer end", ""}},
		pkg:     storePkg,
		killers: []string{"TestI6_EveryQueueScriptTwiceHasTheEffectOfOne"},
	},
	{
		name: "letters-without-memory", breaks: "I6",
		story:   "A requeue that is sent again answers that there is no such letter.",
		edits:   []edit{{lua + "dead_forget.lua", "if last == ARGV[1] then return before end", ""}},
		pkg:     storePkg,
		killers: []string{"TestI6_EveryDeadLetterScriptRunsTwiceAndHasTheEffectOfOne"},
	},
	{
		name: "claim-without-memory", breaks: "I7",
		story:   "A claim that is sent again takes other jobs: the first ones are owned by a worker that knows nothing of them.",
		edits:   []edit{{lua + "claim.lua", "if last and tonumber(last) == call then", "if false then"}},
		pkg:     storePkg,
		killers: []string{"TestI7_AClaimSentAgainGetsTheSameJobs"},
	},
	{
		name: "enqueue-ignores-duplicates", breaks: "I2",
		story:   "An id that is taken gets another payload, and a second place in the queue.",
		edits:   []edit{{lua + "enqueue.lua", "if have[i] or dead[i] or seen[id] then", "if seen[id] then"}},
		pkg:     storePkg,
		killers: []string{"TestI2_AJobHasItsOwnPayloadAndATakenIDKeepsTheFirst"},
	},
	{
		name: "batch-shares-a-payload", breaks: "I2",
		story:   "All jobs of a batch get the payload of its first.",
		edits:   []edit{{lua + "enqueue.lua", "fields[#fields + 1] = ARGV[i * 3 + 2]", "fields[#fields + 1] = ARGV[5]"}},
		pkg:     storePkg,
		killers: []string{"TestI2_AJobHasItsOwnPayloadAndATakenIDKeepsTheFirst"},
	},
	{
		name: "reap-the-living", breaks: "I3",
		story:   "A worker that was thought dead and is back has its jobs taken all the same.",
		edits:   []edit{{lua + "fence.lua", "lapsed = not lease or tonumber(lease) < clock()", "lapsed = true"}},
		pkg:     storePkg,
		killers: []string{"TestI3_ALivingWorkersJobsAreNotTaken"},
	},
	{
		name: "show-the-living", breaks: "I3",
		story:   "The jobs of any worker are shown to who wants to reap it.",
		edits:   []edit{{lua + "expired.lua", "if lease and tonumber(lease) >= now then", "if false then"}},
		pkg:     storePkg,
		killers: []string{"TestI3_ALivingWorkersJobsAreNotTaken"},
	},
	{
		name: "claim-without-lease", breaks: "I9",
		story:   "A worker without a lease gets jobs: when it dies nobody reaps it.",
		edits:   []edit{{lua + "claim.lua", "if not lease or tonumber(lease) < now then", "if false then"}},
		pkg:     storePkg,
		killers: []string{"TestI9_AWorkerWithoutALeaseGetsNoJobs"},
	},
	{
		name: "claim-takes-delayed-early", breaks: "I12",
		story:   "Whoever is due takes along what is due soon.",
		edits:   []edit{{lua + "claim.lua", "'-inf', now, 'BYSCORE', 'LIMIT', 0, n", "'-inf', now + 3600000, 'BYSCORE', 'LIMIT', 0, n"}},
		pkg:     storePkg,
		killers: []string{"TestI12_AClaimLeavesWhatIsNotDue"},
	},
	{
		name: "write-before-read", breaks: "I14",
		story: "A claim takes ids off the queue before it has read their payloads: one that fails at the reading loses them.",
		edits: []edit{{lua + "claim.lua", "local popped, wait = #ids, {}",
			"local popped, wait = 0, {}\nif #ids > 0 then redis.call('LPOP', KEYS[1], #ids) end"}},
		pkg:     storePkg,
		killers: []string{"TestI14_ACallThatCannotReadHasWrittenNothing"},
	},
	{
		name: "no-leading-hdel", breaks: "I14",
		story:   "The first write of an end is one that a full Redis refuses: the queue cannot drain.",
		edits:   []edit{{lua + "fence.lua", "redis.call('HDEL', KEYS[1], unpack(mine))", "redis.call('HSET', KEYS[1], ARGV[3], '')\nredis.call('HDEL', KEYS[1], unpack(mine))"}},
		pkg:     storePkg,
		killers: []string{"TestI14_AFullRedisRefusesAnEnqueueAsAWholeAndNoEnd"},
	},
	{
		name: "unbounded-unpack", breaks: "I14",
		story:   "A worker that leaves gives all its jobs back in one call: past 8,000 the script raises.",
		edits:   []edit{{lua + "leave.lua", "if #ids < tonumber(ARGV[2]) then", "if true then"}},
		pkg:     storePkg,
		killers: []string{"TestI14_MoreJobsThanAScriptCanUnpack"},
	},
	{
		name: "unbounded-batch", breaks: "I14",
		story:   "A claim hands out whatever number it is asked for.",
		edits:   []edit{{"internal/store/claim.go", "min(c.N, MaxBatch)", "c.N"}},
		pkg:     storePkg,
		killers: []string{"TestI14_MoreJobsThanAScriptCanUnpack"},
	},
	{
		name: "release-at-the-tail", breaks: "I15",
		story:   "What a shutdown puts back waits behind the whole queue.",
		edits:   []edit{{lua + "putback.lua", "redis.call('LPUSH', KEYS[3], unpack(front))", "redis.call('RPUSH', KEYS[3], unpack(front))"}},
		pkg:     storePkg,
		killers: []string{"TestI15_WhatIsReleasedIsNext"},
	},
	{
		name: "leave-at-the-tail", breaks: "I15",
		story:   "What a worker that leaves still owned waits behind the whole queue.",
		edits:   []edit{{lua + "leave.lua", "'LPUSH'", "'RPUSH'"}},
		pkg:     storePkg,
		killers: []string{"TestI15_WhatIsReleasedIsNext"},
	},
	{
		name: "leave-drops-jobs", breaks: "I1",
		story:   "What a worker that leaves still owned is in no list any more.",
		edits:   []edit{{lua + "leave.lua", "redis.call('LPUSH', KEYS[3], unpack(ids))", ""}},
		pkg:     storePkg,
		killers: []string{"TestI5_AfterEveryCommandAJobIsInOnePlace", "TestI15_WhatIsReleasedIsNext"},
	},
	{
		name: "retry-drops-the-job", breaks: "I1",
		story:   "A job that is put back with a delay is in no list any more.",
		edits:   []edit{{lua + "putback.lua", "redis.call('ZADD', KEYS[4], unpack(later))", ""}},
		pkg:     storePkg,
		killers: []string{"TestI5_AfterEveryCommandAJobIsInOnePlace"},
	},
	{
		name: "bury-in-two-steps", breaks: "I5",
		story: "A job is deleted, and its letter written by the next command: who dies in between has lost it.",
		edits: []edit{
			{lua + "bury.lua", "redis.call('HSET', KEYS[6], unpack(letters))", ""},
			{"internal/store/settle.go", `return q.settle(ctx, "bury", buryScript, &s, keys, append(args, k.Channel))`,
				`settled, err := q.settle(ctx, "bury", buryScript, &s, keys, append(args, k.Channel))
	for i := range jobs {
		if err == nil {
			err = q.rdb.HSet(ctx, k.Letters, jobs[i].ID, jobs[i].Entry).Err()
		}
	}
	return settled, err`},
		},
		pkg:     storePkg,
		killers: []string{"TestI5_AfterEveryCommandAJobIsInOnePlace"},
	},
	{
		name: "requeue-keeps-the-letter", breaks: "I5",
		story:   "A requeued job is a dead letter, too.",
		edits:   []edit{{lua + "dead_settle.lua", "forget(group, key, group.task)", ""}},
		pkg:     storePkg,
		killers: []string{"TestI5_AfterEveryCommandAJobIsInOnePlace"},
	},
	{
		name: "finish-forgets-the-ledger", breaks: "I16",
		story:   "The ledger of a job that failed once stays when the job has succeeded, for ever.",
		edits:   []edit{{lua + "finish.lua", "redis.call('HDEL', KEYS[4], unpack(mine))", ""}},
		pkg:     storePkg,
		killers: []string{"TestI5_AfterEveryCommandAJobIsInOnePlace"},
	},
	{
		name: "bell-not-rung", breaks: "wake-up",
		story:   "An enqueue rings no bell: an idle worker finds the job at its next beat.",
		edits:   []edit{{lua + "enqueue.lua", "redis.call('RPUSH', KEYS[6], 1)", "redis.call('LLEN', KEYS[6])"}},
		pkg:     storePkg,
		killers: []string{"TestABellRingsForWhatAnIdleWorkerCannotKnow"},
	},
	{
		name: "claim-a-busy-key", breaks: "idempotency",
		story:   "Two jobs of one key run at once.",
		edits:   []edit{{lua + "idem_claim.lua", "if live and not mine then return {'busy'} end", ""}},
		pkg:     storePkg,
		killers: []string{"TestEffectGoesThroughItsStates"},
	},
	{
		name: "complete-without-fence", breaks: "idempotency",
		story:   "A handler that slept past its lease overwrites the result of the one that followed.",
		edits:   []edit{{lua + "idem_complete.lua", "or r[2] ~= ARGV[1] or r[3] ~= ARGV[2] or r[4] ~= ARGV[3] ", ""}},
		pkg:     storePkg,
		killers: []string{"TestEffectGoesThroughItsStates"},
	},
	{
		name: "fence-by-incr", breaks: "I10",
		story:   "A lock's tokens count from a key that a failover loses.",
		edits:   []edit{{lua + "lock_acquire.lua", "math.max(us, tonumber(redis.call('GET', KEYS[3]) or '0') + 1)", "tonumber(redis.call('GET', KEYS[3]) or '0') + 1"}},
		pkg:     storePkg,
		killers: []string{"TestI10_ALocksTokensRiseThoughAllKeysAreLost"},
	},
	{
		name: "lock-released-by-a-stranger", breaks: "I11",
		story:   "A release deletes the lock, whoever holds it.",
		edits:   []edit{{lua + "lock_release.lua", "redis.call('ZREM', KEYS[1], ARGV[1])", "redis.call('DEL', KEYS[1])"}},
		pkg:     storePkg,
		killers: []string{"TestI11_NobodyEndsOrRevivesTheHoldOfAnother"},
	},
	{
		name: "lapsed-hold-revived", breaks: "I11",
		story:   "A renewal that comes too late gives its owner the lock that another may have.",
		edits:   []edit{{lua + "lock_renew.lua", "if not till or tonumber(till) <= now then", "if not till then"}},
		pkg:     storePkg,
		killers: []string{"TestI11_NobodyEndsOrRevivesTheHoldOfAnother"},
	},
}
