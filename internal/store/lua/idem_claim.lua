-- Claims an effect for one attempt of a job, or says what stands in the way.
-- KEYS record
-- ARGV owner, attempt (a later one of the same owner has a higher number),
--      fingerprint, lease ms, lease + ttl ms
-- Returns {'claimed', fence}, {'done', result}, {'bare', why there is no result},
--      {'busy'}, {'reused'} (the key belongs to another fingerprint), or
--      {'overtaken'} (a later attempt of this owner holds the claim).
-- ABSENT or lapsed → RUNNING; RUNNING of an earlier attempt of the owner → RUNNING.
-- I4: fences strictly increase, also over a record that is gone. I6: the same
-- attempt gets its claim again. A copy that arrives after the claim's release
-- holds the key for one lease. I14: an HDEL is the first write.
local t = redis.call('TIME')
local us = t[1] * 1000000 + t[2]
local now = math.floor(us / 1000)
local r = redis.call('HMGET', KEYS[1], 'state', 'owner', 'attempt', 'fence', 'lease', 'print', 'result')
local state, mine = r[1], r[2] == ARGV[1]
if state and r[6] ~= ARGV[3] and not (mine and state == 'running') then return {'reused'} end
if state == 'done' or state == 'bare' then return {state, r[7]} end
if state then
  local live, held = tonumber(r[5]) >= now, tonumber(r[3])
  if mine and r[3] == ARGV[2] then return {'claimed', r[4]} end
  if live and not mine then return {'busy'} end
  if live and held > tonumber(ARGV[2]) then return {'overtaken'} end
end
local fence = string.format('%.0f', math.max(us, tonumber(r[4] or '0') + 1))
redis.call('HDEL', KEYS[1], '#')
redis.call('HSET', KEYS[1], 'state', 'running', 'owner', ARGV[1], 'attempt', ARGV[2], 'fence', fence,
  'lease', string.format('%.0f', now + tonumber(ARGV[4])), 'print', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return {'claimed', fence}
