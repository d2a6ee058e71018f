-- Take up the retry run that was interrupted, under a new id, so that whoever carried it out before stops at the next
-- beat; also on a full server. ARGV: its id, the new id, a beat is fresh for ms, how many letters it means.
-- Answer: 1, or 0 when it goes on, or is another by now.
-- Second run: finds the new id, and writes the same once more.
local id, new_id, fresh, meant = arg(), arg(), number(), number()
local key, now = P .. 'retry-run', now_ms()
local run = redis.call('HMGET', key, 'id', 'beat_at_ms')
if run[1] ~= new_id and (run[1] ~= id or tonumber(run[2] or 0) > now - fresh) then return 0 end
even_when_full()
redis.call('HSET', key, 'id', new_id, 'beat_at_ms', string.format('%.0f', now), 'meant', meant)
redis.call('HDEL', key, 'stopping')
return 1
