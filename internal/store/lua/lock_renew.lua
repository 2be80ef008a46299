-- Renews a lock that its owner still holds.
-- KEYS holders, details
-- ARGV owner, TTL ms
-- Returns 1, or 0 for an owner whose hold has lapsed: another may have it.
-- I4, I6. A lapsed hold is not revived: its owner has stopped work by now.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local ttl, till = tonumber(ARGV[2]), redis.call('ZSCORE', KEYS[1], ARGV[1])
if not till or tonumber(till) <= now then return 0 end
redis.call('HDEL', KEYS[2], '') -- a full Redis allows it, and then the rest
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ttl), ARGV[1])
for i = 1, 2 do
  if redis.call('PTTL', KEYS[i]) < ttl then redis.call('PEXPIRE', KEYS[i], ttl) end
end
return 1
