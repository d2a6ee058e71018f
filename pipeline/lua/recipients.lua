-- Remember and look up addresses by the digest of sender and id, in the order of the arguments.
-- ARGV: how long in ms, '1' when the addresses were looked up among the tombstones ('0': not), then for each step
--   the digest, and the address to remember or '' to look it up.
-- Answer: the address of each step, '' where none is known; nothing when there are tombstones to be looked at first.
-- Second run: remembers and answers the same. Only one that was asked for before this very call told it is known
-- the second time: by the newest address, which is no worse.
local ms, were_looked_up = arg(), arg() == '1'
if not were_looked_up and redis.call('EXISTS', P .. 'tombstones') == 1 then return false end
local found = {}
even_when_full() -- one that cannot be kept would keep a full server from draining
while at < #ARGV do
  local key, address = P .. 'recipient:' .. arg(), arg()
  if address ~= '' then
    redis.call('SET', key, address, 'PX', ms)
  else
    address = redis.call('GET', key) or ''
  end
  found[#found + 1] = address
end
return found
