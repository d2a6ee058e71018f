-- How full each queue is, at one instant. Writes nothing. ARGV: [queues].
-- Answer: {now, [entries], [entries in the hands of workers], [when its oldest began to wait: ms, '' for none]}
local now, lengths, held, oldest = now_ms(), {}, {}, {}
for i, name in ipairs(list()) do
  local key = queue_key(name)
  lengths[i], held[i] = redis.call('XLEN', key), 0
  oldest[i] = waiting_since(name)
  if lengths[i] > 0 then
    local pending = redis.pcall('XPENDING', key, GROUP) -- an error where no worker has made the group yet
    for _, consumer in ipairs(pending[4] or {}) do
      if consumer[1] ~= RELEASED then held[i] = held[i] + tonumber(consumer[2]) end
    end
  end
end
return {now, lengths, held, oldest}
