-- Keep what the set-ups of a sender's webhook brought, newest first, as long as the newest of them is kept.
-- ARGV: source, when it was received in ms, callback's id, verification key, how many are kept, how long in ms.
-- Second run: finds what it has written, and changes nothing but the expiry.
local source, received, callback, word, most, ms = arg(), number(), arg(), arg(), number(), arg()
local key = P .. 'set-up:' .. source
local before, kept = cjson.decode(redis.call('GET', key) or '[]'), {}
local new = {callback_id = callback, verification_key = word, received_at_ms = received}
for _, one in ipairs(before) do
  if one.callback_id ~= callback or one.verification_key ~= word then
    kept[#kept + 1] = one
  elseif one.received_at_ms >= received then
    new = nil -- the same came later, or is this very one
    break
  end
end
if new then
  local place = 1
  while kept[place] and kept[place].received_at_ms > received do place = place + 1 end
  table.insert(kept, place, new)
  while #kept > most do table.remove(kept) end
else
  kept = before
end
even_when_full()
redis.call('SET', key, cjson.encode(kept), 'PX', ms)
