-- Reads a part of a hash's fields without what they hold. Writes nothing.
-- KEYS the hash
-- ARGV cursor of HSCAN, how many fields, about
-- Returns {next cursor, fields, bytes of what they hold}
local part = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local ids, bytes = {}, 0
for i = 1, #part[2], 2 do
  ids[#ids + 1] = part[2][i]
  bytes = bytes + #part[2][i + 1]
end
return {part[1], ids, bytes}
