-- Looks at workers that are listed as owners and have no lease, and mends: one that
-- owns jobs gets a lease, which it renews if it lives and whose end others wait for
-- if not; one that owns none is forgotten.
-- KEYS memo, stats, workers, owners, then the workers' hashes
-- ARGV as the memo has it, lease ms, then the workers (at most 500)
-- Returns one character per worker: '.' sound, 'g' owns jobs and has no lease, 'G'
--      has one now.
local t = redis.call('TIME')
local lease = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[4]))
local codes, give, forget = {}, {}, {}
for i = 5, #ARGV do
  codes[i - 4] = '.'
  if not redis.call('ZSCORE', KEYS[3], ARGV[i]) then
    local jobs = redis.call('HLEN', KEYS[i])
    for _, memo in ipairs(redis.call('HMGET', KEYS[i], '#c0', '#c1', '#s0', '#s1')) do
      if memo then jobs = jobs - 1 end
    end
    if jobs > 0 then
      codes[i - 4] = mending and 'G' or 'g'
      give[#give + 1] = lease
      give[#give + 1] = ARGV[i]
    else
      forget[#forget + 1] = i
    end
  end
end
if mending and #give + #forget > 0 then
  free()
  if #give > 0 then redis.call('ZADD', KEYS[3], unpack(give)) end
  for _, i in ipairs(forget) do
    redis.call('DEL', KEYS[i])
    redis.call('ZREM', KEYS[4], ARGV[i])
  end
end
return remember(table.concat(codes), mending and #give / 2 or 0)
