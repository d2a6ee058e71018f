-- Be the one who does something, for a while; whoever is it already stays it. Also on a full server.
-- ARGV: what, holder, milliseconds (0: leave it to others). Answer: whether it is theirs (0/1).
-- Second run: answers as the first one did.
local what, holder, ms = arg(), arg(), number()
local key = P .. what
local held = redis.call('GET', key)
if held and held ~= holder then return 0 end
even_when_full()
if ms > 0 then redis.call('SET', key, holder, 'PX', ms) else redis.call('DEL', key) end
return 1
