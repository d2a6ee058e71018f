-- Write the minute's books into the history, once a minute whoever asks; also on a full server. ARGV: entries kept,
-- [counters]. Answer: whether it was written (0/1).
-- Second run: the minute is there already.
local most, counters = number(), list()
local minute = string.format('%.0f', math.floor(now_ms() / 60000) * 60000)
local key = P .. 'history'
local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)
-- a clock that was set back waits until it comes by its last minute again
if last[1] and tonumber(string.match(last[1][1], '^%d+')) >= tonumber(minute) then return 0 end
local books = redis.call('HMGET', P .. 'books', unpack(counters))
local entry = {}
for i, name in ipairs(counters) do
  entry[#entry + 1] = name
  entry[#entry + 1] = books[i] or 0
end
even_when_full()
redis.call('XADD', key, 'MAXLEN', '~', most, minute .. '-0', unpack(entry))
return 1
