-- Write down how far an import came, if it is still in this holder's hands, and keep it there; also on a full server.
-- ARGV: KIND:ID, holder, lease_ms (0: leave it), milliseconds it is kept, [fields]
-- Answer: whether it was theirs (0/1).
-- Second run: writes the same once more; of one that was left, and that nobody took since, it answers 1.
local name, holder, lease, keep = arg(), arg(), number(), number()
local fields = list()
local key = P .. 'import:' .. name
local held = redis.call('HMGET', key, 'holder', 'left_by')
if not held[1] and lease == 0 and held[2] == holder then return 1 end
if held[1] ~= holder then return 0 end

even_when_full()
if #fields > 0 then redis.call('HSET', key, unpack(fields)) end
if lease > 0 then
  redis.call('HSET', key, 'held_until_ms', string.format('%.0f', now_ms() + lease))
else
  redis.call('HDEL', key, 'holder', 'held_until_ms')
  redis.call('HSET', key, 'left_by', holder)
end
redis.call('PEXPIRE', key, keep)
return 1
