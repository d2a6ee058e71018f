-- Store the deliveries of one flush as one entry of the inbox. ARGV: packed deliveries. Answer: unpack's bell.
-- Second run: stores all of them again, as a sender's own repetition would, and the seen marks find their events.
-- It does not come about: the receiver's client never sends anything twice.
local fields = {}
for _, packed in ipairs(ARGV) do
  fields[#fields + 1] = 'p'
  fields[#fields + 1] = packed
end
redis.call('XADD', queue_key('unpack'), '*', unpack(fields))
count('unpack:in', #ARGV); count('unpack:waiting', #ARGV)
close_books()
return tonumber(redis.call('HGET', P .. 'bells', 'unpack') or 0)
