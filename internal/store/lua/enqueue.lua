-- Adds a batch of jobs, in the order given, unless their ids are taken.
-- KEYS jobs, ready, delayed, letters, lane, bell, stats
-- ARGV call number of the lane, lane TTL ms, '1' to look for the ids among the
--      dead letters too, number of jobs; for each job: id, envelope; then nothing where
--      all are due now, or for each job: due ('' now, '+ms' from now, 'ms' since the
--      epoch)
-- Returns the comma-ended indexes of the jobs whose id was taken; nil for a call that
--      a later one of its lane has overtaken.
-- I6: the lane remembers its last call and the answer to it. I12: a delay counts
-- from the next millisecond on. I14: the first write is the HSET, which a full Redis
-- refuses before anything has changed.
local last = redis.call('GET', KEYS[5])
if last then
  local call, taken = string.match(last, '^(%d+):(.*)$')
  if call == ARGV[1] then return taken end
  if tonumber(call) > tonumber(ARGV[1]) then return false end
end
local n, ids = tonumber(ARGV[4]), {}
for i = 1, n do ids[i] = ARGV[3 + 2 * i] end
local have = redis.call('HMGET', KEYS[1], unpack(ids))
local dead = ARGV[3] == '1' and redis.call('HMGET', KEYS[4], unpack(ids)) or {}
local now, next, first, dues = 0, 0, 0, 4 + 2 * n
if #ARGV > dues then
  local t, head = redis.call('TIME'), redis.call('ZRANGE', KEYS[3], '0', '0', 'WITHSCORES')
  now, next = t[1] * 1000 + math.floor(t[2] / 1000), t[1] * 1000 + math.ceil(t[2] / 1000)
  first = head[2] and tonumber(head[2]) or math.huge
end

local taken, push, later, sooner, fresh, plain = {}, ids, {}, false, n, #ARGV == dues
for i = 1, n do if have[i] or dead[i] then plain = false end end
-- In the common case nothing is delayed, no id is taken, and none is there twice.
if not plain or redis.call('HSET', KEYS[1], unpack(ARGV, 5, dues)) < n then
  local fields, seen = {}, {}
  push, fresh = {}, 0
  for i, id in ipairs(ids) do
    if have[i] or dead[i] or seen[id] then
      taken[#taken + 1] = i .. ','
    else
      seen[id], fresh = true, fresh + 1
      fields[2 * fresh - 1], fields[2 * fresh] = id, ARGV[4 + 2 * i]
      local due, at = ARGV[dues + i] or '', 0
      if due ~= '' then at = string.sub(due, 1, 1) == '+' and next + due or tonumber(due) end
      if at <= now then
        push[#push + 1] = id
      else
        later[#later + 1] = string.format('%.0f', at)
        later[#later + 1] = id
        if at < first then sooner = true end
      end
    end
  end
  if fresh > 0 then redis.call('HSET', KEYS[1], unpack(fields)) end
end
taken = table.concat(taken)
redis.call('SET', KEYS[5], ARGV[1] .. ':' .. taken, 'PX', ARGV[2])
if #push > 0 then redis.call('RPUSH', KEYS[2], unpack(push)) end
if #later > 0 then redis.call('ZADD', KEYS[3], unpack(later)) end
if fresh > 0 then redis.call('HINCRBY', KEYS[7], 'enqueued', fresh == n and ARGV[4] or fresh) end
if (#push > 0 or sooner) and redis.call('LLEN', KEYS[6]) == 0 then redis.call('RPUSH', KEYS[6], '1') end
return taken
