-- Count the pieces of work in a page of a queue; writes nothing. ARGV: queue, first id, entries a page.
-- Answer: {payloads, how many entries were read, last id}
local rows = redis.call('XRANGE', queue_key(arg()), arg(), '+', 'COUNT', arg())
local payloads = 0
for _, row in ipairs(rows) do
  for i = 1, #row[2], 2 do
    if row[2][i] == 'p' then payloads = payloads + 1 end
  end
end
return {payloads, #rows, rows[#rows] and rows[#rows][1] or ''}
