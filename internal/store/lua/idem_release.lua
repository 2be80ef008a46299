-- Gives a running claim up: the effect did not happen, or nobody knows.
-- KEYS record
-- ARGV owner, attempt, fence
-- Returns 1, or 0 when the claim is not running: nothing was written.
-- RUNNING → ABSENT. I4: compares owner, attempt and fence. I6: a second call finds
-- nothing to do.
local r = redis.call('HMGET', KEYS[1], 'state', 'owner', 'attempt', 'fence')
if r[1] ~= 'running' or r[2] ~= ARGV[1] or r[3] ~= ARGV[2] or r[4] ~= ARGV[3] then return 0 end
return redis.call('DEL', KEYS[1])
