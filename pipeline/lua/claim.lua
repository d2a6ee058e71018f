-- Take one batch for a call to a vendor, if a call may be made now: not paused, back-off over, rate free.
-- ARGV: the caller's name, the call's word, stage, consumer, vendor, milliseconds between two calls (0: no limit),
--       rank (0 is served first), lease_ms of a probe
-- Answer: {'wait', ms} | {'paused'} | {'empty'} |
--         {'batch', queue, entry id, fields, attempts, successes, others waiting, others held,
--         tombstones exist (0/1)}
-- fields are p and m in turn for each item, then g (the batch it was split from), b (tries that ended
-- in our own exception) and t (earlier attempts).
-- attempts is 'tries:successes at the first failure:sent'; sent=1 means that a call was begun and never
-- answered for certain, so that calling again may double it.
-- Second run: answers with the batch of the first one, while it is in this consumer's hands: nothing is counted,
-- and no call of the rate used up. An answer without a batch is found anew.
local caller, word, stage, consumer, vendor = arg(), arg(), arg(), arg(), arg()
local gap, rank, lease = number(), number(), number()
local now = now_ms()
local destination = P .. 'destination:' .. stage
local state = redis.call('HMGET', destination, 'failures', 'due', 'probing', 'successes', 'held')
local due, successes = tonumber(state[2] or 0), tonumber(state[4] or 0)
local batches, held = stage .. ':batches', stage .. ':held'
local batches_waiting, held_waiting = redis.call('XLEN', queue_key(batches)), redis.call('XLEN', queue_key(held))
local raw_waiting = redis.call('XLEN', queue_key(stage))

local function batch(queue, entry, attempts)
  local others, others_held = batches_waiting + raw_waiting, held_waiting
  if queue == held then others_held = others_held - 1 else others = others - 1 end
  local has_tombstones = redis.call('EXISTS', P .. 'tombstones')
  return {'batch', queue, entry[1], entry[2], attempts, successes, others, others_held, has_tombstones}
end

local said = answered(caller, word)
if said then
  local queue, id, attempts = string.match(said, '^(%S+) (%S+) (%S+)$')
  local entry = redis.call('XRANGE', queue_key(queue), id, id)[1]
  if entry and is_held_by(queue_key(queue), id, consumer) then return batch(queue, entry, attempts) end
end

local probing = false
local pause = redis.call('HGET', P .. 'paused', stage)
if pause then
  pause = cjson.decode(pause)
  if pause.by == 'operator' or type(pause.until_ms) ~= 'number' then return {'paused'} end
  if pause.until_ms > now then return {'wait', pause.until_ms - now} end
  probing = true
end

if due > now then return {'wait', due - now} end
if probing or tonumber(state[1] or 0) > 0 then -- after a failure one call at a time finds out how it goes
  probing = true
  local busy = tonumber(state[3] or 0) - now
  if busy > 0 then return {'wait', math.min(busy, 100)} end
end

if batches_waiting + held_waiting == 0 then return {'empty'} end

local rate_key, next_call = P .. 'rate:' .. vendor, 0
if gap > 0 then
  local rate = redis.call('HGETALL', rate_key)
  for i = 1, #rate, 2 do
    if rate[i] == 'next' then next_call = tonumber(rate[i + 1])
    elseif tonumber(rate[i]) < rank and tonumber(rate[i + 1]) > now then return {'wait', math.ceil(gap)} end
  end
  if next_call > now then
    -- somebody of this rank waits for the next call: whoever ranks lower leaves it to them
    even_when_full()
    redis.call('HSET', rate_key, rank, math.ceil(next_call + gap))
    return {'wait', math.ceil(next_call - now)}
  end
end

local function first_of(queue)
  local back = take_back(queue, consumer)
  if back then return back end
  local new = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', 1, 'STREAMS', queue_key(queue), '>')
  return new and new[1][2][1]
end

-- Held batches come back when others have succeeded since, or when nothing else is there to try.
local order = {batches, held}
if held_waiting > 0 and successes > tonumber(state[5] or 0) then order = {held, batches} end
local entry, queue
for _, name in ipairs(order) do
  if name == batches or order[1] == held or batches_waiting + raw_waiting == 0 then
    queue, entry = name, first_of(name)
    if entry then break end
  end
end
if not entry then return {'empty'} end

if gap > 0 then
  redis.call('HSET', rate_key, 'next', string.format('%.3f', math.max(next_call, now) + gap))
  redis.call('HDEL', rate_key, rank)
  redis.call('PEXPIRE', rate_key, 600000)
end
local place = queue .. '/' .. entry[1]
if probing then redis.call('HSET', destination, 'probing', string.format('%.0f', now + lease), 'probe', place) end

local attempts = redis.call('HGET', P .. 'attempts', place)
local fields = entry[2]
if not attempts and fields[#fields - 1] == 't' then attempts = fields[#fields] end
attempts = attempts or '0:' .. string.format('%.0f', successes) .. ':0'
local tries, first, sent = string.match(attempts, '^(%d+):(%d+):(%d)$')
if sent == '1' then
  for i = 1, #fields, 2 do
    if fields[i] == 'p' then count('maybe_duplicate', 1) end
  end
end
redis.call('HSET', P .. 'attempts', place, tries .. ':' .. first .. ':1')
close_books()
keep_answer(caller, word, queue .. ' ' .. entry[1] .. ' ' .. attempts)
return batch(queue, entry, attempts)
