-- Shared by every script: the words of pipeline/keys.py and the few steps that all of them take.
-- Ages are computed from Redis's own clock, never from a process's.
local P = '{relay}:'
local GROUP = 'workers'
local RELEASED = 'released'

local function queue_key(name) return P .. 'queue:' .. name end

-- The queues of a stage that calls a vendor, and of its two lines.
local function retried_line(stage) return stage .. ':retried' end
local function batches_of(line) return line .. ':batches' end
local function held_of(line) return line .. ':held' end
local function raw_of(stage) return stage .. ':raw' end
local function bulk_of(stage) return stage .. ':bulk' end
local function is_of_retried(queue) return string.find(queue, retried_line(''), 1, true) ~= nil end

-- Redis looks at maxmemory before a script's first write only, and then refuses what may need memory. After a
-- write that never needs any (it changes nothing here), all others pass: a full server can still drain.
local function even_when_full() redis.call('HDEL', P .. 'books', '') end

-- After a failure one call at a time, the probe, finds out how it goes: it ends when its batch leaves the queue
-- or is given back. Only queues of batches (`stage:…`) have probes.
local function end_probe(queue, id)
  local stage = string.match(queue, '^(%a+):')
  if not stage then return end
  local key = P .. 'destination:' .. stage
  if redis.call('HGET', key, 'probe') == queue .. '/' .. id then redis.call('HDEL', key, 'probe', 'probing') end
end

local function is_held_by(key, id, consumer)
  return #redis.call('XPENDING', key, GROUP, id, id, 1, consumer) > 0
end

-- The oldest entry that was given back, now in this consumer's hands; nothing when there is none.
local function take_back(queue, consumer)
  local key = queue_key(queue)
  while true do
    local back = redis.call('XPENDING', key, GROUP, '-', '+', 1, RELEASED)
    if #back == 0 then return end
    local claimed = redis.call('XCLAIM', key, GROUP, consumer, 0, back[1][1])
    if #claimed > 0 and claimed[1] then return claimed[1] end
    redis.call('XACK', key, GROUP, back[1][1]) -- deleted from the stream: nothing is behind it any more
  end
end

local function let_anyone_take(queue, id)
  local key = queue_key(queue)
  if #redis.call('XCLAIM', key, GROUP, RELEASED, 0, id, 'JUSTID') == 0 then
    redis.call('XACK', key, GROUP, id) -- deleted from the stream: 7 says so here, 6.2 only when it is taken
  end
  end_probe(queue, id)
end

-- When the oldest work of a queue began to wait, in ms as text; '' when there is none. A batch is a new entry each time
-- it is sealed, split or held; its items have waited longer. Not so what came back from the dead letters: its
-- items were seen long before they began to wait.
local function waiting_since(queue)
  local first = redis.call('XRANGE', queue_key(queue), '-', '+', 'COUNT', 1)[1]
  if not first then return '' end
  local is_batch = string.find(queue, ':') and not string.find(queue, ':retried', 1, true)
  return is_batch and string.match(first[2][4] or '', '^[^|]*|(%d+)') or string.match(first[1], '^%d+')
end

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- A vendor that asked for fewer requests is called at a slower pace (pace.lua) by all who share its rate. After an hour
-- without a call that went well nobody knows what it takes now, and the configured rate is tried again.
local PACE_KEPT_MS = 3600000
-- A share belongs to the configured gap it was learned at: where the setting is another one, it begins anew.
local function share_at(state, gap)
  local learned = tonumber(state[2] or 0)
  return math.abs(learned - gap) <= gap / 1000000 and tonumber(state[1] or 1) or 1
end

local function paced(vendor, gap)
  if gap <= 0 then return gap end
  return gap / share_at(redis.call('HMGET', P .. 'pace:' .. vendor, 'share', 'gap'), gap)
end

-- A call went well: a slower pace than the configured one rises a little.
local function climb(vendor)
  local key = P .. 'pace:' .. vendor
  local state = redis.call('HMGET', key, 'share', 'gap')
  if not (state[1] and state[2]) then return end
  local share = faster(tonumber(state[1]), tonumber(state[2]))
  if share >= 1 then redis.call('DEL', key) return end
  redis.call('HSET', key, 'share', share)
  redis.call('PEXPIRE', key, PACE_KEPT_MS)
end

-- The rate that all calls to one vendor share. Rank 0 is served first: somebody who waits for the next call leaves a
-- mark, and whoever ranks lower leaves that call to them. Answer: the milliseconds to wait, nothing when a call may be
-- made now; then the next call, for `take_call` in the same script: when it is free, and the gap after it. What is
-- further ahead than calls at this pace can be was written before the clock was set back: it holds nobody up.
local function rate_wait(vendor, gap, rank, now)
  if gap <= 0 then return end
  local key, next_call, wide = P .. 'rate:' .. vendor, 0, paced(vendor, gap)
  local furthest, rate = now + 3 * wide + 1000, redis.call('HGETALL', key)
  for i = 1, #rate, 2 do
    local moment = tonumber(rate[i + 1])
    if moment <= furthest then
      if rate[i] == 'next' then next_call = moment
      elseif tonumber(rate[i]) < rank and moment > now then return math.ceil(wide) end
    end
  end
  if next_call <= now then return nil, {free = next_call, wide = wide} end
  even_when_full()
  redis.call('HSET', key, rank, math.ceil(next_call + wide))
  return math.ceil(next_call - now)
end

local function take_call(vendor, gap, rank, now, next_call)
  if gap <= 0 then return end
  local key = P .. 'rate:' .. vendor
  even_when_full()
  redis.call('HSET', key, 'next', string.format('%.3f', math.max(next_call.free, now) + next_call.wide))
  redis.call('HDEL', key, rank)
  redis.call('PEXPIRE', key, 600000)
end

-- What came back from the dead letters is due after so many calls to its vendor for other work, of all its stages.
local OTHER_CALLS = 4
local function is_turn_of_retried(vendor)
  return tonumber(redis.call('HGET', P .. 'turns', vendor) or 0) >= OTHER_CALLS
end

local function count_turn(vendor, is_retried)
  if is_retried then redis.call('HDEL', P .. 'turns', vendor)
  elseif not is_turn_of_retried(vendor) then redis.call('HINCRBY', P .. 'turns', vendor, 1) end
end

-- The books: changes are collected and written once, at the end of the same script.
local ledger = {}
local function count(field, delta) ledger[field] = (ledger[field] or 0) + delta end
local function close_books()
  for field, delta in pairs(ledger) do
    if delta ~= 0 then redis.call('HINCRBY', P .. 'books', field, delta) end
  end
end

local STAGES = {'unpack', 'enrich', 'subscribe', 'forward', 'scores', 'notify'}
local function bells() return redis.call('HMGET', P .. 'bells', unpack(STAGES)) end

-- What a call to a stage's vendor waits for: the answer that says why none may be made now, or nothing; then whether
-- it is a probe, because after a failure one call at a time finds out how it goes.
local function put_off(stage, now)
  local state, probing = redis.call('HMGET', P .. 'destination:' .. stage, 'failures', 'due', 'probing'), false
  local due = tonumber(state[2] or 0)
  local pause = redis.call('HGET', P .. 'paused', stage)
  if pause then
    pause = cjson.decode(pause)
    if pause.by == 'operator' or type(pause.until_ms) ~= 'number' then return {'paused'} end
    if pause.until_ms > now then return {'wait', pause.until_ms - now} end
    probing = true
  end
  if due > now then return {'wait', due - now} end
  if probing or tonumber(state[1] or 0) > 0 then
    probing = true
    local busy = tonumber(state[3] or 0) - now
    if busy > 0 then return {'wait', math.min(busy, 100)} end
  end
  return nil, probing
end

local function begin_probe(stage, place, now, lease)
  local until_ms = string.format('%.0f', now + lease)
  redis.call('HSET', P .. 'destination:' .. stage, 'probing', until_ms, 'probe', place)
end

-- Whose rate a stage's calls share. `notify` has none.
local VENDORS = {
  enrich = 'audiencelab', subscribe = 'audiencepoint', forward = 'audiencepoint', polling = 'audiencepoint',
}

-- The stage's vendor is well, so a pause that the relay made itself is over.
local function recovered(stage)
  local key = P .. 'destination:' .. stage
  redis.call('HDEL', key, 'failures', 'probing', 'probe')
  -- a call that was under way meanwhile does not take back when the vendor wants the next one
  if tonumber(redis.call('HGET', key, 'asked') or 0) <= now_ms() then redis.call('HDEL', key, 'due', 'asked') end
  local pause = redis.call('HGET', P .. 'paused', stage)
  if pause and cjson.decode(pause).by == 'relay' then redis.call('HDEL', P .. 'paused', stage) end
end

-- A call to the stage's vendor went well. A look at a bulk job tells nothing of single calls: it counts apart, and what
-- they are refused with stays known.
local function succeeded(stage, is_bulk)
  if VENDORS[stage] then climb(VENDORS[stage]) end
  local key = P .. 'destination:' .. stage
  redis.call('HINCRBY', key, is_bulk and 'bulk_successes' or 'successes', 1)
  if not is_bulk then redis.call('HDEL', key, 'refusals', 'words', 'roots', 'parted', 'unparted') end
  recovered(stage)
end

-- How large a part of calls the stage's vendor fails while others pass, after so many of these failures.
local function more_unwell(unwell, failures)
  return 1 - (1 - unwell) * (15 / 16) ^ failures
end

-- Arguments are read one after the other.
local at = 0
local function arg()
  at = at + 1
  return ARGV[at]
end
local function number() return tonumber(arg()) end
local function list()
  local n, items = number(), {}
  for i = 1, n do items[i] = arg() end
  return items
end

-- How many dead letters of a kind there are, a kind being what an operator asks by: nobody has to count them all.
local function count_kind(kind, delta)
  if redis.call('HINCRBY', P .. 'dead-kinds', kind, delta) <= 0 then redis.call('HDEL', P .. 'dead-kinds', kind) end
end

-- The letters of one kind by time of burial, so that a rare kind is found among a million others.
local function kind_key(kind) return P .. 'dead-of:' .. kind end

-- Take a letter out of the index; return whether it stood there.
local function unlist_letter(stage, source, reason, id)
  local kind = stage .. '/' .. source .. '/' .. reason
  if redis.call('ZREM', P .. 'dead', kind .. '/' .. id) == 0 then return false end
  redis.call('ZREM', kind_key(kind), id)
  count_kind(kind, -1)
  return true
end

local function write_letter(stage, id, source, reason, now, fields)
  local kind = stage .. '/' .. source .. '/' .. reason
  count_kind(kind, redis.call('ZADD', P .. 'dead', now, kind .. '/' .. id))
  redis.call('ZADD', kind_key(kind), now, id)
  redis.call('HSET', P .. 'dead:' .. id, 'stage', stage, 'source', source, 'reason', reason,
    'buried_at', string.format('%.0f', now), unpack(fields))
end

-- What arrived, in pieces as `pipeline/arrivals.py` packs them; so many entries are kept about.
local function note_arrivals(pieces, ...)
  redis.call('XADD', P .. 'arrivals', 'MAXLEN', '~', 1000, '*', 'd', '[' .. table.concat(pieces, ',') .. ']', ...)
end

-- Every script may run twice: redis-py sends a call again when its reply was lost. The head of each says what a
-- second run does. Where it would do harm, every call carries the name of its caller, who makes one call at a time,
-- and a word of its own (`pipeline/scripts.py`). What was answered is kept with the word under the name, in the place
-- of the caller's last answer, so there are never more answers than callers; and twice as long as any call goes on
-- trying.
local function answered(caller, word)
  local kept = redis.call('GET', P .. 'answer:' .. caller)
  if kept and string.sub(kept, 1, #word) == word then return string.sub(kept, #word + 2) end
end

local function keep_answer(caller, word, answer)
  redis.call('SET', P .. 'answer:' .. caller, word .. ' ' .. answer, 'PX', 1800000)
end

-- The answer of this very call when it ran before; numbers only.
local function earlier(caller, word)
  local kept = answered(caller, word)
  return kept and cjson.decode(kept)
end

local function finally(caller, word, answer)
  even_when_full()
  keep_answer(caller, word, cjson.encode(answer))
  return answer
end
