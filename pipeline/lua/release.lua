-- Give back everything that one worker still holds of one queue. ARGV: queue, consumer. Answer: how many.
-- Second run: it holds nothing any more, and 0 is the answer; a drain takes nothing before it has one.
local queue, consumer = arg(), arg()
local key, released = queue_key(queue), 0
for _, row in ipairs(redis.call('XPENDING', key, GROUP, '-', '+', 1000, consumer)) do
  let_anyone_take(queue, row[1])
  released = released + 1
end
return released
