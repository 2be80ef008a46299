-- Renews a worker's lease and tells it what it needs to know of its queue.
-- KEYS workers, w:<worker>, ready, delayed, owners
-- ARGV worker, lease ms
-- Returns {now ms, 1 if its lease had not lapsed, jobs it owns, jobs ready,
--      next due ms or -1, the next lease of another to lapse, ms or -1,
--      the workers whose lease has lapsed, at most 16}
-- I9: a lease is one score per process. I14: an HDEL is the first write.
-- I4: a worker that is in no list any more owns nothing: its jobs may run again.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
local held = lease and tonumber(lease) >= now and 1 or 0
local gone = not lease and not redis.call('ZSCORE', KEYS[5], ARGV[1])
local expired = {}
for _, w in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', '(' .. now, 'BYSCORE', 'LIMIT', 0, 17)) do
  if w ~= ARGV[1] and #expired < 16 then expired[#expired + 1] = w end
end
local others = redis.call('ZRANGE', KEYS[1], now, '+inf', 'BYSCORE', 'LIMIT', 0, 2, 'WITHSCORES')
local next = others[1] == ARGV[1] and others[4] or others[1] ~= ARGV[1] and others[2]
local due = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')[2]
local owned = gone and 0 or redis.call('HLEN', KEYS[2])
if owned > 0 then
  for _, memo in ipairs(redis.call('HMGET', KEYS[2], '#c0', '#c1', '#s0', '#s1')) do
    if memo then owned = owned - 1 end
  end
end
local ready = redis.call('LLEN', KEYS[3])
redis.call('HDEL', KEYS[2], '#')
if gone then redis.call('DEL', KEYS[2]) end
redis.call('ZADD', KEYS[5], 0, ARGV[1])
redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[2])), ARGV[1])
return {now, held, owned, ready, due and math.floor(tonumber(due)) or -1,
  next and math.floor(tonumber(next)) or -1, expired}
