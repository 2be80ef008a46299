-- The fence: stands before finish.lua, putback.lua and bury.lua.
-- KEYS the eight of queueKeys
-- ARGV call id, '' or the name of a worker whose lease must have lapsed, memo field
--      of the lane, number of jobs, number of tokens; the ids; the tokens, one for
--      all jobs or one for each
-- Returns, if nothing is to do, the comma-ended indexes of the refused jobs. Else
--      `own` lists the jobs whose token is current, counted from 0, `mine` their ids,
--      and `rest` is where in ARGV begins what the script adds.
-- I4: a job whose token is not current is refused. I6: the worker's hash keeps
-- the last call and its answer. I14: the first write is an HDEL, which a full
-- Redis allows and which makes the rest of the script legal.
local function clock(round)
  local t = redis.call('TIME')
  return t[1] * 1000 + (round or math.floor)(t[2] / 1000)
end
local jobs, tokens = tonumber(ARGV[4]), tonumber(ARGV[5])
local first, rest = 6 + jobs, 6 + jobs + tokens
local held = redis.call('HMGET', KEYS[5], ARGV[3], unpack(ARGV, 6, 5 + jobs))
if held[1] then
  local call, answer = string.match(held[1], '^(.*):([^:]*)$') -- a call may have colons
  if call == ARGV[1] then return answer end
end
local lapsed = true
if ARGV[2] ~= '' then
  local lease = redis.call('ZSCORE', KEYS[6], ARGV[2])
  lapsed = not lease or tonumber(lease) < clock()
end
local own, mine, refused = {}, {}, {}
for i = 0, jobs - 1 do
  if lapsed and held[i + 2] == ARGV[tokens == 1 and first or first + i] then
    own[#own + 1] = i
    mine[#mine + 1] = ARGV[6 + i]
  else
    refused[#refused + 1] = i .. ','
  end
end
refused = table.concat(refused)
if #own == 0 then return refused end
redis.call('HDEL', KEYS[5], unpack(mine))
redis.call('HSET', KEYS[5], ARGV[3], ARGV[1] .. ':' .. refused)

