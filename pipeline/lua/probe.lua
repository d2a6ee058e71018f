-- Let a stage's next call go now: a back-off, or the wait of the relay's own pause, is over. The failures behind it
-- stay known, so one call finds out how it goes, and when it fails the pause goes on. An operator's pause stays, and
-- so does one that waits for a key.
-- ARGV: stage.
-- Answer: 'operator' or 'key', whose pause stands in the way; 'free' when nothing is put off; else 'due'.
-- Second run: makes the next call due once more: one probe more, at the most.
local stage = arg()
local destination = P .. 'destination:' .. stage
local now = now_ms()
local pause = redis.call('HGET', P .. 'paused', stage)
pause = pause and cjson.decode(pause)
if pause and pause.by == 'operator' then return 'operator' end
if pause and type(pause.until_ms) ~= 'number' then return 'key' end
local state = redis.call('HMGET', destination, 'failures', 'due')
if not pause and tonumber(state[1] or 0) == 0 and tonumber(state[2] or 0) <= now then return 'free' end
even_when_full()
redis.call('HSET', destination, 'due', string.format('%.0f', now))
redis.call('HDEL', destination, 'asked')
if pause then
  pause.until_ms = now
  redis.call('HSET', P .. 'paused', stage, cjson.encode(pause))
end
return 'due'
