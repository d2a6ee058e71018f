-- How all stages stand, and what is the oldest of what is kept for a time, at one instant. Writes nothing.
-- ARGV: [stages that call somebody], [queues]
-- Answer: {now, bells, pauses, when the next bulk job is due ('' where there is none), when the back-off of each stage
--         ends, how many entries each queue has, oldest dead letter, oldest visitor, oldest slot of the seen window ('')}
local stages, queues = list(), list()
local due, lengths = {}, {}
for i, stage in ipairs(stages) do due[i] = redis.call('HGET', P .. 'destination:' .. stage, 'due') or '0' end
for i, name in ipairs(queues) do lengths[i] = redis.call('XLEN', queue_key(name)) end

local function lowest(key) return redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or '' end
local slot = ''
for _, start in ipairs(redis.call('HKEYS', P .. 'seen')) do
  if slot == '' or tonumber(start) < tonumber(slot) then slot = start end
end
return {now_ms(), redis.call('HGETALL', P .. 'bells'), redis.call('HGETALL', P .. 'paused'), lowest(P .. 'bulk'), due,
  lengths, lowest(P .. 'dead'), lowest(P .. 'visitors'), slot}
