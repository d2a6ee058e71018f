-- Give back what dead workers had in their hands. A worker is dead without a fresh heartbeat, and one that is a minute
-- ahead was written before the clock was set back.
-- Whoever asks lives, however late its own heartbeat is (a machine that slept).
-- ARGV: most entries, who asks, a heartbeat is fresh for ms, [queues]. Answer: how many entries anyone may take now.
-- Second run: goes on where the first one stopped, and removes the emptied consumers as the next sweep would.
local most, asker, fresh = number(), arg(), number()
local now, adopted = now_ms(), 0
for _, queue in ipairs(list()) do
  local key = queue_key(queue)
  for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', key, GROUP)) do
    local consumer = {}
    for i = 1, #flat, 2 do consumer[flat[i]] = flat[i + 1] end
    local is_asked = consumer.name ~= RELEASED and consumer.name ~= asker and adopted < most
    local beat = tonumber(redis.call('ZSCORE', P .. 'workers', consumer.name) or 0)
    if is_asked and (beat < now - fresh or beat > now + 60000) then
      if consumer.pending > 0 then
        for _, row in ipairs(redis.call('XPENDING', key, GROUP, '-', '+', most - adopted, consumer.name)) do
          let_anyone_take(queue, row[1])
          adopted = adopted + 1
        end
      else
        redis.call('XGROUP', 'DELCONSUMER', key, GROUP, consumer.name)
      end
    end
  end
end
return adopted
