-- Keep a body that was answered 400, once a day: the same body again only raises its letter's count.
-- ARGV: digest of source and body, id, source, reason, [fields]. Answer: the id of the letter.
-- Second run: finds its own letter and leaves the count as it is. (That of a body that had come before is raised
-- again; but the receiver's client never sends anything twice.)
local digest, id, source, reason, fields = arg(), arg(), arg(), arg(), list()
local marker = P .. 'same-body:' .. digest
local known = redis.call('GET', marker)
if known and redis.call('EXISTS', P .. 'dead:' .. known) == 1 then
  if known ~= id then redis.call('HINCRBY', P .. 'dead:' .. known, 'count', 1) end
  return known
end
redis.call('SET', marker, id, 'PX', 86400000)
write_letter('unpack', id, source, reason, now_ms(), fields)
count('unpack:in', 1); count('unpack:dead', 1)
close_books()
return id
