-- Take entries of one queue into a worker's hands, oldest first: what was given back, then what is new.
-- ARGV: queue, stage, consumer, most entries, most bytes, enough, ripe_ms
-- Nothing is taken before `enough` entries wait or the oldest is `ripe_ms` old.
-- Answer: {milliseconds until it is worth asking again (-1: empty, -2: paused), {entry, ...}}
local queue, stage, consumer = arg(), arg(), arg()
local most, most_bytes, enough, ripe = number(), number(), number(), number()
local key = queue_key(queue)

local pause = redis.call('HGET', P .. 'paused', stage)
if pause and cjson.decode(pause).by == 'operator' then return {-2, {}} end

local waiting = redis.call('XLEN', key)
if waiting == 0 then return {-1, {}} end
if waiting < enough then
  local oldest = tonumber(string.match(redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1][1], '^%d+'))
  local age = now_ms() - oldest
  if age < ripe then return {ripe - age, {}} end
end

local function next_entry()
  local back = redis.call('XPENDING', key, GROUP, '-', '+', 1, RELEASED)
  if #back > 0 then
    local claimed = redis.call('XCLAIM', key, GROUP, consumer, 0, back[1][1])
    if #claimed > 0 and claimed[1] then return claimed[1] end
    redis.call('XACK', key, GROUP, back[1][1]) -- deleted from the stream: nothing is behind it any more
    return next_entry()
  end
  local new = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', 1, 'STREAMS', key, '>')
  return new and new[1][2][1]
end

local entries, bytes = {}, 0
while #entries < most and bytes < most_bytes do
  local entry = next_entry()
  if not entry then break end
  entries[#entries + 1] = entry
  for _, field in ipairs(entry[2]) do bytes = bytes + #field end
  local cursor = redis.call('HGET', P .. 'cursors', queue .. '/' .. entry[1])
  local attempts = redis.call('HGET', P .. 'attempts', queue .. '/' .. entry[1])
  entry[3], entry[4] = cursor or '', attempts or ''
end
if #entries == 0 then return {-1, {}} end
return {0, entries}
