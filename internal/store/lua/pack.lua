-- Stands before claim.lua: joins values into one string, since a reply of few
-- elements costs both sides far less than one of many.
-- Gives pack(values, n) → sizes joined by commas (-1 = no value), the values joined.
local function pack(values, n)
  local sizes, parts = {}, {}
  for i = 1, n do
    local v = values[i]
    sizes[i] = v and tostring(#v) or '-1' -- text: miniredis returns one number as a number
    if v then parts[#parts + 1] = v end
  end
  return table.concat(sizes, ','), table.concat(parts)
end

