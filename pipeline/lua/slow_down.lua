-- A vendor asked for fewer requests: halve the rate that all calls to it share, once for the calls that were on their
-- way together. A rate that is no limit stays one.
-- ARGV: vendor, milliseconds between two calls as configured (0: no limit), when the call was begun by Redis's clock
--       ('': nobody knows), the vendor's words
-- Answer: whether this call has lowered the rate (0/1)
-- Second run: finds that the rate was lowered after the call was begun, and leaves it.
local vendor, gap, begun, why = arg(), number(), tonumber(arg()), arg()
if gap <= 0 then return 0 end
local key, now = P .. 'pace:' .. vendor, now_ms()
local state = redis.call('HMGET', key, 'share', 'gap', 'halved')
local share = share_at(state, gap)
if not is_news(begun, tonumber(state[3] or 0), now) then return 0 end

local lower = slower(share, gap)
if lower >= share then return 0 end -- as slow as it may get already
even_when_full()
redis.call('HSET', key, 'share', lower, 'gap', string.format('%.17g', gap),
  'halved', string.format('%.0f', now), 'why', why)
redis.call('PEXPIRE', key, PACE_KEPT_MS)
return 1
