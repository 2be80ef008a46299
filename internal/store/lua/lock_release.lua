-- Releases a lock, if its owner still holds it: compare and delete.
-- KEYS holders, details
-- ARGV owner, TTL ms
-- Returns 1, or 0 when the hold had lapsed or another has the lock.
-- I6: #gone remembers the last owners that released, and the answers, for a TTL: the
-- same call again has the same answer, and an acquire that is late has no effect.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local ttl, till = tonumber(ARGV[2]), redis.call('ZSCORE', KEYS[1], ARGV[1])
local gone = redis.call('HGET', KEYS[2], '#gone') or ''
local _, at = string.find(gone, ARGV[1] .. '=', 1, true)
if at then return tonumber(string.sub(gone, at + 1, at + 1)) end
local released = till and tonumber(till) > now and 1 or 0
local entry = ARGV[1] .. '=' .. released .. ' '
redis.call('HDEL', KEYS[2], ARGV[1]) -- a full Redis allows it, and then the rest
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[2], '#gone', string.sub(entry .. gone, 1, 8 * #entry))
if redis.call('PTTL', KEYS[2]) < ttl then redis.call('PEXPIRE', KEYS[2], ttl) end
return released
