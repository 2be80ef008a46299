-- Ends dead letters: each is gone, or becomes a job that waits.
-- KEYS as forget has it, then jobs, ledger, ready, bell, and pairs of dead:<task>,
--      hooks:<task>
-- ARGV call number, memo TTL ms, the counter to raise; then for each letter (at
--      most 500, each id once): id, SHA-1 of its entry or '' for any, review token
--      or '' for none, index of its dead:<task> key, task, envelope or '', ledger
-- Returns one character per letter: '+' done, '-' no such letter, 'c' its entry is
--      another, 'r' under review, 'l' the review is lost, 't' a job has its id.
-- I5: a letter leaves all indexes and becomes a job in one step. I6: the memo.
local ids, answer, seen = {}, {}, {}
for at = 4, #ARGV, 7 do ids[#ids + 1] = ARGV[at] end
local entries = redis.call('HMGET', KEYS[3], unpack(ids))
local reviews = redis.call('HMGET', KEYS[7], unpack(ids))
local jobs = redis.call('HMGET', KEYS[15], unpack(ids))
local groups, fields, ledgers, push, done = {}, {}, {}, {}, 0
for i, id in ipairs(ids) do
  local at = 4 + (i - 1) * 7
  local sum, token, key = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  local deadline, holder = string.match(reviews[i] or '', '^(%d+):(.*)$')
  if not entries[i] or seen[id] then
    answer[i] = token == '' and '-' or 'l'
  elseif not redis.call('ZSCORE', KEYS[key], id) or sum ~= '' and redis.sha1hex(entries[i]) ~= sum then
    answer[i] = 'c'
  elseif token ~= '' and holder ~= token then
    answer[i] = 'l'
  elseif token == '' and deadline and tonumber(deadline) >= now then
    answer[i] = 'r'
  elseif ARGV[at + 5] ~= '' and jobs[i] then
    answer[i] = 't'
  else
    answer[i], seen[id], done = '+', true, done + 1
    groups[key] = groups[key] or {task = ARGV[at + 4]}
    table.insert(groups[key], id)
    if ARGV[at + 5] ~= '' then
      push[#push + 1] = id
      fields[#fields + 1] = id
      fields[#fields + 1] = ARGV[at + 5]
      ledgers[#ledgers + 1] = id
      ledgers[#ledgers + 1] = ARGV[at + 6]
    end
  end
end
answer = table.concat(answer)
redis.call('HDEL', KEYS[7], '#') -- legal on a full Redis, as is then the rest
for key, group in pairs(groups) do forget(group, key, group.task) end
if #push > 0 then
  redis.call('HSET', KEYS[15], unpack(fields))
  redis.call('HSET', KEYS[16], unpack(ledgers))
  redis.call('RPUSH', KEYS[17], unpack(push))
  if redis.call('LLEN', KEYS[18]) == 0 then redis.call('RPUSH', KEYS[18], 1) end
end
if done > 0 then redis.call('HINCRBY', KEYS[6], ARGV[3], done) end
return remember(answer)
