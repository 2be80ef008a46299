-- Ends jobs that succeeded or were discarded: they leave the queue.
-- KEYS those of queueKeys, then the result keys
-- ARGV as the fence has it; the counter to raise; where results are kept, for each job:
--      index of the result key (0 = none), result, TTL ms; then the channel that hears
--      of results
-- Returns the comma-ended indexes of the jobs whose token was refused.
take()
redis.call('HDEL', KEYS[2], unpack(mine))
ledger = redis.call('EXISTS', KEYS[3])
if ledger == 1 then
  redis.call('HDEL', KEYS[3], unpack(mine))
  ledger = nil -- that may have been the last
end
redis.call('HINCRBY', KEYS[7], ARGV[rest], #mine == jobs and ARGV[base + 5] or #mine)
if #ARGV > rest then
  for i = 0, jobs - 1 do
    local at = rest + 1 + 3 * i
    local key = held[i + 3] and tonumber(ARGV[at]) or 0
    if key > 0 then redis.call('SET', KEYS[key], ARGV[at + 1], 'PX', ARGV[at + 2]) end
  end
  -- A hint to waiting receipts: a user without rights to the channel loses it.
  redis.pcall('PUBLISH', ARGV[#ARGV], table.concat(mine, ' '))
end
return refused
