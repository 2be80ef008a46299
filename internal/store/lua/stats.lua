-- One consistent look at a queue. A script and not MULTI, which a full Redis refuses.
-- KEYS ready, delayed, jobs, dead, workers, stats
-- Returns {ready, delayed, jobs, dead, workers, counters as a flat list}
return {redis.call('LLEN', KEYS[1]), redis.call('ZCARD', KEYS[2]), redis.call('HLEN', KEYS[3]),
  redis.call('ZCARD', KEYS[4]), redis.call('ZCARD', KEYS[5]), redis.call('HGETALL', KEYS[6])}
