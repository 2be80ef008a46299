-- Ends the call of a hook: it heard of the letter, or is to be called again after a
-- wait as long as the letter has been dead, between two bounds: that doubles.
-- KEYS hooks, hooks:<task>, dead
-- ARGV task, id, time of death, deadline of the caller, '1' if it heard, shortest
--      and longest wait ms
-- Returns 1 if it changed something.
-- I4, I6: a letter that died again is not this one; a call whose lease has lapsed
-- may still report that it was heard, and no longer ask for another.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local died, due = redis.call('ZSCORE', KEYS[3], ARGV[2]), redis.call('ZSCORE', KEYS[2], ARGV[2])
if not due or tonumber(died or '-1') ~= tonumber(ARGV[3]) then return 0 end
if ARGV[5] == '1' then
  redis.call('ZREM', KEYS[2], ARGV[2])
elseif tonumber(due) == tonumber(ARGV[4]) then
  local wait = math.min(math.max(now - tonumber(died), tonumber(ARGV[6])), tonumber(ARGV[7]))
  redis.call('ZREM', KEYS[2], '#')
  redis.call('ZADD', KEYS[2], string.format('%.0f', now + wait), ARGV[2])
else
  return 0
end
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
if first then redis.call('ZADD', KEYS[1], first, ARGV[1]) else redis.call('ZREM', KEYS[1], ARGV[1]) end
return 1
