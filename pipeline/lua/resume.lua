-- Lift a pause of either kind, forget the failures behind it, and let held batches try again as if new.
-- ARGV: stage. Answer: whether there was a pause (0/1).
local stage = arg()
local held = queue_key(stage .. ':held')
for _, entry in ipairs(redis.call('XRANGE', held, '-', '+')) do
  redis.call('XACK', held, GROUP, entry[1])
  redis.call('XDEL', held, entry[1])
  redis.call('HDEL', P .. 'attempts', stage .. ':held/' .. entry[1])
  redis.call('XADD', queue_key(stage .. ':batches'), '*', unpack(entry[2]))
end
redis.call('HDEL', P .. 'destination:' .. stage, 'failures', 'due', 'probing', 'refusals', 'words', 'roots')
return redis.call('HDEL', P .. 'paused', stage)
