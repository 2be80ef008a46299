-- Ends jobs that succeeded or were discarded: they leave the queue.
-- KEYS those of queueKeys, then the result keys
-- ARGV as the fence has it; the counter to raise; where results are kept, for each job:
--      index of the result key (0 = none), result, TTL ms; then the channel that hears
--      of results
-- Returns the comma-ended indexes of the jobs whose token was refused.
take()
redis.call('HDEL', KEYS[2], unpack(mine))
if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('HDEL', KEYS[3], unpack(mine)) end
redis.call('HINCRBY', KEYS[7], ARGV[rest], #own == jobs and ARGV[5] or #own)
if #ARGV > rest then
  for _, i in ipairs(own) do
    local at = rest + 1 + 3 * i
    local key = tonumber(ARGV[at])
    if key > 0 then redis.call('SET', KEYS[key], ARGV[at + 1], 'PX', ARGV[at + 2]) end
  end
  -- A hint to waiting receipts: a user without rights to the channel loses it.
  redis.pcall('PUBLISH', ARGV[#ARGV], table.concat(mine, ' '))
end
return refused
