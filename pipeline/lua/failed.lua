-- Count one more failed attempt at an entry in a worker's hands.
-- ARGV: the caller's name, the call's word, queue, consumer, entry id.
-- Answer: how many there were; 0 when the entry is no longer this worker's.
-- Second run: counts nothing, and answers as the first one did.
local caller, word, queue, consumer, id = arg(), arg(), arg(), arg(), arg()
local said = earlier(caller, word)
if said then return said end
if not is_held_by(queue_key(queue), id, consumer) then return 0 end
even_when_full()
return finally(caller, word, redis.call('HINCRBY', P .. 'attempts', queue .. '/' .. id, 1))
