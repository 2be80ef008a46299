-- Turns jobs into dead letters, in the same step that ends their attempt.
-- KEYS w:<worker>, workers, jobs, ledger, dead, letters, hooks, stats,
--      then the dead:<task> keys
-- ARGV as the fence has it, each job: id, token, index of its dead:<task> key,
--      entry, '1' when a hook must hear of it; then the channel
-- Returns the comma-ended indexes of the jobs whose token was refused.
-- I1, I5: a job leaves the worker's hash and becomes a dead letter in one step.
local letters, dead, tasks, hooks = {}, {}, {}, {}
local score = string.format('%.0f', now)
for _, at in ipairs(own) do
  local id, key = ARGV[at], tonumber(ARGV[at + 2])
  letters[#letters + 1] = id
  letters[#letters + 1] = ARGV[at + 3]
  dead[#dead + 1] = score
  dead[#dead + 1] = id
  tasks[key] = tasks[key] or {}
  table.insert(tasks[key], score)
  table.insert(tasks[key], id)
  if ARGV[at + 4] == '1' then
    hooks[#hooks + 1] = score
    hooks[#hooks + 1] = id
  end
end
redis.call('HDEL', KEYS[3], unpack(mine))
redis.call('HDEL', KEYS[4], unpack(mine))
redis.call('HSET', KEYS[6], unpack(letters))
redis.call('ZADD', KEYS[5], unpack(dead))
for key, entries in pairs(tasks) do redis.call('ZADD', KEYS[key], unpack(entries)) end
if #hooks > 0 then redis.call('ZADD', KEYS[7], unpack(hooks)) end
redis.call('HINCRBY', KEYS[8], 'dead', #own)
-- A hint to waiting receipts: a user without rights to the channel loses it.
redis.pcall('PUBLISH', ARGV[#ARGV], table.concat(mine, ' '))
return refused
