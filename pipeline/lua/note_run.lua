-- Write down how far a retry run came and that it goes on, unless another took its place; also on a full server.
-- ARGV: its id, 1 when it goes on (0: it may be resumed at once), [fields]. Answer: whether it is still the run (0/1).
-- A run that was asked to stop (`stop_run.lua`) is told so as if another had taken its place; it then says that it does
-- not go on.
-- Second run: writes the same once more.
local id, goes_on = arg(), number()
local key = P .. 'retry-run'
local run = redis.call('HMGET', key, 'id', 'stopping')
if run[1] ~= id then return 0 end
even_when_full()
redis.call('HSET', key, 'beat_at_ms', string.format('%.0f', goes_on * now_ms()), unpack(list()))
if goes_on == 0 then redis.call('HDEL', key, 'stopping') end
return run[2] and 0 or 1
