-- The fence: stands before finish.lua, putback.lua and bury.lua.
-- KEYS those of queueKeys
-- ARGV call id, worker, '1' if its lease must have lapsed, memo field of the lane,
--      number of jobs, number of tokens; the ids; the tokens, one for all jobs or one
--      for each
-- Returns, if nothing is to do, the comma-ended indexes of the refused jobs. Else
--      `own` lists the jobs whose token is current, counted from 0, `mine` their ids,
--      and `rest` is where in ARGV begins what the script adds; take() takes these jobs
--      off the worker, and must go before the first write.
-- I4: a job whose token is not current is refused, and so is all of a worker that
-- neither workers nor owners names: a check cannot see what it owns, and its jobs may
-- have been put back. I6: the worker's hash keeps the last call and its answer.
-- I14: the first write is an HDEL, which a full Redis allows and which makes the rest
-- of the script legal; what can fail is read before it.
local function clock(round)
  local t = redis.call('TIME')
  return t[1] * 1000 + (round or math.floor)(t[2] / 1000)
end
local jobs, tokens = tonumber(ARGV[5]), tonumber(ARGV[6])
local first, rest = 7 + jobs, 7 + jobs + tokens
local held = redis.call('HMGET', KEYS[5], ARGV[4], unpack(ARGV, 7, 6 + jobs))
if held[1] then
  local call, answer = string.match(held[1], '^(.*):([^:]*)$') -- a call may have colons
  if call == ARGV[1] then return answer end
end
local may = redis.call('ZRANK', KEYS[6], ARGV[2])
if may and ARGV[3] == '1' then may = tonumber(redis.call('ZSCORE', KEYS[6], ARGV[2])) < clock() end
if not may and ARGV[3] ~= '1' then may = redis.call('ZRANK', KEYS[9], ARGV[2]) end
local own, mine, refused = {}, {}, {}
for i = 0, jobs - 1 do
  if may and held[i + 2] == ARGV[tokens == 1 and first or first + i] then
    own[#own + 1] = i
    mine[#mine + 1] = ARGV[7 + i]
  else
    refused[#refused + 1] = i .. ','
  end
end
refused = table.concat(refused)
if #own == 0 then return refused end
local function take()
  redis.call('HDEL', KEYS[5], unpack(mine))
  redis.call('HSET', KEYS[5], ARGV[4], ARGV[1] .. ':' .. refused)
end

