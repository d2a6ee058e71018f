-- What is known of a stage's vendor when a call to it failed; count the failure when it tells of the vendor.
-- ARGV: stage, whether it is counted (0/1): not what is about one item that was held, which may be the item's own fault;
--       the batch that this one was split from, whether it may be parted for nothing else to be compared with (0/1).
--       Of all that is held that is done to one at a time: an outage shall not leave single items behind.
-- Answer: {successes, failures in a row, successes at the last one of a batch that had failed, failures counted before,
--          whether it is the one to be parted (0/1)}
-- Second run: counts once more, so that the vendor looks a little less well.
local stage, is_counted, root, may_be_parted = arg(), number() == 1, arg(), number() == 1
local key = P .. 'destination:' .. stage
local state = redis.call('HMGET', key, 'successes', 'failures', 'recovered', 'faults')
for i = 1, 4 do state[i] = tonumber(state[i] or 0) end
even_when_full()
if is_counted then redis.call('HINCRBY', key, 'faults', 1) end
if may_be_parted then redis.call('HSETNX', key, 'parted', root) end
state[5] = may_be_parted and redis.call('HGET', key, 'parted') == root and 1 or 0
return state
