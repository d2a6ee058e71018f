-- A call failed: give its batch back (or leave it, when a move took it) and decide when the next call may be made.
-- ARGV: the caller's name, the call's word, stage, consumer, queue ('' = nothing to give back), entry id,
--       sent (0/1), share (0..1, drawn by the caller: full jitter), base_ms, cap_ms, at_least_ms,
--       pauses_after, probe_min_ms, probe_max_ms, reason of the pause, pause at once (0/1), mark held (0/1)
-- Answer: the milliseconds until the next call, then 1 when the stage is paused.
-- Second run: counts no failure, takes nothing out of anybody's hands, and answers as the first one did.
local caller, word, stage, consumer, queue, id, sent = arg(), arg(), arg(), arg(), arg(), arg(), arg()
local share, base, cap, at_least = number(), number(), number(), number()
local pauses_after, probe_min, probe_max = number(), number(), number()
local reason, at_once, held = arg(), number(), number()
local said = earlier(caller, word)
if said then return said end

local now = now_ms()
local destination = P .. 'destination:' .. stage

even_when_full()
-- a batch that was taken over meanwhile is another worker's: its attempts are counted there
if queue ~= '' and is_held_by(queue_key(queue), id, consumer) then
  local place = queue .. '/' .. id
  local attempts = redis.call('HGET', P .. 'attempts', place)
  local tries, first = string.match(attempts or '', '^(%d+):(%d+):')
  if tries then
    redis.call('HSET', P .. 'attempts', place, (tonumber(tries) + 1) .. ':' .. first .. ':' .. sent)
  end
  let_anyone_take(queue, id)
end

local state = redis.call('HMGET', destination, 'failures', 'due', 'successes')
local failures, due = tonumber(state[1] or 0), tonumber(state[2] or 0)
if held == 1 then redis.call('HSET', destination, 'held', state[3] or 0) end
-- calls that were in flight together fail together: that is one failure, not eight
if due <= now or at_once == 1 then failures = failures + 1 end
local delay, paused = share * math.min(cap, base * 2 ^ math.max(0, failures - 1)), 0
if at_once == 1 or failures >= pauses_after then
  paused = 1
  delay = probe_min
  if at_once == 0 then delay = math.min(probe_max, probe_min * 2 ^ (failures - pauses_after)) end
end
delay = math.ceil(math.max(delay, at_least))
due = string.format('%.0f', math.max(due, now + delay))
redis.call('HSET', destination, 'failures', failures, 'due', due)
if at_least > 0 and paused == 0 then redis.call('HSET', destination, 'asked', due) end
if paused == 1 then
  local pause = redis.call('HGET', P .. 'paused', stage)
  pause = pause and cjson.decode(pause)
  if not pause or pause.by == 'relay' then
    local since = pause and pause.since_ms or now
    redis.call('HSET', P .. 'paused', stage,
      cjson.encode({by = 'relay', reason = reason, since_ms = since, until_ms = now + delay}))
  end
end
return finally(caller, word, {delay, paused})
