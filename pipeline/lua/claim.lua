-- Take one batch for a call to a vendor, if a call may be made now: not paused, back-off over, rate free.
-- ARGV: the caller's name, the call's word, stage, consumer, vendor, milliseconds between two calls (0: no limit),
--       rank (0 is served first), lease_ms of a probe, ms for which a held batch may rest, whether nothing new can be
--       sealed now (0/1)
-- Answer: {'wait', ms} | {'paused'} | {'empty'} | {'empty', ms until a held batch has rested} |
--         {'batch', queue, entry id, fields, attempts, successes, others waiting, others held,
--         tombstones exist (0/1), now}
-- fields are p and m in turn for each item, then those of `batch_fields` in workers/batches.py: b (tries that ended in our
-- own exception), i (it was split off by failures), n (its own failures), c (when the call was begun that failed last), d (when
-- a held one may be tried again), h (the batch it is an untried half of), g (the one it was split from at first) and
-- t (earlier attempts).
-- attempts is 'tries:successes at the first failure:sent'; sent=1 means that a call was begun and never
-- answered for certain, so that calling again may double it.
-- What came back from the dead letters has a line of its own. Of the calls to one vendor, whichever stages make them,
-- each fifth is for it while other work waits, and goes before all (rank -1); it takes no other call that somebody with
-- other work waits for (rank 1.5: behind the stages, before polling).
-- Second run: answers with the batch of the first one, while it is in this consumer's hands: nothing is counted,
-- and no call of the rate used up. An answer without a batch is found anew.
local caller, word, stage, consumer, vendor = arg(), arg(), arg(), arg(), arg()
local gap, rank, lease, longest_rest, is_all_sealed = number(), number(), number(), number(), number() == 1
local SHARING = {forward = true, subscribe = true} -- one vendor's rate
local now = now_ms()
local destination = P .. 'destination:' .. stage
local state = redis.call('HMGET', destination, 'successes', 'held', 'good_ms', 'held_ms')
local successes = tonumber(state[1] or 0)

local function line(name)
  local batches, held = batches_of(name), held_of(name)
  local lengths = {}
  for i, queue in ipairs({name, batches, held}) do lengths[i] = redis.call('XLEN', queue_key(queue)) end
  return {batches = batches, held = held, raw_waiting = lengths[1], held_waiting = lengths[3],
    waiting = lengths[1] + lengths[2] + lengths[3]}
end
local live, retried = line(stage), line(retried_line(stage))
local held_waiting = live.held_waiting + retried.held_waiting
local others_waiting = live.waiting + retried.waiting - held_waiting

local function batch(queue, entry, attempts)
  local others, others_held = others_waiting, held_waiting
  if queue == live.held or queue == retried.held then others_held = others_held - 1 else others = others - 1 end
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
if live.waiting + retried.waiting == live.raw_waiting + retried.raw_waiting then return {'empty'} end

-- The entry that is handed out next, if there is one.
local function first_free(queue)
  local key = queue_key(queue)
  local back = redis.call('XPENDING', key, GROUP, '-', '+', 1, RELEASED)[1]
  if back then return redis.call('XRANGE', key, back[1], back[1])[1] or {back[1], {}} end
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    local named = {}
    for i = 1, #group, 2 do named[group[i]] = group[i + 1] end
    if named.name == GROUP then
      return redis.call('XRANGE', key, '(' .. named['last-delivered-id'], '+', 'COUNT', 1)[1]
    end
  end
end

-- Held batches come back when others have succeeded since, or when nothing else is there to try; but each rests a while
-- after its last failure. Calls that were begun before theirs do not count: a vendor that fails from now on may take
-- those to a good end.
local have_passed = successes > tonumber(state[2] or 0) and tonumber(state[3] or 0) >= tonumber(state[4] or 0)
local resting_ms -- how long the one that rests for the shortest time goes on

local function is_resting(entry)
  local fields = entry[2]
  for i = #fields - 1, 1, -2 do
    if fields[i] == 'd' then
      local left = tonumber(fields[i + 1]) - now
      if left <= 0 or left > longest_rest then return false end -- longer: the clock was set back
      resting_ms = math.min(resting_ms or left, left)
      return true
    end
  end
end

local function order_of(from)
  local first = from.held_waiting > 0 and (have_passed or others_waiting == 0) and first_free(from.held)
  if not first or is_resting(first) then return {from.batches} end
  return have_passed and {from.held, from.batches} or {from.batches, from.held}
end
live.order, retried.order = order_of(live), order_of(retried)

-- Whether a batch lies there that nobody has in hands.
local function is_ready(from)
  for _, name in ipairs(from.order) do
    if first_free(name) then return true end
  end
end

if resting_ms and not is_ready(live) and not is_ready(retried) then return {'empty', resting_ms} end

-- Which line the call is for is known before it is waited for.
local lines = {live}
if retried.waiting > retried.raw_waiting and is_ready(retried) then
  local can_be_sealed = live.raw_waiting > 0 and not is_all_sealed
  if is_turn_of_retried(vendor) then
    lines, rank = {retried, live}, -1
  elseif not is_ready(live) then
    if can_be_sealed then return {'empty'} end
    lines = {retried}
    if SHARING[stage] then rank = 1.5 end
  end
end
local wait, next_call = rate_wait(vendor, gap, rank, now)
if wait then return {'wait', wait} end

local function first_of(queue)
  local back = take_back(queue, consumer)
  if back then return back end
  local new = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', 1, 'STREAMS', queue_key(queue), '>')
  return new and new[1][2][1]
end

local queue, entry
for _, from in ipairs(lines) do
  for _, name in ipairs(from.order) do
    entry = entry or first_of(name)
    queue = queue or entry and name
  end
end
if not entry then return {'empty'} end

count_turn(vendor, is_of_retried(queue))
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
