-- Puts dead letters of a task under review, oldest first: nobody but the holder of
-- the token takes them until the lease lapses. They stay where they are.
-- KEYS memo, dead:<task>, letters, reviews
-- ARGV call number, memo TTL ms, token, lease ms, letters at most (500), bytes at
--      most, cursor: score and id
-- Returns {now ms, 1 if there may be more, ids, scores, entries, cursor: score, id}
-- I6: the memo keeps the last call and what it took. I14: an HDEL is the first
-- write, so that a full Redis can be reviewed.
local limit = tonumber(ARGV[5])
local function reply(memo)
  local ids, scores, entries = {}, {}, {}
  for i = 5, #memo, 2 do
    ids[#ids + 1] = memo[i]
    scores[#scores + 1] = memo[i + 1]
    entries[#entries + 1] = redis.call('HGET', KEYS[3], memo[i]) or ''
  end
  return {now, tonumber(memo[2]), ids, scores, entries, memo[3], memo[4]}
end
local last = redis.call('LRANGE', KEYS[1], 0, -1)
if last[1] == ARGV[1] then return reply(last) end
if last[1] and tonumber(last[1]) > tonumber(ARGV[1]) then return {now, 0, {}, {}, {}, ARGV[7], ARGV[8]} end

local from = rank(KEYS[2], ARGV[7], ARGV[8])
local found = redis.call('ZRANGE', KEYS[2], from, from + 499, 'WITHSCORES')
local memo, marks, bytes, full = {ARGV[1], 0, ARGV[7], ARGV[8]}, {}, 0, false
local mark = string.format('%.0f', now + tonumber(ARGV[4])) .. ':' .. ARGV[3]
for i = 1, #found, 2 do
  local held = redis.call('HGET', KEYS[4], found[i])
  if not held or tonumber(string.match(held, '^%d+')) < now then
    bytes = bytes + redis.call('HSTRLEN', KEYS[3], found[i])
    full = #marks == 2 * limit or #marks > 0 and bytes > tonumber(ARGV[6])
    if full then break end
    memo[#memo + 1] = found[i]
    memo[#memo + 1] = found[i + 1]
    marks[#marks + 1] = found[i]
    marks[#marks + 1] = mark
  end
  memo[3], memo[4] = found[i + 1], found[i]
end
if full or #found == 1000 then memo[2] = 1 end
local answer = reply(memo)
if #marks == 0 then return answer end
redis.call('HDEL', KEYS[4], '#')
redis.call('HSET', KEYS[4], unpack(marks))
redis.call('DEL', KEYS[1])
redis.call('RPUSH', KEYS[1], unpack(memo))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return answer
