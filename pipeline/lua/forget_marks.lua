-- Remove seen marks that are too old to count. ARGV: window_ms, most buckets. Answer: how many were removed.
-- Second run: goes on where the first one stopped, as the next sweep would.
local window, most = number(), number()
local removed, oldest = 0, now_ms() - window * 1.5
local flat = redis.call('HGETALL', P .. 'seen')
for i = 1, #flat, 2 do
  local buckets, marks = string.match(flat[i + 1], '^(%d+):(%d+)$')
  local last = tonumber(buckets) - 1
  if tonumber(flat[i]) <= oldest and removed < most then
    local first = math.max(0, last - (most - removed) + 1)
    for n = last, first, -1 do redis.call('UNLINK', P .. 'seen:' .. flat[i] .. ':' .. n) end
    removed = removed + last - first + 1
    if first == 0 then
      redis.call('HDEL', P .. 'seen', flat[i])
    else
      redis.call('HSET', P .. 'seen', flat[i], first .. ':' .. math.floor(marks * first / buckets))
    end
  end
end
return removed
