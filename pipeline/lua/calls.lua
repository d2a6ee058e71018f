-- Add to what is known of an endpoint's calls: how many took how long and came to what, and the last that failed.
-- A call counts in the slot of the moment at which it is told of, once for each length of slots, and among all calls.
-- ARGV: endpoint, how many numbers follow: for each length of slots its milliseconds and how long a slot is kept,
--       how many failures are kept, for how long (ms), how many words follow: field and number of each count,
--       how many words follow: milliseconds ago and text of each failure, the oldest first.
-- Second run: counts the same calls once more: they are statistics, and no books. A failure stands there twice.
local endpoint, slots, most, kept_ms, counts, failures = arg(), list(), number(), number(), list(), list()
local now = now_ms()
even_when_full()
local all = P .. 'calls:' .. endpoint

local function add(key)
  for n = 1, #counts, 2 do redis.call('HINCRBY', key, counts[n], counts[n + 1]) end
end

add(all)
for i = 1, #slots, 2 do
  local width = tonumber(slots[i])
  local key = all .. ':' .. slots[i] .. ':' .. string.format('%.0f', math.floor(now / width))
  add(key)
  redis.call('PEXPIRE', key, slots[i + 1])
end
if #failures > 0 then
  local key = P .. 'failed-calls:' .. endpoint
  for i = 1, #failures, 2 do
    redis.call('LPUSH', key, string.format('%.0f', now - tonumber(failures[i])) .. '|' .. failures[i + 1])
  end
  redis.call('LTRIM', key, 0, most - 1)
  redis.call('PEXPIRE', key, kept_ms)
end
