-- From now on every bucket counts as spent but for a tenth: the store was away, and what was admitted is not in it.
-- KEYS[1]: since when it remembers. Reply: now, us.
local clock = redis.call('TIME')
local now = string.format('%.0f', tonumber(clock[1]) * 1000000 + tonumber(clock[2]))
redis.call('SET', KEYS[1], now)
return now
