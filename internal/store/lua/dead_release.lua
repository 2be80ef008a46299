-- Ends reviews: the letters are anybody's again.
-- KEYS reviews
-- ARGV token, then ids (at most 500)
-- Returns how many were under this review.
local ids, mine = {}, {}
for i = 2, #ARGV do ids[#ids + 1] = ARGV[i] end
for i, held in ipairs(redis.call('HMGET', KEYS[1], unpack(ids))) do
  if held and string.match(held, '^%d+:(.*)$') == ARGV[1] then mine[#mine + 1] = ids[i] end
end
if #mine > 0 then redis.call('HDEL', KEYS[1], unpack(mine)) end
return #mine
