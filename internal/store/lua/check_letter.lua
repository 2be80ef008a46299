-- Looks whether dead letters are where they belong, and mends.
-- KEYS memo, stats, dead, letters, deadtasks, reviews, jobs, the seven why:<reason>,
--      then pairs of dead:<task>, hooks:<task>
-- ARGV as the memo has it, then for each letter (at most 500): id, SHA-1 of its entry
--      or '', time of death if no index has it, index of its dead:<task> key, task,
--      index of its why:<reason> key, index of the dead:<task> key it was found in
-- Returns one character per letter: '.' sound, 'n' in an index and without an entry,
--      'i' not in its indexes alone, 'j' a job, too; in upper case what was mended.
local codes, todo = {}, {}
for at = 4, #ARGV, 7 do
  local l = {id = ARGV[at], own = tonumber(ARGV[at + 3]), task = ARGV[at + 4],
    why = tonumber(ARGV[at + 5]), found = tonumber(ARGV[at + 6])}
  local entry, died = redis.call('HGET', KEYS[4], l.id), redis.call('ZSCORE', KEYS[3], l.id)
  local others, code = redis.call('ZSCORE', KEYS[l.found], l.id), '.'
  if l.found == l.own then others = nil end
  for key = 8, 14 do
    if key ~= l.why then others = redis.call('ZSCORE', KEYS[key], l.id) or others end
  end
  local byTask, byWhy = redis.call('ZSCORE', KEYS[l.own], l.id), redis.call('ZSCORE', KEYS[l.why], l.id)
  if not entry then
    if died or others or byTask or byWhy or redis.call('HEXISTS', KEYS[6], l.id) == 1 then code = 'n' end
  elseif redis.sha1hex(entry) == ARGV[at + 1] then
    if not died or byTask ~= died or byWhy ~= died or others or not redis.call('ZSCORE', KEYS[5], l.task) then
      code = 'i'
    elseif redis.call('HEXISTS', KEYS[7], l.id) == 1 then
      code = 'j'
    end
  end
  l.score = died or ARGV[at + 2]
  if mending and (code == 'n' or code == 'i') then
    todo[#todo + 1] = l
    l.code = code
    code = string.upper(code)
  end
  codes[#codes + 1] = code
end
if #todo > 0 then free() end
for _, l in ipairs(todo) do
  for key = 8, 14 do redis.call('ZREM', KEYS[key], l.id) end
  if l.code == 'n' or l.found ~= l.own then
    redis.call('ZREM', KEYS[l.found], l.id)
    redis.call('ZREM', KEYS[l.found + 1], l.id)
  end
  if l.code == 'n' then
    redis.call('ZREM', KEYS[3], l.id)
    redis.call('HDEL', KEYS[6], l.id)
  else
    redis.call('ZADD', KEYS[3], l.score, l.id)
    redis.call('ZADD', KEYS[l.own], l.score, l.id)
    redis.call('ZADD', KEYS[l.why], l.score, l.id)
    redis.call('ZADD', KEYS[5], 0, l.task)
  end
end
return remember(table.concat(codes), #todo)
