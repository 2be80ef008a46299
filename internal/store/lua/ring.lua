-- Rings the bell, unless it rings already: it holds at most one element.
-- KEYS bell
if redis.call('LLEN', KEYS[1]) == 0 then redis.call('RPUSH', KEYS[1], 1) end
return 1
