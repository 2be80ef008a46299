-- Turns jobs into dead letters, in the same step that ends their attempt.
-- KEYS those of queueKeys, dead, letters, hooks, deadtasks, then pairs of
--      dead:<task>, hooks:<task>, and the why:<reason> keys
-- ARGV as the fence has it; for each job: index of its dead:<task> key, task, index of
--      its why:<reason> key, entry, '1' when a hook must hear of it; then the channel
-- Returns the comma-ended indexes of the jobs whose token was refused.
-- I1, I5: a job leaves the worker's hash and becomes a dead letter in one step.
local letters, indexes, tasks, hooked = {}, {}, {}, {}
local score = string.format('%.0f', clock())
local function index(key, member)
  indexes[key] = indexes[key] or {}
  table.insert(indexes[key], score)
  table.insert(indexes[key], member)
end
for i = 0, jobs - 1 do
  if held[i + 3] then
    local id, at = ARGV[base + 7 + i], rest + 5 * i
    local key, task = tonumber(ARGV[at]), ARGV[at + 1]
    letters[#letters + 1] = id
    letters[#letters + 1] = ARGV[at + 3]
    index(10, id)
    index(key, id)
    index(tonumber(ARGV[at + 2]), id)
    tasks[key] = task
    if ARGV[at + 4] == '1' then
      index(key + 1, id)
      hooked[key + 1] = task
    end
  end
end
take()
redis.call('HDEL', KEYS[2], unpack(mine))
redis.call('HDEL', KEYS[3], unpack(mine))
redis.call('HSET', KEYS[11], unpack(letters))
for key, entries in pairs(indexes) do redis.call('ZADD', KEYS[key], unpack(entries)) end
for _, task in pairs(tasks) do redis.call('ZADD', KEYS[13], '0', task) end
for key, task in pairs(hooked) do
  redis.call('ZADD', KEYS[12], redis.call('ZRANGE', KEYS[key], '0', '0', 'WITHSCORES')[2], task)
end
redis.call('HINCRBY', KEYS[7], 'dead', #mine)
-- A hint to waiting receipts: a user without rights to the channel loses it.
redis.pcall('PUBLISH', ARGV[#ARGV], table.concat(mine, ' '))
return refused
