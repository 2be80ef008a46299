-- Records that the effect of a claim is done.
-- KEYS record
-- ARGV owner, attempt, fence, ttl ms, state ('done', or 'bare' when no result is
--      kept), the result, or why there is none
-- Returns 1, or 0 when the claim is not the record's: nothing was written.
-- RUNNING → DONE, for ttl from now. I4: compares owner, attempt and fence; a lease
-- that lapsed and that nobody took over is no obstacle. I6: done by the same claim
-- is done. I14: an HDEL goes first, so that a full Redis does not refuse the rest.
local r = redis.call('HMGET', KEYS[1], 'state', 'owner', 'attempt', 'fence')
if not r[1] or r[2] ~= ARGV[1] or r[3] ~= ARGV[2] or r[4] ~= ARGV[3] then return 0 end
if r[1] ~= 'running' then return 1 end
redis.call('HDEL', KEYS[1], 'lease')
redis.call('HSET', KEYS[1], 'state', ARGV[5], 'result', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
