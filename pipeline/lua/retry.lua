-- Put one dead letter back to work. ARGV: id. Answer: {1, stage} or {0}.
-- Second run: the letter is gone and waits already; the answer {0} counts it as somebody else's. A delivery that
-- has died again in between, under its own id, is put back once more.
local id = arg()
local letter = P .. 'dead:' .. id
local fields = redis.call('HMGET', letter, 'stage', 'source', 'reason', 'payload', 'meta', 'digest')
local stage = fields[1]
if not stage or not fields[4] or (stage ~= 'unpack' and not fields[5]) then return {0} end
if not unlist_letter(stage, fields[2], fields[3], id) then return {0} end
redis.call('DEL', letter)
if stage == 'unpack' then
  redis.call('XADD', queue_key(stage), '*', 'p', fields[4], 'r', '1') -- `Entry.is_retried`
else
  -- what is still in its sender's own words is read again first; what leads to a call keeps to its own line
  local queue = stage
  if string.match(fields[5], '^[^|]*|%d*|r') then queue = raw_of(stage)
  elseif stage ~= 'scores' then queue = retried_line(stage) end
  redis.call('XADD', queue_key(queue), '*', 'p', fields[4], 'm', fields[5])
end
if stage == 'subscribe' and fields[6] then
  redis.call('HSET', P .. 'address:' .. fields[6], 'subscription', 'waiting')
end
count(stage .. ':dead', -1); count(stage .. ':waiting', 1)
close_books()
return {1, stage}
