-- Record the end of an outage, because its buckets lack the tokens admitted meanwhile. KEYS[1]: when it ended (us).
-- Reply: now, us.
local clock = redis.call('TIME')
local now = string.format('%.0f', tonumber(clock[1]) * 1000000 + tonumber(clock[2]))
redis.call('SET', KEYS[1], now)
return now
