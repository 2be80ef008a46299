-- Stands before check_mend.lua, check_owner.lua, check_rest.lua, check_letter.lua and
-- check_task.lua, whose keys begin with memo, stats, and whose ARGV begin with the call's
-- number, the TTL of the memo in ms and '1' to mend ('' to look).
-- I6: the memo keeps the answer to the last call that wrote. I14: the first write,
-- free(), removes nothing, and makes the rest legal on a full Redis.
local last, before = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+)/(.*)$')
if last == ARGV[1] then return before end
if last and tonumber(last) > tonumber(ARGV[1]) then return 'overtaken' end
local mending = ARGV[3] == '1'
local function free() redis.call('HDEL', KEYS[2], '#') end
local function remember(answer, mended)
  if mended > 0 then
    redis.call('HINCRBY', KEYS[2], 'mended', mended)
    redis.call('SET', KEYS[1], ARGV[1] .. '/' .. answer, 'PX', ARGV[2])
  end
  return answer
end
local function sound(n) return n and string.match(n, '^%-?%d+$') and #n < 19 end
-- How often jobs were put into ready that had been there before, or were taken out of
-- its middle: while that stays the same, a job that left ready is not back. '' when the
-- counters do not tell.
local function moves(more)
  local sum = more or 0
  for _, n in ipairs(redis.call('HMGET', KEYS[2], 'retried', 'snoozed', 'crashed', 'interrupted',
    'released', 'requeued', 'mended')) do
    if n and not sound(n) then return '' end
    sum = sum + tonumber(n or '0')
  end
  return string.format('%.0f', sum)
end

