-- Give a bulk job up, and count that: whoever is left in it goes back to single calls. Also on a full server.
-- ARGV: name, lease_ms, why. Answer: 1, or 0 when the job is over.
-- Second run: holds it for as long once more, and counts nothing.
local name, lease, why = arg(), number(), arg()
local job, total = P .. 'bulk:' .. name, P .. 'given-up'
if redis.call('EXISTS', job) == 0 then return 0 end

even_when_full()
local now = now_ms()
if redis.call('HSETNX', job, 'given_up', '1') == 1 then
  redis.call('HSET', job, 'why', why)
  redis.call('HINCRBY', total, 'jobs', 1)
  redis.call('HINCRBY', total, 'visitors', tonumber(redis.call('HGET', job, 'visitors') or 0))
  redis.call('HSET', total, 'last_ms', string.format('%.0f', now), 'why', why)
end
redis.call('ZADD', P .. 'bulk', string.format('%.0f', now + lease), name)
return 1
