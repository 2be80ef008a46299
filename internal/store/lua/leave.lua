-- Takes a worker off the queue: what it still owns goes to the front, uncounted;
-- the bell rings for the others, since this worker may have been the one to hear it.
-- KEYS workers, w:<worker>, ready, bell, stats, owners, delayed
-- ARGV worker, limit (at most 500)
-- Returns {jobs released, jobs left}: call again while jobs are left.
-- I15: what was claimed and not started burns nothing. I6: a second call finds
-- nothing to do.
local ids, left = {}, 0
for _, id in ipairs(redis.call('HKEYS', KEYS[2])) do
  if string.sub(id, 1, 1) ~= '#' then
    if #ids < tonumber(ARGV[2]) then ids[#ids + 1] = id else left = left + 1 end
  end
end
if #ids > 0 then
  redis.call('HDEL', KEYS[2], unpack(ids))
  redis.call('LPUSH', KEYS[3], unpack(ids))
  redis.call('HINCRBY', KEYS[5], 'released', #ids)
end
if redis.call('LLEN', KEYS[3]) + redis.call('ZCARD', KEYS[7]) > 0 and redis.call('LLEN', KEYS[4]) == 0 then
  redis.call('HDEL', KEYS[2], '#')
  redis.call('RPUSH', KEYS[4], 1)
end
if left == 0 then
  redis.call('DEL', KEYS[2])
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[6], ARGV[1])
end
return {#ids, left}
