-- Renews the lease of a running claim.
-- KEYS record
-- ARGV owner, attempt, fence, lease ms, lease + ttl ms
-- Returns 1, or 0 when the claim is not the record's: nothing was written.
-- RUNNING → RUNNING. I4: compares owner, attempt and fence. The record outlives its
-- lease by the ttl, so that it still knows who was last. I14: an HDEL goes first.
local r = redis.call('HMGET', KEYS[1], 'state', 'owner', 'attempt', 'fence')
if r[1] ~= 'running' or r[2] ~= ARGV[1] or r[3] ~= ARGV[2] or r[4] ~= ARGV[3] then return 0 end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HDEL', KEYS[1], '#')
redis.call('HSET', KEYS[1], 'lease', string.format('%.0f', now + tonumber(ARGV[4])))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1
