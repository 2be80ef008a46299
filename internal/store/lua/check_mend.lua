-- Judges jobs by all the places where one can be, at one instant, and mends.
-- KEYS memo, stats, jobs, ready, delayed, ledger, workers, owners, bell, then the
--      owners' hashes
-- ARGV as the memo has it, moves() from before ready was read through and the ids not
--      found there, or '' to walk ready; number of owners, their names; then for each
--      job (at most 500): id, SHA-1 of its payload or ''
-- Returns 'owners' when there are others; else moves() and one character per job:
--      '.' sound, 'x' no payload, 'o' in no place, 'm' in several, 'l' only a ledger;
--      in upper case what was mended.
local still = ARGV[4] ~= '' and ARGV[4] == moves()
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local known, names, live, jobs = {}, tonumber(ARGV[5]), {}, {}
for w = 1, names do known[ARGV[5 + w]] = 9 + w end
for list = 7, 8 do
  for _, name in ipairs(redis.call('ZRANGE', KEYS[list], 0, -1)) do
    if not known[name] then return 'owners' end
  end
end
for w = 1, names do live[9 + w] = tonumber(redis.call('ZSCORE', KEYS[7], ARGV[5 + w]) or '-1') >= now end
for at = 6 + names, #ARGV, 2 do
  local j = {id = ARGV[at], code = '.', owners = {}, ready = 0}
  j.payload, j.due = redis.call('HGET', KEYS[3], j.id), redis.call('ZSCORE', KEYS[5], j.id)
  for key = 10, #KEYS do
    local token = redis.call('HGET', KEYS[key], j.id)
    if token then
      token = tonumber(token) or 0
      local first = not j.owners[1] or token > j.owners[1].token
      table.insert(j.owners, first and 1 or #j.owners + 1, {key = key, token = token})
    end
  end
  local places = #j.owners + (j.due and 1 or 0)
  local same = ARGV[at + 1] == (j.payload and redis.sha1hex(j.payload) or '')
  if not (still and same) then j.ready = #redis.call('LPOS', KEYS[4], j.id, 'COUNT', 0) end
  places = places + j.ready
  if j.payload then
    j.code = places == 0 and 'o' or places > 1 and 'm' or '.'
  elseif places > 0 then
    j.code = 'x'
    j.left = j.ready == 0 and not j.due and live[j.owners[1].key]
  elseif redis.call('HEXISTS', KEYS[6], j.id) == 1 then
    j.code = 'l'
  end
  jobs[#jobs + 1] = j
end
