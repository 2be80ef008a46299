-- Releases a lock, if its owner still holds it: compare and delete.
-- KEYS holders, details
-- ARGV owner
-- Returns 1, or 0 when the hold had lapsed or another has the lock: nothing changes.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local till = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not till then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return tonumber(till) > now and 1 or 0
