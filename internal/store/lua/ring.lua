-- Wakes one blocked worker: the bell holds one element then.
-- KEYS bell
-- I6: a ring that is sent again leaves one element, too. I14: the LPOP goes first: a
-- full Redis allows it, and then the rest.
redis.call('LPOP', KEYS[1])
return redis.call('RPUSH', KEYS[1], 1)
