-- The store is back: what was admitted meanwhile is not in its buckets. KEYS[1]: since when it is back. Reply: now, us.
local clock = redis.call('TIME')
local now = string.format('%.0f', tonumber(clock[1]) * 1000000 + tonumber(clock[2]))
redis.call('SET', KEYS[1], now)
return now
