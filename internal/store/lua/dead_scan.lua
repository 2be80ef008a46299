-- Stands before dead_page.lua and dead_take.lua.
-- rank: how many letters of an index come up to and with (score, id), in the order
-- of Redis. It holds when that letter is gone, or many died in one millisecond.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
-- By bytes, as Redis sorts: Lua's own < follows the locale of the server.
local function less(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end
local function rank(key, score, id)
  local low = redis.call('ZCOUNT', key, '-inf', '(' .. score)
  local high = redis.call('ZCOUNT', key, '-inf', score)
  while low < high do
    local mid = math.floor((low + high) / 2)
    if less(id, redis.call('ZRANGE', key, mid, mid)[1]) then high = mid else low = mid + 1 end
  end
  return low
end

