-- Begin an import or go on with it, unless somebody else has it in hand; also on a full server.
-- ARGV: KIND:ID, holder, lease_ms, from the start (0/1), milliseconds it is kept, [fields of a new one]
-- Answer: {'taken' | 'finished' | 'busy', [fields]}
-- When it was finished last stays known; so does why it was put off, and until when, unless it begins from the start.
-- Second run: takes what is in the same hands once more; begun from the start twice, it has told nothing in between.
local name, holder, lease, anew, keep = arg(), arg(), number(), number(), number()
local fresh = list()
local key, now = P .. 'import:' .. name, now_ms()
local known = redis.call('HMGET', key, 'holder', 'held_until_ms', 'finished_at_ms', 'started_at_ms',
  'finished_before_ms')
if known[1] and known[1] ~= holder and tonumber(known[2] or 0) > now then
  return {'busy', redis.call('HGETALL', key)}
end
if known[3] and anew == 0 then return {'finished', redis.call('HGETALL', key)} end

even_when_full()
if anew == 1 or not known[4] then
  redis.call('DEL', key)
  redis.call('HSET', key, 'started_at_ms', string.format('%.0f', now), unpack(fresh))
  local before = known[3] or known[5]
  if before then redis.call('HSET', key, 'finished_before_ms', before) end
end
redis.call('HSET', key, 'holder', holder, 'held_until_ms', string.format('%.0f', now + lease))
redis.call('HDEL', key, 'left_by')
redis.call('PEXPIRE', key, keep)
return {'taken', redis.call('HGETALL', key)}
