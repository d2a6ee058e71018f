-- Read the parts of a bulk job that are still there; writes nothing. ARGV: queue, [entry ids].
-- Answer: {{id, fields}, ...}
local key, rows = queue_key(arg()), {}
for _, id in ipairs(list()) do
  local row = redis.call('XRANGE', key, id, id)[1]
  if row then rows[#rows + 1] = row end
end
return rows
