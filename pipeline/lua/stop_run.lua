-- Ask the retry run to stop after the chunk that is under way; also on a full server. Whoever carries it out hears it at
-- its next beat, within a second. ARGV: a beat is fresh for ms. Answer: whether anybody carries it out (0/1).
-- Second run: asks once more.
local key, fresh = P .. 'retry-run', number()
if tonumber(redis.call('HGET', key, 'beat_at_ms') or 0) <= now_ms() - fresh then return 0 end
even_when_full()
redis.call('HSET', key, 'stopping', 1)
return 1
