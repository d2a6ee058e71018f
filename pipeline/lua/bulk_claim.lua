-- Take the bulk job that is due, if a call may be made now: not paused, back-off over, rate free. Nobody else gets it
-- until the lease is over; whoever holds it says when it is due again (bulk_next).
-- ARGV: stage, vendor, milliseconds between two calls (0: no limit), rank, lease_ms of a probe, lease_ms of the job
-- Answer: {'wait', ms} | {'paused'} | {'empty'} | {'orphans'} (parts without any job) |
--          {'job', name, fields of its hash, now, successes of the stage}
-- Second run: answers with the next job that is due, if any; the first one is due again when its lease is over, and
-- one call of the rate more is used up.
local stage, vendor = arg(), arg()
local gap, rank, probe_lease, lease = number(), number(), number(), number()
local now, queue = now_ms(), bulk_of(stage)
local first = redis.call('ZRANGE', P .. 'bulk', 0, 0, 'WITHSCORES')
if #first == 0 then return {redis.call('XLEN', queue_key(queue)) > 0 and 'orphans' or 'empty'} end
local name, due = first[1], tonumber(first[2])
if due > now then return {'wait', due - now} end
local no, probing = put_off(stage, now)
if no then return no end
local wait, next_call = rate_wait(vendor, gap, rank, now)
if wait then return {'wait', wait} end

even_when_full()
-- a move takes out only what somebody has in hands: the parts are in nobody's, so anyone's moves fit
redis.call('XREADGROUP', 'GROUP', GROUP, RELEASED, 'COUNT', 10000, 'STREAMS', queue_key(queue), '>')
take_call(vendor, gap, rank, now, next_call)
count_turn(vendor)
if probing then begin_probe(stage, queue .. '/' .. name, now, probe_lease) end
redis.call('ZADD', P .. 'bulk', string.format('%.0f', now + lease), name)
local successes = redis.call('HGET', P .. 'destination:' .. stage, 'successes') or '0'
return {'job', name, redis.call('HGETALL', P .. 'bulk:' .. name), now, successes}
