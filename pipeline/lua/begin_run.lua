-- Write down a new retry run, in the place of one that was interrupted; also on a full server.
-- ARGV: its id, a beat is fresh for ms, [fields]. Answer: 1, or 0 while another run goes on.
-- Second run: finds its own run and writes it once more.
local id, fresh = arg(), number()
local key, now = P .. 'retry-run', now_ms()
local state = redis.call('HMGET', key, 'id', 'beat_at_ms')
if state[1] ~= id and tonumber(state[2] or 0) > now - fresh then return 0 end
even_when_full()
redis.call('DEL', key)
redis.call('HSET', key, 'id', id, 'beat_at_ms', string.format('%.0f', now), unpack(list()))
return 1
