-- Keep what a verification said, with its address; nothing for one that was forgotten meanwhile. Also on a full
-- server: it would be asked again otherwise, and what waits for it could never leave.
-- ARGV: digest of the address, what was said. Answer: whether it is kept (0/1).
-- Second run: keeps the same, said a moment later.
local key, said = P .. 'address:' .. arg(), arg()
if redis.call('EXISTS', key) == 0 then return 0 end
even_when_full()
redis.call('HSET', key, 'verification', said, 'verified_ms', string.format('%.0f', now_ms()))
return 1
