-- Takes dead letters of a task whose hook is due. Until the lease lapses no other
-- worker takes them; then they are due again.
-- KEYS memo, hooks, hooks:<task>, letters, dead
-- ARGV call number, memo TTL ms, task, letters at most (500), lease ms
-- Returns {deadline ms, ids, times of death, entries}
-- I6: the memo keeps the last call and what it took. I14: a ZREM is the first write.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function reply(memo)
  local ids, died, entries = {}, {}, {}
  for i = 3, #memo do
    local entry, score = redis.call('HGET', KEYS[4], memo[i]), redis.call('ZSCORE', KEYS[5], memo[i])
    if entry and score then
      ids[#ids + 1] = memo[i]
      died[#died + 1] = score
      entries[#entries + 1] = entry
    end
  end
  return {tonumber(memo[2]), ids, died, entries}
end
local last = redis.call('LRANGE', KEYS[1], 0, -1)
if last[1] == ARGV[1] then return reply(last) end
if last[1] and tonumber(last[1]) > tonumber(ARGV[1]) then return {now, {}, {}, {}} end

local due = redis.call('ZRANGE', KEYS[3], '-inf', now, 'BYSCORE', 'LIMIT', 0, tonumber(ARGV[4]))
if #due == 0 then return {now, {}, {}, {}} end
local deadline = string.format('%.0f', now + tonumber(ARGV[5]))
local memo, held, gone = {ARGV[1], deadline}, {}, {'#'}
for _, id in ipairs(due) do
  if redis.call('HEXISTS', KEYS[4], id) == 1 then
    memo[#memo + 1] = id
    held[#held + 1] = deadline
    held[#held + 1] = id
  else
    gone[#gone + 1] = id -- it needs no hook any more
  end
end
local answer = reply(memo)
redis.call('ZREM', KEYS[3], unpack(gone))
if #held > 0 then redis.call('ZADD', KEYS[3], unpack(held)) end
local first = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
if first then redis.call('ZADD', KEYS[2], first, ARGV[3]) else redis.call('ZREM', KEYS[2], ARGV[3]) end
redis.call('DEL', KEYS[1])
redis.call('RPUSH', KEYS[1], unpack(memo))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return answer
