-- Take one batch for a call to a vendor, if a call may be made now: not paused, back-off over, rate free.
-- ARGV: the caller's name, the call's word, stage, consumer, vendor, milliseconds between two calls (0: no limit),
--       rank (0 is served first), lease_ms of a probe
-- Answer: {'wait', ms} | {'paused'} | {'empty'} |
--         {'batch', queue, entry id, fields, attempts, successes, others waiting, others held,
--         tombstones exist (0/1), now}
-- fields are p and m in turn for each item, then g (the batch it was split from), b (tries that ended
-- in our own exception) and t (earlier attempts).
-- attempts is 'tries:successes at the first failure:sent'; sent=1 means that a call was begun and never
-- answered for certain, so that calling again may double it.
-- Second run: answers with the batch of the first one, while it is in this consumer's hands: nothing is counted,
-- and no call of the rate used up. An answer without a batch is found anew.
local caller, word, stage, consumer, vendor = arg(), arg(), arg(), arg(), arg()
local gap, rank, lease = number(), number(), number()
local now = now_ms()
local state = redis.call('HMGET', P .. 'destination:' .. stage, 'successes', 'held')
local successes = tonumber(state[1] or 0)
local batches, held = stage .. ':batches', stage .. ':held'
local batches_waiting, held_waiting = redis.call('XLEN', queue_key(batches)), redis.call('XLEN', queue_key(held))
local raw_waiting = redis.call('XLEN', queue_key(stage))

local function batch(queue, entry, attempts)
  local others, others_held = batches_waiting + raw_waiting, held_waiting
  if queue == held then others_held = others_held - 1 else others = others - 1 end
  local has_tombstones = redis.call('EXISTS', P .. 'tombstones')
  return {'batch', queue, entry[1], entry[2], attempts, successes, others, others_held, has_tombstones, now}
end

local said = answered(caller, word)
if said then
  local queue, id, attempts = string.match(said, '^(%S+) (%S+) (%S+)$')
  local entry = redis.call('XRANGE', queue_key(queue), id, id)[1]
  if entry and is_held_by(queue_key(queue), id, consumer) then return batch(queue, entry, attempts) end
end

local no, probing = put_off(stage, now)
if no then return no end
if batches_waiting + held_waiting == 0 then return {'empty'} end

local wait, next_call = rate_wait(vendor, gap, rank, now)
if wait then return {'wait', wait} end

local function first_of(queue)
  local back = take_back(queue, consumer)
  if back then return back end
  local new = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', 1, 'STREAMS', queue_key(queue), '>')
  return new and new[1][2][1]
end

-- Held batches come back when others have succeeded since, or when nothing else is there to try.
local order = {batches, held}
if held_waiting > 0 and successes > tonumber(state[2] or 0) then order = {held, batches} end
local entry, queue
for _, name in ipairs(order) do
  if name == batches or order[1] == held or batches_waiting + raw_waiting == 0 then
    queue, entry = name, first_of(name)
    if entry then break end
  end
end
if not entry then return {'empty'} end

take_call(vendor, gap, rank, now, next_call)
local place = queue .. '/' .. entry[1]
if probing then begin_probe(stage, place, now, lease) end

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
