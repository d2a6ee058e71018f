-- Everything relay status shows, read at one instant. Writes nothing.
-- ARGV: a heartbeat is fresh for ms, [queues], [files that were spilled].
-- Answer: {now, books, refused, paused, workers, when the oldest of each queue began to wait, how far each file
-- has been stored}
local fresh, queues, files = number(), list(), list()
local now = now_ms()
local oldest, places = {}, {}
for i, name in ipairs(queues) do oldest[i] = waiting_since(name) end
for i, file in ipairs(files) do places[i] = tonumber(redis.call('GET', P .. 'spilled:' .. file) or 0) end
return {now, redis.call('HGETALL', P .. 'books'), redis.call('HGETALL', P .. 'refused'),
  redis.call('HGETALL', P .. 'paused'), redis.call('ZCOUNT', P .. 'workers', now - fresh, '+inf'), oldest, places}
