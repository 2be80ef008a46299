-- Looks at what is neither a job nor a dead letter, and mends: counters that are no
-- numbers start over, the bell keeps one element, and jobs that are due after all
-- time are due when they should be.
-- KEYS memo, stats, bell, delayed
-- ARGV as the memo has it, the latest due time, number of counters, their names; then
--      pairs of a delayed job (at most 500) and its due time, '' for now
-- Returns one character for the bell, each counter and each job: '.' sound, 'b' or
--      'c' or 'd' not, in upper case when mended.
local t, codes, mended = redis.call('TIME'), {}, 0
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
local function found(bad, code)
  if bad and mending then
    if mended == 0 then free() end
    mended, code = mended + 1, string.upper(code)
  end
  codes[#codes + 1] = bad and code or '.'
  return bad and mending
end
local rung = redis.call('LLEN', KEYS[3])
if found(rung > 1, 'b') then redis.call('LPOP', KEYS[3], rung - 1) end
local counters = tonumber(ARGV[5])
for i = 6, 5 + counters do
  local n = redis.call('HGET', KEYS[2], ARGV[i])
  if found(n and not sound(n), 'c') then redis.call('HDEL', KEYS[2], ARGV[i]) end
end
for i = 6 + counters, #ARGV, 2 do
  local due = redis.call('ZSCORE', KEYS[4], ARGV[i])
  local at = due and tonumber(due)
  if found(due and not (at and at <= tonumber(ARGV[4])), 'd') then
    redis.call('ZADD', KEYS[4], ARGV[i + 1] == '' and now or ARGV[i + 1], ARGV[i])
  end
end
return remember(table.concat(codes), mended)
