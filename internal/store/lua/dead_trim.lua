-- Drops the oldest dead letters of a task: those over its count and over its age.
-- KEYS as forget has it, then dead:<task>, hooks:<task>
-- ARGV call number, memo TTL ms, task, count or -1 for any, age ms or -1 for any
-- Returns 'dropped,left': how many it dropped (at most 500), and how many more
--      there are to drop.
-- I6: the memo. I14: a call that drops nothing writes nothing.
local over = ARGV[4] ~= '-1' and redis.call('ZCARD', KEYS[15]) - tonumber(ARGV[4]) or 0
local old = ARGV[5] ~= '-1' and
  redis.call('ZCOUNT', KEYS[15], '-inf', '(' .. string.format('%.0f', now - tonumber(ARGV[5]))) or 0
local drop = math.max(over, old, 0)
if drop == 0 then return '0,0' end
local ids = redis.call('ZRANGE', KEYS[15], 0, math.min(drop, 500) - 1)
forget(ids, 15, ARGV[3])
redis.call('HINCRBY', KEYS[6], 'dropped', #ids)
return remember(#ids .. ',' .. drop - #ids)
