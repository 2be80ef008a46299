-- Puts jobs back: after a delay, or to the front at once.
-- KEYS those of queueKeys
-- ARGV as the fence has it; for each job: delay ms ('front' = to the front), ledger
--      ('' = unchanged), the counter to raise
-- Returns the comma-ended indexes of the jobs whose token was refused.
-- I5: a job leaves the worker's hash and enters ready or delayed in one step.
local now = clock(math.ceil) -- a delay counts from the next millisecond on (I12)
local head = redis.call('ZRANGE', KEYS[4], '0', '0', 'WITHSCORES')
local soonest = head[2] and tonumber(head[2]) or math.huge
local front, back, later, ledgers, count, ring = {}, {}, {}, {}, {}, false
for i = jobs - 1, 0, -1 do
  if held[i + 3] then
    local id, at = ARGV[base + 7 + i], rest + 3 * i
    local delay, entry, counter = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    if delay == 'front' then
      front[#front + 1] = id
    elseif tonumber(delay) <= 0 then
      table.insert(back, 1, id)
    else
      local due = now + tonumber(delay)
      later[#later + 1] = string.format('%.0f', due)
      later[#later + 1] = id
      if due < soonest then ring = true end
    end
    if entry ~= '' then
      ledgers[#ledgers + 1] = id
      ledgers[#ledgers + 1] = entry
    end
    count[counter] = (count[counter] or 0) + 1
  end
end
take()
if #ledgers > 0 then redis.call('HSET', KEYS[3], unpack(ledgers)) end
if #later > 0 then redis.call('ZADD', KEYS[4], unpack(later)) end
if #back > 0 then redis.call('RPUSH', KEYS[1], unpack(back)) end
if #front > 0 then redis.call('LPUSH', KEYS[1], unpack(front)) end
for counter, n in pairs(count) do redis.call('HINCRBY', KEYS[7], counter, n) end
if (ring or #front + #back > 0) and redis.call('LLEN', KEYS[8]) == 0 then redis.call('RPUSH', KEYS[8], '1') end
return refused
