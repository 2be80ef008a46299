-- Adds a batch of jobs, in the order given, unless their ids are taken.
-- KEYS jobs, ready, delayed, letters, lane, bell, stats
-- ARGV call number of the lane, lane TTL ms, '1' to look for the ids among the
--      dead letters too, then for each job: id, envelope,
--      due ('' now, '+ms' from now, 'ms' since the epoch)
-- Returns {now ms, '' or the comma-ended indexes of jobs whose id was taken};
--      {-1} for a call that a later one of its lane has overtaken.
-- I6: the lane remembers its last call and the answer to it. I12: a delay counts
-- from the next millisecond on. I14: the first write is the HSET, which a full Redis
-- refuses before anything has changed.
local call = tonumber(ARGV[1])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local last = redis.call('GET', KEYS[5])
if last then
  local n, taken = string.match(last, '^(%d+):(.*)$')
  if tonumber(n) == call then return {now, taken} end
  if tonumber(n) > call then return {-1} end
end

local ids = {}
for i = 4, #ARGV, 3 do ids[#ids + 1] = ARGV[i] end
local have = redis.call('HMGET', KEYS[1], unpack(ids))
local dead = ARGV[3] == '1' and redis.call('HMGET', KEYS[4], unpack(ids)) or {}
local head = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
local first = head[2] and tonumber(head[2]) or math.huge

local taken, fields, push, later, sooner = {}, {}, {}, {}, false
local seen = {}
for i, id in ipairs(ids) do
  if have[i] or dead[i] or seen[id] then
    taken[#taken + 1] = i .. ','
  else
    seen[id] = true
    local due = ARGV[i * 3 + 3]
    fields[#fields + 1] = id
    fields[#fields + 1] = ARGV[i * 3 + 2]
    local at = 0
    if due ~= '' then
      at = tonumber(due)
      if string.sub(due, 1, 1) == '+' then at = t[1] * 1000 + math.ceil(t[2] / 1000) + at end
    end
    if at <= now then
      push[#push + 1] = id
    else
      later[#later + 1] = string.format('%.0f', at)
      later[#later + 1] = id
      if at < first then sooner = true end
    end
  end
end

taken = table.concat(taken)
if #fields > 0 then redis.call('HSET', KEYS[1], unpack(fields)) end
redis.call('SET', KEYS[5], ARGV[1] .. ':' .. taken, 'PX', ARGV[2])
if #push > 0 then redis.call('RPUSH', KEYS[2], unpack(push)) end
if #later > 0 then redis.call('ZADD', KEYS[3], unpack(later)) end
if #fields > 0 then redis.call('HINCRBY', KEYS[7], 'enqueued', #fields / 2) end
if (#push > 0 or sooner) and redis.call('LLEN', KEYS[6]) == 0 then redis.call('RPUSH', KEYS[6], 1) end
return {now, taken}
