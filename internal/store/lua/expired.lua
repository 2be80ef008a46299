-- Shows what a worker whose lease has lapsed still owns; forgets it if nothing.
-- KEYS workers, w:<worker>, jobs, ledger, owners
-- ARGV worker, limit (at most 500)
-- Returns {ids, tokens, envelopes, ledgers}, all empty when its lease holds or it
--      owns nothing. Ending those jobs is up to finish, putback and bury (I4).
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
if lease and tonumber(lease) >= now then return {{}, {}, {}, {}} end
local ids, tokens, owned = {}, {}, redis.call('HGETALL', KEYS[2])
for i = 1, #owned, 2 do
  if string.sub(owned[i], 1, 1) ~= '#' and #ids < tonumber(ARGV[2]) then
    ids[#ids + 1] = owned[i]
    tokens[#tokens + 1] = owned[i + 1]
  end
end
if #ids == 0 then
  redis.call('DEL', KEYS[2])
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[5], ARGV[1])
  return {{}, {}, {}, {}}
end
return {ids, tokens, redis.call('HMGET', KEYS[3], unpack(ids)), redis.call('HMGET', KEYS[4], unpack(ids))}
