-- Gives a lock to an owner, if fewer than limit others hold it.
-- KEYS holders, details, fence
-- ARGV owner, label of the holder, TTL ms, limit
-- Returns {1, token, now ms}; {0, label, since ms, ms until the first lapses} of the
--      holder that has it longest; or {-1} for an owner that has released already.
-- I10: a token is above the last, and, should a restart lose that, not below TIME µs.
-- I6: the same owner again is the same acquisition, with the same token. A copy of
-- the call that arrives after the release gets nothing.
local t = redis.call('TIME')
local us, now = t[1] * 1000000 + t[2], t[1] * 1000 + math.floor(t[2] / 1000)
local ttl, limit = tonumber(ARGV[3]), tonumber(ARGV[4])
local lapsed = redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, 500)
local live = redis.call('ZRANGE', KEYS[1], '(' .. now, '+inf', 'BYSCORE', 'LIMIT', 0, limit, 'WITHSCORES')
local mine = redis.call('ZSCORE', KEYS[1], ARGV[1])
local gone = redis.call('HGET', KEYS[2], '#gone')
local token = math.max(us, tonumber(redis.call('GET', KEYS[3]) or '0') + 1)
local text = string.format('%.0f', token)
if gone and string.find(gone, ARGV[1], 1, true) then return {-1} end
mine = mine and tonumber(mine) > now
if mine then
  text = string.match(redis.call('HGET', KEYS[2], ARGV[1]), '^(%d+)')
elseif #live >= 2 * limit then
  local label, since, first = '', math.huge, math.huge
  for i = 1, #live, 2 do
    local at, who = string.match(redis.call('HGET', KEYS[2], live[i]) or '', '^%d+ (%d+) (.*)$')
    if at and tonumber(at) < since then label, since = who, tonumber(at) end
    first = math.min(first, tonumber(live[i + 1]) - now)
  end
  return {0, label, since == math.huge and now or since, first}
end

redis.call('HDEL', KEYS[2], '') -- a full Redis allows it, and then the rest: jobs must drain
if #lapsed > 0 then
  redis.call('ZREM', KEYS[1], unpack(lapsed))
  redis.call('HDEL', KEYS[2], unpack(lapsed))
end
if not mine then
  redis.call('SET', KEYS[3], text)
  -- Until the clock is an hour past the token: before that, a clock that is put
  -- back finds the token here; after it, TIME is above all that were given.
  redis.call('PEXPIREAT', KEYS[3], string.format('%.0f', token / 1000 + 3600000))
  redis.call('HSET', KEYS[2], ARGV[1], text .. ' ' .. string.format('%.0f', now) .. ' ' .. ARGV[2])
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ttl), ARGV[1])
for i = 1, 2 do
  if redis.call('PTTL', KEYS[i]) < ttl then redis.call('PEXPIRE', KEYS[i], ttl) end
end
return {1, text, now}
