-- Where the walk that polls scores stands, and whether its next call may be made now.
-- ARGV: vendor, milliseconds between two calls of its rate (0: no limit), rank, how many calls of the rate one of
--       these stands for, ms without a push before anything is asked, ms from one walk's begin to the next one's,
--       whether a call is to be made (0/1)
-- Answer: {'go' | 'wait' | 'rest', ms to wait, place}. A place is the time at which the walk began, and its cursor or
-- `end`. `wait` is for a moment, `rest` until a push is long ago or the next walk is due,
-- or while an operator has paused it.
-- Second run: may use up another call of the rate, which then nobody makes; the place is that of the first run.
-- A full server refuses a call that is to be made: what it answered could not be kept.
local vendor, gap, rank, share = arg(), number(), number(), number()
local quiet, period, calls = number(), number(), number()
local now = now_ms()

-- a delivery without a score (somebody tries the address out) is no push
local pushed = tonumber(redis.call('HGET', P .. 'senders', 'scores:pushed:last') or 0)
if pushed + quiet > now then return {'rest', pushed + quiet - now, ''} end

local place = redis.call('HGET', P .. 'poll', 'place') or ''
local pause = redis.call('HGET', P .. 'paused', 'polling')
if pause and cjson.decode(pause).by == 'operator' then return {'rest', 5000, place} end
local began, cursor = string.match(place, '^(%d+):(%w+)$')
local ended = cursor == 'end'
if ended and tonumber(began) + period > now then return {'rest', tonumber(began) + period - now, place} end
if not began or ended then
  place = string.format('%.0f:0', now)
  redis.call('HSET', P .. 'poll', 'place', place)
end

local due = tonumber(redis.call('HGET', P .. 'destination:' .. 'polling', 'due') or 0)
if due > now then return {'wait', due - now, place} end
if calls == 0 then return {'go', 0, place} end

-- What is ready to be sent goes first. Events that wait for their batch to fill do not: there are always some where
-- traffic is light and steady. What a pause keeps waits for no call.
for _, line in ipairs({'forward', retried_line('forward'), 'subscribe', retried_line('subscribe')}) do
  local ready = redis.call('XLEN', queue_key(batches_of(line))) + redis.call('XLEN', queue_key(held_of(line)))
  local stage = string.match(line, '^%a+')
  if ready > 0 and redis.call('HEXISTS', P .. 'paused', stage) == 0 then return {'wait', 1000, place} end
end

redis.call('HSET', P .. 'poll', 'place', place)
local own, own_gap = vendor .. ':polling', paced(vendor, gap) * share
local own_wait, own_next = rate_wait(own, own_gap, 0, now)
if own_wait then return {'wait', own_wait, place} end
local wait, next_call = rate_wait(vendor, gap, rank, now)
if wait then return {'wait', wait, place} end
take_call(own, own_gap, 0, now, own_next)
take_call(vendor, gap, rank, now, next_call)
return {'go', 0, place}
