-- Wakes one blocked worker: the bell holds one element then.
-- KEYS bell
-- I6: a ring that is sent again leaves one element, too. I14: the LTRIM, which empties
-- the list, goes first: a full Redis allows it, and then the rest.
redis.call('LTRIM', KEYS[1], '1', '0')
return redis.call('RPUSH', KEYS[1], '1')
