-- Keep what the set-up of a sender's webhook brought; the newest holds, whichever is read last.
-- ARGV: source, when it was received in ms, value (JSON with `received_at_ms`), how long in ms.
-- Answer: 1 when it is the newest.
-- Second run: finds what it has written, and writes the same again.
local source, received, value, ms = arg(), number(), arg(), number()
local key = P .. 'set-up:' .. source
local before = redis.call('GET', key)
if before and cjson.decode(before).received_at_ms > received then return 0 end
even_when_full()
redis.call('SET', key, value, 'PX', ms)
return 1
