-- Make the consumer group of each queue where it is missing. ARGV: queues. Answer: how many were made.
-- Second run: none is missing.
local function has_group(key)
  if redis.call('EXISTS', key) == 0 then return false end
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    for i = 1, #flat, 2 do
      if flat[i] == 'name' and flat[i + 1] == GROUP then return true end
    end
  end
  return false
end

local made = 0
for _, queue in ipairs(ARGV) do
  if not has_group(queue_key(queue)) then
    even_when_full()
    redis.call('XGROUP', 'CREATE', queue_key(queue), GROUP, '0', 'MKSTREAM')
    made = made + 1
  end
end
return made
