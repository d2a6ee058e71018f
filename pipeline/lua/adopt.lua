-- Give back what dead workers had in their hands, in one queue. A worker is dead without a fresh heartbeat.
-- Whoever asks lives, however late its own heartbeat is (a machine that slept).
-- ARGV: queue, who asks, a heartbeat is fresh for ms. Answer: how many entries anyone may take now.
-- Second run: finds nothing left to give back, answers 0, and removes the emptied consumers as the next sweep would.
local queue, asker, fresh = arg(), arg(), number()
local key, oldest = queue_key(queue), now_ms() - fresh
local adopted = 0
for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', key, GROUP)) do
  local consumer = {}
  for i = 1, #flat, 2 do consumer[flat[i]] = flat[i + 1] end
  local beat = tonumber(redis.call('ZSCORE', P .. 'workers', consumer.name) or 0)
  if consumer.name ~= RELEASED and consumer.name ~= asker and beat < oldest then
    if consumer.pending > 0 then
      for _, row in ipairs(redis.call('XPENDING', key, GROUP, '-', '+', 1000, consumer.name)) do
        let_anyone_take(queue, row[1])
        adopted = adopted + 1
      end
    else
      redis.call('XGROUP', 'DELCONSUMER', key, GROUP, consumer.name)
    end
  end
end
return adopted
