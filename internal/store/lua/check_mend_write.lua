-- Stands after check_mend.lua: mends what it judged.
-- Of several places the most advanced stays: the owner with the highest token, else
-- delayed (I12), else the first in ready. A job without a payload leaves all places
-- but a live worker's hash: that worker has its payload and will end it (I1).
local mended, codes, push = 0, {}, {}
for i, j in ipairs(jobs) do
  codes[i] = j.code
  if mending and j.code ~= '.' and not j.left then
    if mended == 0 then free() end
    mended, codes[i] = mended + 1, string.upper(j.code)
    local gone = j.code == 'x'
    for n, owner in ipairs(j.owners) do
      if gone and not live[owner.key] or not gone and n > 1 then redis.call('HDEL', KEYS[owner.key], j.id) end
    end
    if j.due and (gone or #j.owners > 0) then redis.call('ZREM', KEYS[5], j.id) end
    if gone or #j.owners > 0 or j.due then
      if j.ready > 0 then redis.call('LREM', KEYS[4], 0, j.id) end
    elseif j.ready > 1 then
      redis.call('LREM', KEYS[4], 1 - j.ready, j.id) -- from the tail
    end
    if not j.payload then redis.call('HDEL', KEYS[6], j.id) end
    if j.code == 'o' then push[#push + 1] = j.id end
  end
end
if #push > 0 then
  redis.call('RPUSH', KEYS[4], unpack(push))
  if redis.call('LLEN', KEYS[9]) == 0 then redis.call('RPUSH', KEYS[9], 1) end
end
local answer = table.concat(codes)
return remember(moves(mended) .. ':' .. answer, mended) -- as it is after this call
