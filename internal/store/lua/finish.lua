-- Ends jobs that succeeded or were discarded: they leave the queue.
-- KEYS w:<worker>, workers, jobs, ledger, stats, then the result keys
-- ARGV as the fence has it, each job: id, token or, where results are kept,
--      id, token, index of the result key (0 = none), result, TTL ms;
--      then the counter to raise and the channel that hears of results
-- Returns the comma-ended indexes of the jobs whose token was refused.
redis.call('HDEL', KEYS[3], unpack(mine))
if redis.call('EXISTS', KEYS[4]) == 1 then redis.call('HDEL', KEYS[4], unpack(mine)) end
redis.call('HINCRBY', KEYS[5], ARGV[#ARGV - 1], #own)
if stride == 5 then
  for _, at in ipairs(own) do
    local key = tonumber(ARGV[at + 2])
    if key > 0 then redis.call('SET', KEYS[key], ARGV[at + 3], 'PX', ARGV[at + 4]) end
  end
  -- A hint to waiting receipts: a user without rights to the channel loses it.
  redis.pcall('PUBLISH', ARGV[#ARGV], table.concat(mine, ' '))
end
return refused
