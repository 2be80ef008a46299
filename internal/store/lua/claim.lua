-- Gives a worker up to n jobs, each fenced by the call's token.
-- KEYS those of queueKeys
-- ARGV worker, memo field of the lane, call number of the lane, n (at most 500),
--      n - 1, '1' to be refused by a replica in any case
-- Asks for time, lease, last and ledger only where a settle before it has not.
-- Returns {state, now ms, next due ms or -1, token, number of jobs, their ids, their
--      envelopes, their ledgers if any has one}: flat, nil for what does not exist.
--      state is 'ok', 'paused', 'lapsed' (the worker has no lease: beat first)
--      or 'stale' (a later call of this lane was here).
-- I4: tokens strictly increase. I6, I7: a call sent again gets the same jobs.
-- I12: due by the clock of Redis. I14: reads all before the first write, which
-- frees memory, so that a full Redis does not refuse the rest (it can drain).
if ARGV[6] == '1' then redis.call('HDEL', KEYS[5], '#') end
time = time or redis.call('TIME')
local us = time[1] * 1000000 + time[2]
local now = math.floor(us / 1000)
lease = lease or redis.call('ZSCORE', KEYS[6], ARGV[1])
if not lease or tonumber(lease) < now then return {'lapsed', now, -1} end

local function reply(token, ids, nextdue)
  local answer, n = {'ok', now, nextdue, token, #ids, unpack(ids)}, #ids
  if n == 0 then return answer end
  for i, v in ipairs(redis.call('HMGET', KEYS[2], unpack(ids))) do answer[5 + n + i] = v end
  if (ledger or redis.call('EXISTS', KEYS[3])) == 0 then return answer end
  for i, v in ipairs(redis.call('HMGET', KEYS[3], unpack(ids))) do answer[5 + 2 * n + i] = v end
  return answer
end
last = last or redis.call('HGET', KEYS[5], ARGV[2])
if last then
  local call, mine = string.match(last, '^(%d+):(%d+)$')
  if call == ARGV[3] then
    local ids, owned = {}, redis.call('HGETALL', KEYS[5])
    for i = 1, #owned, 2 do if owned[i + 1] == mine then ids[#ids + 1] = owned[i] end end
    return reply(mine, ids, now)
  end
  if tonumber(call) > tonumber(ARGV[3]) then return {'stale', now, -1} end
end
local st = redis.call('HMGET', KEYS[7], 'paused', 'token')
if st[1] then return {'paused', now, -1} end
local head, due = redis.call('ZRANGE', KEYS[4], '0', '0', 'WITHSCORES'), {}
if head[2] and tonumber(head[2]) <= now then
  due = redis.call('ZRANGE', KEYS[4], '-inf', now, 'BYSCORE', 'LIMIT', '0', ARGV[4])
  head = redis.call('ZRANGE', KEYS[4], #due, #due, 'WITHSCORES')
end
local n, ids, wait = tonumber(ARGV[4]), redis.call('LRANGE', KEYS[1], '0', ARGV[5]), {}
for _, id in ipairs(due) do if #ids < n then ids[#ids + 1] = id else wait[#wait + 1] = id end end
local token = string.format('%.0f', math.max(us, tonumber(st[2] or '0') + 1))
local answer = reply(token, ids, head[2] and math.floor(tonumber(head[2])) or -1)
if #ids == 0 then return answer end
redis.call('LTRIM', KEYS[1], ARGV[4], '-1')
if #due > 0 then redis.call('ZREM', KEYS[4], unpack(due)) end
local own = {}
for i = 1, #ids do own[2 * i - 1], own[2 * i] = ids[i], token end
redis.call('HSET', KEYS[5], ARGV[2], ARGV[3] .. ':' .. token, unpack(own))
redis.call('HSET', KEYS[7], 'token', token)
if #wait > 0 then redis.call('RPUSH', KEYS[1], unpack(wait)) end
if #ids == n and redis.call('LLEN', KEYS[8]) == 0 and (head[2] or redis.call('LLEN', KEYS[1]) > 0) then
  redis.call('RPUSH', KEYS[8], '1')
end
return answer
