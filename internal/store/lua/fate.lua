-- What is known of a job, at one instant: a job that moves is never nowhere.
-- KEYS jobs, letters, result
-- ARGV id
-- Returns {1 if it waits or runs, dead letter or nil, result or nil}
return {redis.call('HEXISTS', KEYS[1], ARGV[1]), redis.call('HGET', KEYS[2], ARGV[1]), redis.call('GET', KEYS[3])}
