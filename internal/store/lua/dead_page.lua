-- Reads a page of dead letters of one index, oldest first. Writes nothing.
-- KEYS the index, letters
-- ARGV cursor: score and id, last score ms or '+inf', letters at most (500),
--      bytes at most (one letter always fits)
-- Returns {now ms, 1 if there may be more, ids, scores, entries}
local from = rank(KEYS[1], ARGV[1], ARGV[2])
local found = redis.call('ZRANGE', KEYS[1], from, from + tonumber(ARGV[4]) - 1, 'WITHSCORES')
local until_ms = ARGV[3] == '+inf' and math.huge or tonumber(ARGV[3])
local ids, scores, entries, bytes = {}, {}, {}, 0
for i = 1, #found, 2 do
  if tonumber(found[i + 1]) > until_ms then return {now, 0, ids, scores, entries} end
  local entry = redis.call('HGET', KEYS[2], found[i]) or ''
  bytes = bytes + #entry
  if #ids > 0 and bytes > tonumber(ARGV[5]) then return {now, 1, ids, scores, entries} end
  ids[#ids + 1] = found[i]
  scores[#scores + 1] = found[i + 1]
  entries[#entries + 1] = entry
end
return {now, #ids == tonumber(ARGV[4]) and 1 or 0, ids, scores, entries}
