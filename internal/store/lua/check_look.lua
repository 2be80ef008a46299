-- Looks where jobs are, for suspects that check_mend.lua then judges. Writes nothing.
-- KEYS jobs, ready, delayed, then the owners' hashes
-- ARGV 'ready', first and last index of a window of ready; or 'ids' and ids (at
--      most 500), whose places in ready are not looked for
-- Returns {ids, one character for each: '.' sound, 'x' in a place and without a
--      payload, 'm' in several places, 'o' a payload in no place, 'g' neither; the
--      SHA-1 of the payload of each 'o'}
local window = ARGV[1] == 'ready'
local ids = {}
if window then
  ids = redis.call('LRANGE', KEYS[2], ARGV[2], ARGV[3])
else
  for i = 2, #ARGV do ids[#ids + 1] = ARGV[i] end
end
if #ids == 0 then return {ids, '', {}} end
local places, answer, sums = {}, {}, {}
for _, id in ipairs(ids) do
  places[id] = (places[id] or redis.call('ZSCORE', KEYS[3], id) and 1 or 0) + (window and 1 or 0)
end
for key = 4, #KEYS do
  for i, token in ipairs(redis.call('HMGET', KEYS[key], unpack(ids))) do
    if token then places[ids[i]] = places[ids[i]] + 1 end
  end
end
for i, id in ipairs(ids) do
  local payload = redis.call('HEXISTS', KEYS[1], id) == 1
  if places[id] == 0 then answer[i] = payload and 'o' or 'g'
  elseif not payload then answer[i] = 'x'
  else answer[i] = places[id] > 1 and 'm' or '.' end
  if answer[i] == 'o' then sums[#sums + 1] = redis.sha1hex(redis.call('HGET', KEYS[1], id)) end
end
return {ids, table.concat(answer), sums}
