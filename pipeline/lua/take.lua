-- Take entries of one queue into a worker's hands, oldest first: what was given back, then what is new.
-- ARGV: queue, stage, consumer, most entries, most bytes
-- Answer: {how it stands (0: here they are, -1: empty, -2: paused), {{id, fields, cursor, attempts}, ...}}
local queue, stage, consumer, most, most_bytes = arg(), arg(), arg(), number(), number()
local key = queue_key(queue)

local pause = redis.call('HGET', P .. 'paused', stage)
if pause and cjson.decode(pause).by == 'operator' then return {-2, {}} end

local entries, bytes, largest = {}, 0, 0
local function add(entry)
  local size = 0
  for _, field in ipairs(entry[2]) do size = size + #field end
  entries[#entries + 1] = entry
  bytes, largest = bytes + size, math.max(largest, size)
end

-- only what was in somebody's hands before can have come some way already
while #entries < most and bytes < most_bytes do
  local back = redis.call('XPENDING', key, GROUP, '-', '+', 1, RELEASED)
  if #back == 0 then break end
  local claimed = redis.call('XCLAIM', key, GROUP, consumer, 0, back[1][1])
  if #claimed > 0 and claimed[1] then
    local entry, place = claimed[1], queue .. '/' .. claimed[1][1]
    entry[3] = redis.call('HGET', P .. 'cursors', place) or ''
    entry[4] = redis.call('HGET', P .. 'attempts', place) or ''
    add(entry)
  else
    redis.call('XACK', key, GROUP, back[1][1]) -- deleted from the stream: nothing is behind it any more
  end
end
-- an entry may be huge: handfuls double as long as the largest one so far leaves room for as many
local step = 1
while #entries < most and bytes < most_bytes do
  local room = math.max(1, math.floor((most_bytes - bytes) / (largest + 1)))
  local wanted = math.min(step, room, most - #entries)
  local new = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', wanted, 'STREAMS', key, '>')
  if not new then break end
  for _, entry in ipairs(new[1][2]) do
    entry[3], entry[4] = '', ''
    add(entry)
  end
  if #new[1][2] < wanted then break end
  step = step * 2
end
if #entries == 0 then return {-1, {}} end
return {0, entries}
