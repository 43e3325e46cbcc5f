-- Record a heartbeat and return the number of live workers. KEYS[1]: sorted set of workers by their last heartbeat (s);
-- ARGV: name of this worker, seconds to live.
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))
redis.call('EXPIRE', KEYS[1], 60)
return redis.call('ZCARD', KEYS[1])
