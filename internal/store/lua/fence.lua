-- The fence: stands before finish.lua, putback.lua and bury.lua.
-- KEYS w:<worker>, workers
-- ARGV call id, '' or the name of a worker whose lease must have lapsed, memo field
--      of the lane, arguments per job, number of jobs; then the jobs: id, token, …
-- Returns, if nothing is to do, the comma-ended indexes of the refused jobs.
--      Else `own` lists where in ARGV each job starts whose token is current.
-- I4: a job whose token is not current is refused. I6: the worker's hash keeps
-- the last call and its answer. I14: the first write is an HDEL, which a full
-- Redis allows and which makes the rest of the script legal.
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local stride, jobs = tonumber(ARGV[4]), tonumber(ARGV[5])
local ids = {ARGV[3]}
for i = 0, jobs - 1 do ids[i + 2] = ARGV[6 + i * stride] end
local held = redis.call('HMGET', KEYS[1], unpack(ids))
if held[1] then
  local call, answer = string.match(held[1], '^(.*):([^:]*)$') -- a call may have colons
  if call == ARGV[1] then return answer end
end
local lapsed = true
if ARGV[2] ~= '' then
  local lease = redis.call('ZSCORE', KEYS[2], ARGV[2])
  lapsed = not lease or tonumber(lease) < clock()
end
local own, mine, refused = {}, {}, {}
for i = 0, jobs - 1 do
  local at = 6 + i * stride
  if lapsed and held[i + 2] == ARGV[at + 1] then
    own[#own + 1] = at
    mine[#mine + 1] = ARGV[at]
  else
    refused[#refused + 1] = i .. ','
  end
end
refused = table.concat(refused)
if #own == 0 then return refused end
redis.call('HDEL', KEYS[1], unpack(mine))
redis.call('HSET', KEYS[1], ARGV[3], ARGV[1] .. ':' .. refused)

