-- Count one more failed attempt at an entry in a worker's hands. ARGV: queue, consumer, entry id.
-- Answer: how many there were; 0 when the entry is no longer this worker's.
local queue, consumer, id = arg(), arg(), arg()
if not is_held_by(queue_key(queue), id, consumer) then return 0 end
even_when_full()
return redis.call('HINCRBY', P .. 'attempts', queue .. '/' .. id, 1)
