-- The fence: stands before finish.lua, putback.lua and bury.lua.
-- KEYS w:<worker>, workers
-- ARGV call id, worker, '1' if its lease must have lapsed, memo field of the lane,
--      arguments per job, number of jobs; then the jobs: id, token, …
-- Returns, if nothing is to do, the comma-ended indexes of the refused jobs.
--      Else `own` lists where in ARGV each job starts whose token is current.
-- I4: a job whose token is not current is refused, and so is all of a worker that
-- has no lease, not even a lapsed one: a check cannot see what it owns, and its jobs
-- may have been put back. I6: the worker's hash keeps the last call and its answer.
-- I14: the first write is an HDEL, which a full Redis allows and which makes the rest
-- of the script legal.
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local stride, jobs = tonumber(ARGV[5]), tonumber(ARGV[6])
local ids = {ARGV[4]}
for i = 0, jobs - 1 do ids[i + 2] = ARGV[7 + i * stride] end
local held = redis.call('HMGET', KEYS[1], unpack(ids))
if held[1] then
  local call, answer = string.match(held[1], '^([^:]*):(.*)$')
  if call == ARGV[1] then return answer end
end
local lease = redis.call('ZSCORE', KEYS[2], ARGV[2])
local may = lease and (ARGV[3] == '' or tonumber(lease) < clock())
local own, mine, refused = {}, {}, {}
for i = 0, jobs - 1 do
  local at = 7 + i * stride
  if may and held[i + 2] == ARGV[at + 1] then
    own[#own + 1] = at
    mine[#mine + 1] = ARGV[at]
  else
    refused[#refused + 1] = i .. ','
  end
end
refused = table.concat(refused)
if #own == 0 then return refused end
redis.call('HDEL', KEYS[1], unpack(mine))
redis.call('HSET', KEYS[1], ARGV[4], ARGV[1] .. ':' .. refused)

