-- Record the end of an outage: requests that were admitted meanwhile are not charged to the buckets.
-- KEYS[1]: the time at which the last outage ended (us). Reply: now (us).
local clock = redis.call('TIME')
local now = string.format('%.0f', tonumber(clock[1]) * 1000000 + tonumber(clock[2]))
redis.call('SET', KEYS[1], now)
return now
