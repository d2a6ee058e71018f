-- Take entries of one queue into a worker's hands, oldest first: what was given back, then what is new.
-- ARGV: the caller's name, the call's word, queue, stage, consumer, most entries, most bytes, another queue or ''
-- Answer: {how it stands (0: here they are, -1: empty, -2: paused), {{id, fields, cursor, attempts}, ...}, how many
--         entries the other queue has}
-- Second run: answers with the entries of the first one that are still in this consumer's hands; when there are
-- none, it takes anew.
local caller, word, queue, stage, consumer = arg(), arg(), arg(), arg(), arg()
local most, most_bytes, other = number(), number(), arg()
local key = queue_key(queue)
local lie_there = other == '' and 0 or redis.call('XLEN', queue_key(other))

local entries, bytes, largest = {}, 0, 0
local function add(entry)
  local size = 0
  for _, field in ipairs(entry[2]) do size = size + #field end
  entries[#entries + 1] = entry
  bytes, largest = bytes + size, math.max(largest, size)
end

-- only what was in somebody's hands before can have come some way already
local function add_with_its_past(entry)
  local place = queue .. '/' .. entry[1]
  entry[3] = redis.call('HGET', P .. 'cursors', place) or ''
  entry[4] = redis.call('HGET', P .. 'attempts', place) or ''
  add(entry)
end

for id in string.gmatch(answered(caller, word) or '', '%S+') do
  local entry = redis.call('XRANGE', key, id, id)[1]
  if entry and is_held_by(key, id, consumer) then add_with_its_past(entry) end
end
if #entries > 0 then return {0, entries, lie_there} end

local pause = redis.call('HGET', P .. 'paused', stage)
if pause and cjson.decode(pause).by == 'operator' then return {-2, {}, lie_there} end

while #entries < most and bytes < most_bytes do
  local entry = take_back(queue, consumer)
  if not entry then break end
  add_with_its_past(entry)
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
if #entries == 0 then return {-1, {}, lie_there} end
local ids = {}
for i, entry in ipairs(entries) do ids[i] = entry[1] end
keep_answer(caller, word, table.concat(ids, ' '))
return {0, entries, lie_there}
