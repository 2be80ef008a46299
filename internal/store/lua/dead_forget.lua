-- Stands before dead_settle.lua and dead_trim.lua, whose keys begin
-- KEYS memo, dead, letters, deadtasks, hooks, stats, reviews, the seven why:<reason>
-- and whose ARGV begin with the call's number and the TTL of the memo, ms.
-- forget: takes letters of one task out of all that holds them; KEYS[key] is their
-- dead:<task>, the next one their hooks:<task>. Its first write is an HDEL (I14).
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local last, before = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+):(.*)$')
if last == ARGV[1] then return before end
if last and tonumber(last) > tonumber(ARGV[1]) then return 'overtaken' end

local function forget(ids, key, task)
  redis.call('HDEL', KEYS[3], unpack(ids))
  redis.call('HDEL', KEYS[7], unpack(ids))
  redis.call('ZREM', KEYS[2], unpack(ids))
  redis.call('ZREM', KEYS[key], unpack(ids))
  redis.call('ZREM', KEYS[key + 1], unpack(ids))
  for why = 8, 14 do redis.call('ZREM', KEYS[why], unpack(ids)) end
  if redis.call('EXISTS', KEYS[key]) == 0 then redis.call('ZREM', KEYS[4], task) end
  local due = redis.call('ZRANGE', KEYS[key + 1], 0, 0, 'WITHSCORES')[2]
  if due then redis.call('ZADD', KEYS[5], due, task) else redis.call('ZREM', KEYS[5], task) end
end
local function remember(answer)
  redis.call('SET', KEYS[1], ARGV[1] .. ':' .. answer, 'PX', ARGV[2])
  return answer
end

