-- How many dead letters stand in the index, whether the indexes of the kinds were gone through lately, and of each kind
-- how many were counted and how many stand in its index, at one instant. Writes nothing.
-- Answer: {letters, gone through (0/1), [kind, counted, letters of it, ...]}
local kinds = {}
local counted = redis.call('HGETALL', P .. 'dead-kinds')
for i = 1, #counted, 2 do
  kinds[#kinds + 1] = counted[i]
  kinds[#kinds + 1] = tonumber(counted[i + 1])
  kinds[#kinds + 1] = redis.call('ZCARD', kind_key(counted[i]))
end
return {redis.call('ZCARD', P .. 'dead'), redis.call('EXISTS', P .. 'dead-checked'), kinds}
