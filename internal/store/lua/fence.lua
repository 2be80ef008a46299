-- The fence: stands before finish.lua, putback.lua and bury.lua.
-- KEYS those of queueKeys
-- ARGV from base + 1 on: call id, worker, '1' if its lease must have lapsed, memo field of
--      the lane, number of jobs, number of tokens; the ids; the tokens, one for all jobs
--      or one for each
-- Returns, if nothing is to do, the comma-ended indexes of the refused jobs. Else
--      held[i + 3] is false for each of them, counted from 0, `mine` lists the ids of
--      the others, and `rest` is where in ARGV begins what the script adds; take() takes
--      these jobs off the worker, and must go before the first write.
-- To a claim that follows, whose memo field is `lane`, it leaves time, lease and last.
-- I4: a job whose token is not current is refused, and so is all of a worker that
-- neither workers nor owners names: a check cannot see what it owns, and its jobs may
-- have been put back. I6: the worker's hash keeps the last call and its answer.
-- I14: the first write is an HDEL, which a full Redis allows and which makes the rest
-- of the script legal; what can fail is read before it.
local function clock(round)
  time = time or redis.call('TIME')
  return time[1] * 1000 + (round or math.floor)(time[2] / 1000)
end
local jobs, tokens = tonumber(ARGV[base + 5]), tonumber(ARGV[base + 6])
local first, rest = base + 7 + jobs, base + 7 + jobs + tokens
local held = redis.call('HMGET', KEYS[5], ARGV[base + 4], lane, unpack(ARGV, base + 7, first - 1))
last = held[2]
if held[1] then
  local call, answer = string.match(held[1], '^(.*):([^:]*)$') -- a call may have colons
  if call == ARGV[base + 1] then return answer end
end
lease = redis.call('ZSCORE', KEYS[6], ARGV[base + 2])
local may = lease
if may and ARGV[base + 3] == '1' then may = tonumber(lease) < clock() end
if not may and ARGV[base + 3] ~= '1' then may = redis.call('ZRANK', KEYS[9], ARGV[base + 2]) end
local mine, refused = {unpack(ARGV, base + 7, first - 1)}, ''
for i = jobs - 1, 0, -1 do
  if not may or held[i + 3] ~= ARGV[tokens == 1 and first or first + i] then
    held[i + 3] = false
    table.remove(mine, i + 1)
    refused = i .. ',' .. refused
  end
end
if #mine == 0 then return refused end
local function take()
  redis.call('HDEL', KEYS[5], unpack(mine))
  redis.call('HSET', KEYS[5], ARGV[base + 4], ARGV[base + 1] .. ':' .. refused)
end

