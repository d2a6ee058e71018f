-- Keep what was found out about a proof, unless something is kept already.
-- ARGV: what it is about, value, how long in ms, 1 to take the place of what is kept.
-- Answer: what was kept before; nothing when it was nothing.
-- Second run: answers with the value of this very call, as if another caller had just kept it. Who asks for a
-- certificate then waits a little; a token with the same body is a retry, which it is.
local name, value, ms, replaces = arg(), arg(), number(), number()
local key = P .. 'proof:' .. name
local before = redis.call('GET', key)
if not before or replaces == 1 then
  even_when_full() -- a proof that cannot be kept would keep a full server from draining
  redis.call('SET', key, value, 'PX', ms)
end
return before
