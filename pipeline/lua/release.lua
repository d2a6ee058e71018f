-- Give back what one worker still holds of some queues. ARGV: most entries, consumer, [queues]. Answer: how many.
-- Second run: goes on where the first one stopped, mostly at nothing; a drain takes nothing before it has an answer.
local most, consumer, released = number(), arg(), 0
for _, queue in ipairs(list()) do
  if released == most then break end
  for _, row in ipairs(redis.call('XPENDING', queue_key(queue), GROUP, '-', '+', most - released, consumer)) do
    let_anyone_take(queue, row[1])
    released = released + 1
  end
end
return released
