-- Looks whether a task is listed as it should be among those with dead letters and
-- with hooks that are due, and mends.
-- KEYS memo, stats, deadtasks, hooks, dead:<task>, hooks:<task>
-- ARGV as the memo has it, task, then ids from hooks:<task> (at most 500)
-- Returns one character for the task, 't' when it is not, and one for each id: 'h'
--      when a hook waits for what is no dead letter of the task; upper case: mended.
local stray, codes, task = {'#'}, {}, ARGV[4]
for i = 5, #ARGV do
  local bad = redis.call('ZSCORE', KEYS[6], ARGV[i]) and not redis.call('ZSCORE', KEYS[5], ARGV[i])
  codes[#codes + 1] = bad and (mending and 'H' or 'h') or '.'
  if bad then stray[#stray + 1] = ARGV[i] end
end
local any, listed = redis.call('EXISTS', KEYS[5]) == 1, redis.call('ZSCORE', KEYS[3], task)
local first, due = redis.call('ZRANGE', KEYS[6], 0, 0, 'WITHSCORES')[2], redis.call('ZSCORE', KEYS[4], task)
local bad = any ~= (listed and true or false) or (first or '') ~= (due or '')
if mending and (bad or #stray > 1) then
  free()
  redis.call('ZREM', KEYS[6], unpack(stray))
  if any then redis.call('ZADD', KEYS[3], 0, task) else redis.call('ZREM', KEYS[3], task) end
  first = redis.call('ZRANGE', KEYS[6], 0, 0, 'WITHSCORES')[2]
  if first then redis.call('ZADD', KEYS[4], first, task) else redis.call('ZREM', KEYS[4], task) end
end
return remember((bad and (mending and 'T' or 't') or '.') .. table.concat(codes),
  mending and #stray - 1 + (bad and 1 or 0) or 0)
