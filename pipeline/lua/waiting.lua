-- What waits to be unpacked, the newest of each queue first: what is known of a delivery beside its body. Writes nothing.
-- ARGV: [queues], deliveries at most of each queue, bytes after which no further entry is looked into
-- Answer: {{id, source, received (ms), tag ('' for none), bytes of its body, 1 where it was retried}, ...}
local queues, most, most_bytes = list(), number(), number()
local found = {}
for _, name in ipairs(queues) do
  local left, bytes, upto = most, 0, '+'
  while left > 0 and bytes < most_bytes do
    local entry = redis.call('XREVRANGE', queue_key(name), upto, '-', 'COUNT', 1)[1]
    if not entry then break end
    upto = '(' .. entry[1]
    local fields, retried = entry[2], 0
    for i = 1, #fields, 2 do
      if fields[i] == 'r' then retried = 1 end
    end
    for i = #fields - 1, 1, -2 do
      if fields[i] == 'p' and left > 0 then
        local packed = fields[i + 1]
        local ends = string.find(packed, '\n', 1, true)
        local about = cjson.decode(string.sub(packed, 1, ends - 1))
        found[#found + 1] = {about.i, about.s, string.format('%.0f', about.t), about.g or '', #packed - ends, retried}
        left, bytes = left - 1, bytes + #packed
      end
    end
  end
end
return found
