-- Hand over what a call for scores answered, and note how far the walk is. A full server refuses all of it.
-- ARGV: worker, place, next place, whether a call went well (0/1), origin, [digest of an address, mark of what was
--       answered, payload for the stage `scores` ('': nothing has changed), ...]
-- Answer: {whether the walk was this worker's and at this place (0/1), the bell of `scores`}.
-- An answer with the mark of the last one is no news; nothing is kept of an address that was forgotten meanwhile.
-- Second run: finds the walk at its next place, or every mark as it is, and hands over nothing.
local worker, place, following, called, meta = arg(), arg(), arg(), number(), arg()
local answers = list()
local bell = tonumber(redis.call('HGET', P .. 'bells', 'scores') or 0)
if redis.call('GET', P .. 'polling') ~= worker then return {0, bell} end
if redis.call('HGET', P .. 'poll', 'place') ~= place then return {0, bell} end

redis.call('HSET', P .. 'poll', 'place', following)
for i = 1, #answers, 3 do
  local key, mark, payload = P .. 'address:' .. answers[i], answers[i + 1], answers[i + 2]
  if redis.call('EXISTS', key) == 1 and redis.call('HGET', key, 'polled') ~= mark then
    redis.call('HSET', key, 'polled', mark)
    if payload ~= '' then
      redis.call('XADD', queue_key('scores'), '*', 'p', payload, 'm', meta)
      count('scores:in', 1); count('scores:waiting', 1)
    end
  end
end
if called == 1 then succeeded('polling') end
close_books()
return {1, bell}
