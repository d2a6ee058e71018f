-- Drop dead letters. ARGV: the caller's name, the call's word, [ids]. Answer: how many there were.
-- Second run: none is there any more; answers as the first run did.
local caller, word = arg(), arg()
local said = earlier(caller, word)
if said then return said end

local dropped = 0
for _, id in ipairs(list()) do
  local letter = P .. 'dead:' .. id
  local fields = redis.call('HMGET', letter, 'stage', 'source', 'reason', 'digest')
  local stage = fields[1]
  if stage then
    unlist_letter(stage, fields[2], fields[3], id)
    redis.call('DEL', letter)
    -- a dropped address may be tried again when its person is seen again
    if stage == 'subscribe' and fields[4] then
      redis.call('HDEL', P .. 'address:' .. fields[4], 'subscription')
    end
    count(stage .. ':dead', -1); count(stage .. ':dropped', 1)
    dropped = dropped + 1
  end
end
close_books()
return finally(caller, word, dropped)
