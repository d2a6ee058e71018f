-- Lift a pause of either kind, forget the failures behind it, and let held batches try again as if new. One that
-- is in a worker's hands at this moment is being tried already.
-- ARGV: the caller's name, the call's word, stage, whose pause is meant ('' = anybody's: no pause is needed),
--       how its reason begins. Of another pause, and of none, nothing is changed.
-- Answer: whether there was a pause (0/1).
-- Second run: lifts no pause that was made in between, and answers as the first one did.
local caller, word, stage, by, reason = arg(), arg(), arg(), arg(), arg()
local said = earlier(caller, word)
if said then return said end

if by ~= '' then
  local pause = redis.call('HGET', P .. 'paused', stage)
  pause = pause and cjson.decode(pause)
  if not pause or pause.by ~= by or string.sub(pause.reason, 1, #reason) ~= reason then return 0 end
end

local destination = P .. 'destination:' .. stage
local successes = redis.call('HGET', destination, 'successes') or '0'

local function in_hands(held, id)
  local row = redis.call('XPENDING', held, GROUP, id, id, 1)[1]
  return row and row[2] ~= RELEASED
end

for _, line in ipairs({stage, retried_line(stage)}) do
  local queue = held_of(line)
  local held = queue_key(queue)
  for _, entry in ipairs(redis.call('XRANGE', held, '-', '+')) do
    local id, fields = entry[1], entry[2]
    if not in_hands(held, id) then
      local place = queue .. '/' .. id
      local attempts = redis.call('HGET', P .. 'attempts', place)
      if fields[#fields - 1] == 't' then -- what may have been stored already stays known
        fields[#fields] = '0:' .. successes .. ':' .. string.match(attempts or fields[#fields], '%d$')
      end
      redis.call('XACK', held, GROUP, id)
      redis.call('XDEL', held, id)
      redis.call('HDEL', P .. 'attempts', place)
      redis.call('XADD', queue_key(batches_of(line)), '*', unpack(fields))
    end
  end
end
redis.call('HDEL', destination, 'failures', 'due', 'asked', 'probing', 'probe', 'refusals', 'words',
  'roots', 'parted', 'unparted')
return finally(caller, word, redis.call('HDEL', P .. 'paused', stage))
