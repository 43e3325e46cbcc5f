-- Run gcra.decide on the buckets KEYS[3..] by this server's clock. KEYS[1]: the time at which the server last lost its data.
-- KEYS[2]: the time at which its last outage ended.
-- ARGV: nonce, then for each bucket: tokens, period_us, burst, ceiling, debt, least, most, shadow (0 or 1).
-- Reply: nonce, admitted (0 or 1), then for each bucket: granted, remaining, retry_us, reset_us.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])

-- Return quotient and remainder. They are exact below 2^53: the remainder is exact, and the difference divides evenly.
local function div(a, b)
    local rest = math.fmod(a, b)
    if rest < 0 then rest = rest + b end
    return (a - rest) / b, rest
end

-- Return the part of the load `spent`, spent at the time `at`, that is not refilled at `now`.
local function rest_of(spent, at, tokens)
    local ago = math.max(0, now - at)
    if ago <= div(spent, tokens) then return spent - ago * tokens end
    return 0
end

local since = tonumber(redis.call('GET', KEYS[1]) or now + 1)
if since > now then
    -- The server lost its data, or its clock went back.
    since = now
    redis.call('SET', KEYS[1], string.format('%.0f', now))
end
local back = tonumber(redis.call('GET', KEYS[2]) or 0)
if back > now then
    back = now
    redis.call('SET', KEYS[2], string.format('%.0f', now))
end

local count = #KEYS - 2
local stored = {}
if count > 0 then stored = redis.call('MGET', unpack(KEYS, 3)) end
local loads, free, beyond, admitted = {}, {}, {}, 1
for i = 1, count do
    local at = (i - 1) * 8 + 1
    local tokens, period = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local burst, ceiling = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
    local most, load = ceiling * period, 0
    if stored[i] then
        local us, frac, of = string.match(stored[i], '^(%d+) (%d+) (%d+)$')
        local ahead = tonumber(us) - now
        frac = tonumber(frac)
        -- If the rate has changed since this state was written, round the fraction up.
        if tonumber(of) ~= tokens then frac = tokens end
        if ahead > div(most, tokens) then
            load = most
            beyond[i] = true
        elseif ahead >= 0 then
            load = math.min(most, ahead * tokens + frac)
        end
    end
    local spent = (burst - math.max(1, math.floor(burst / 10))) * period
    load = math.max(load, rest_of(spent, since, tokens))
    load = math.max(load, rest_of(math.min(spent, 10000000 * tokens), back, tokens))
    load = math.min(math.max(0, load + tonumber(ARGV[at + 5]) * period), most)
    loads[i] = load
    free[i] = math.max(0, (div(burst * period - load, period)))
    if ARGV[at + 8] ~= '1' and free[i] < tonumber(ARGV[at + 6]) then admitted = 0 end
end

local reply = {ARGV[1], admitted}
for i = 1, count do
    local at = (i - 1) * 8 + 1
    local tokens, period, burst = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    local debt, least, granted = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6]), 0
    if admitted == 1 and free[i] >= least then granted = math.min(free[i], tonumber(ARGV[at + 7])) end
    local load = loads[i] + granted * period
    local whole, frac = div(load, tokens)
    local reset = whole
    if frac > 0 then reset = whole + 1 end
    local retry = 0
    if free[i] < least then
        local rest
        retry, rest = div(loads[i] - (burst - least) * period, tokens)
        if rest > 0 then retry = retry + 1 end
    end
    if granted > 0 or debt ~= 0 or beyond[i] then
        local ttl_ms = math.floor(reset / 1000) + 1001
        local state = string.format('%.0f %.0f %.0f', now + whole, frac, tokens)
        redis.call('SET', KEYS[i + 2], state, 'PX', string.format('%.0f', ttl_ms))
    end
    local n = #reply
    reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = granted, free[i] - granted, retry, reset
end
return reply
