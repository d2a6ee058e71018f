-- Keep a body that was answered 400, once a day: the same body again only raises its letter's count.
-- ARGV: digest of source and body, id, source, reason, [fields], the note of it as JSON. Answer: the id of the letter.
-- Its sender has delivered, with one more dead delivery for each letter, as in the books.
-- Second run: finds its own letter and leaves the count as it is. (That of a body that had come before is raised
-- again; but the receiver's client never sends anything twice.)
local digest, id, source, reason, fields = arg(), arg(), arg(), arg(), list()
local noted = arg()

local function note_delivery(letter)
  note_arrivals({noted}, 'l', letter)
  local at_ms = 0
  for i = 1, #fields, 2 do
    if fields[i] == 'first_seen_at' then at_ms = tonumber(fields[i + 1]) end
  end
  if at_ms > tonumber(redis.call('HGET', P .. 'senders', source .. ':last') or 0) then
    redis.call('HSET', P .. 'senders', source .. ':last', string.format('%.0f', at_ms))
  end
end

local marker = P .. 'same-body:' .. digest
local known = redis.call('GET', marker)
if known and redis.call('EXISTS', P .. 'dead:' .. known) == 1 then
  if known ~= id then
    redis.call('HINCRBY', P .. 'dead:' .. known, 'count', 1)
    note_delivery(known)
  end
  return known
end
redis.call('SET', marker, id, 'PX', 86400000)
write_letter('unpack', id, source, reason, now_ms(), fields)
count('unpack:in', 1); count('unpack:dead', 1)
note_delivery(id)
redis.call('HINCRBY', P .. 'senders', source .. ':deliveries:dead', 1)
close_books()
return id
