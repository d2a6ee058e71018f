-- Everything relay status shows, read at one instant. Writes nothing.
-- ARGV: a heartbeat is fresh for ms, [queues], [files that were spilled], [vendors].
-- Answer: {now, books, refused, paused, when the oldest of each queue began to wait, how long each queue is, how far each
-- file has been stored, the pace of each vendor, what each worker that lives has told of its width}
local fresh, queues, files, vendors = number(), list(), list(), list()
local now = now_ms()
local oldest, lengths, places, paces, widths = {}, {}, {}, {}, {}
for i, name in ipairs(queues) do
  lengths[i] = redis.call('XLEN', queue_key(name))
  oldest[i] = waiting_since(name)
end
for i, file in ipairs(files) do places[i] = tonumber(redis.call('GET', P .. 'spilled:' .. file) or 0) end
for i, vendor in ipairs(vendors) do
  paces[i] = redis.call('HMGET', P .. 'pace:' .. vendor, 'share', 'gap', 'why', 'halved')
end
for i, worker in ipairs(redis.call('ZRANGEBYSCORE', P .. 'workers', now - fresh, '+inf')) do
  widths[i] = redis.call('HGETALL', P .. 'width:' .. worker)
end
return {now, redis.call('HGETALL', P .. 'books'), redis.call('HGETALL', P .. 'refused'),
  redis.call('HGETALL', P .. 'paused'), oldest, lengths, places, paces, widths}
