-- Moves: each takes entries out of one queue and does everything that follows, or does nothing.
--
-- A move begins with what it must still own. A single entry is acknowledged: 0 means that somebody else
-- finished it, and nothing happens. Acknowledge and delete come before any append, because Redis checks
-- maxmemory only before a script's first write: a full server can still drain.
--
-- ARGV: window_ms, number of moves, then for each move
--   queue, consumer, cursor, next cursor ('' = the move is final), [entry ids], [visitor, version, ...],
--   [tombstone macs], JSON of {counter of the books: change}, {source: time of its last delivery in ms} and
--   {SOURCE:WORD: change}, notes of what arrived, these as JSON, number of effects, effects (length, word, arguments,
--   see below)
-- Answer: one number a move (1 done, 0 no longer ours, -1 a visitor has changed, -2 tombstone), then the bells.
-- Second run: changes nothing. It answers 0, or -1 where the first run wrote the visitor; then the caller merges
-- once more, and that move finds its entry gone.
local window = number()

-- seen marks ------------------------------------------------------------------------------------------
-- 63-bit numbers in sets small enough to stay intset-encoded (8 bytes a mark; over 512 members a set
-- changes its encoding and costs 77). Linear hashing keeps them so: the number of buckets of a slot grows
-- with its load, one bucket split at a time. A slot collects half a window; a mark is looked up in every
-- slot that may still count.
local LOAD = 192 -- marks a bucket on average; the fullest hold about 384, far enough from 512
local slots

-- A mark does not fit a double; its last nine digits do, and tell marks apart well enough to spread them.
local function mod(mark, size) return tonumber(string.sub(mark, -9)) % size end

local function bucket_key(slot, n) return P .. 'seen:' .. slot.name .. ':' .. n end

local function bucket(slot, mark)
  local n = mod(mark, slot.low * 2)
  if n >= slot.buckets then n = n - slot.low end
  return bucket_key(slot, n)
end

local function load_slots(now)
  slots = {}
  local flat = redis.call('HGETALL', P .. 'seen')
  for i = 1, #flat, 2 do
    local buckets, marks = string.match(flat[i + 1], '^(%d+):(%d+)$')
    local start = tonumber(flat[i])
    if start > now - window * 1.5 then
      local slot = {name = flat[i], start = start, buckets = tonumber(buckets), marks = tonumber(marks), low = 1}
      while slot.low * 2 <= slot.buckets do slot.low = slot.low * 2 end
      slots[#slots + 1] = slot
    end
  end
  table.sort(slots, function(a, b) return a.start > b.start end)
  if #slots == 0 or slots[1].start <= now - window / 2 then
    table.insert(slots, 1, {name = string.format('%.0f', now), start = now, buckets = 1, marks = 0, low = 1})
  end
end

local function grow(slot)
  local target, size = slot.buckets, slot.low * 2
  local source, moved = bucket_key(slot, target - slot.low), {}
  for _, mark in ipairs(redis.call('SMEMBERS', source)) do
    if mod(mark, size) == target then moved[#moved + 1] = mark end
  end
  if #moved > 0 then
    redis.call('SREM', source, unpack(moved))
    redis.call('SADD', bucket_key(slot, target), unpack(moved))
  end
  slot.buckets = target + 1
  if slot.buckets == size then slot.low = size end
end

local function is_new(mark)
  if not slots then load_slots(now_ms()) end
  for i = 2, #slots do
    if redis.call('SISMEMBER', bucket(slots[i], mark), mark) == 1 then return false end
  end
  local slot = slots[1]
  if redis.call('SADD', bucket(slot, mark), mark) == 0 then return false end
  slot.marks, slot.changed = slot.marks + 1, true
  if slot.marks > slot.buckets * LOAD then grow(slot) end
  return true
end

-- senders ----------------------------------------------------------------------------------------------
-- What is known of each sender is collected as the books are: a few writes a call, however many moves it makes.
local heard, tallies = {}, {}

local function tally(field, change) tallies[field] = (tallies[field] or 0) + change end

local function note_senders(times, changes)
  for source, ms in pairs(times) do heard[source] = math.max(heard[source] or 0, ms) end
  for field, change in pairs(changes) do tally(field, change) end
end

local function write_senders()
  for source, ms in pairs(heard) do
    -- what was retried, or taken by a slower worker, came before the last one
    if ms > tonumber(redis.call('HGET', P .. 'senders', source .. ':last') or 0) then
      redis.call('HSET', P .. 'senders', source .. ':last', string.format('%.0f', ms))
    end
  end
  for field, n in pairs(tallies) do redis.call('HINCRBY', P .. 'senders', field, n) end
end

-- arrivals ---------------------------------------------------------------------------------------------
local ENTRY = 20 -- notes after which an entry is written
local arrived, arrivals = {}, 0

local function write_arrivals()
  if arrivals > 0 then note_arrivals(arrived) end
  arrived, arrivals = {}, 0
end

local function note_arrived(notes, noted)
  if notes == 0 then return end
  arrived[#arrived + 1] = noted
  arrivals = arrivals + notes
  if arrivals >= ENTRY then write_arrivals() end
end

-- effects ---------------------------------------------------------------------------------------------
local function add(queue, fields) redis.call('XADD', queue_key(queue), '*', unpack(fields)) end

local effects = {}
-- the stage that this move reads again for, from its queue `:raw`: what comes of that came back from the dead letters
local reread

-- append STAGE PAYLOAD META: new work for a stage
effects.append = function()
  local stage, payload, meta = arg(), arg(), arg()
  count(stage .. ':in', 1); count(stage .. ':waiting', 1)
  add(stage, {'p', payload, 'm', meta})
end

-- fresh STAGE JSON of [[META, how many], ...] MARK PAYLOAD ...: the same for each whose mark was not seen
effects.fresh = function()
  local stage, origins = arg(), cjson.decode(arg())
  local key, n, fresh = queue_key(stage == reread and retried_line(stage) or stage), 0, 0
  for _, origin in ipairs(origins) do
    local meta, of_it = origin[1], origin[2]
    n = n + of_it
    for _ = 1, of_it do
      local mark, payload = ARGV[at + 1], ARGV[at + 2]
      at = at + 2
      if is_new(mark) then
        fresh = fresh + 1
        redis.call('XADD', key, '*', 'p', payload, 'm', meta)
      end
    end
  end
  count(stage .. ':in', n); count(stage .. ':waiting', fresh); count(stage .. ':duplicate', n - fresh)
end

-- pass QUEUE [FIELDS]: the work goes on inside its stage, as one entry of another queue
effects.pass = function()
  local queue = arg()
  add(queue, list())
end

-- bury STAGE ID SOURCE REASON [FIELDS]: the counters are the caller's, who counts it as dead. What lies there already,
-- a delivery that was stored and spilled, only raises its letter's count, and is a duplicate.
effects.bury = function()
  local stage, id, source, reason, fields = arg(), arg(), arg(), arg(), list()
  if redis.call('EXISTS', P .. 'dead:' .. id) == 1 then
    redis.call('HINCRBY', P .. 'dead:' .. id, 'count', 1)
    count(stage .. ':dead', -1); count(stage .. ':duplicate', 1)
    tally(source .. ':deliveries:dead', -1)
  else
    write_letter(stage, id, source, reason, now_ms(), fields)
  end
end

-- visitor ID VERSION DOCUMENT SEEN_MS KEEP_MS
effects.visitor = function()
  local id, version, document, seen, keep = arg(), arg(), arg(), arg(), arg()
  redis.call('HSET', P .. 'visitor:' .. id, 'version', version, 'document', document)
  redis.call('PEXPIRE', P .. 'visitor:' .. id, keep)
  redis.call('ZADD', P .. 'visitors', seen, id)
end

-- absorb ID: a visitor that turned out to be another one
effects.absorb = function()
  local id = arg()
  redis.call('DEL', P .. 'visitor:' .. id)
  redis.call('ZREM', P .. 'visitors', id)
end

-- alias DIGEST VISITOR KEEP_MS: the address belongs to the visitor
effects.alias = function()
  local digest, id, keep = arg(), arg(), arg()
  redis.call('HSET', P .. 'address:' .. digest, 'visitor', id)
  redis.call('PEXPIRE', P .. 'address:' .. digest, keep)
end

-- subscribe DIGEST PAYLOAD META: an address to be watched, once. One that lies in the dead letters is a duplicate, too:
-- its work is in the books already, and it would only die again; retrying or dropping the letter lets it go on.
effects.subscribe = function()
  local digest, payload, meta = arg(), arg(), arg()
  count('subscribe:in', 1)
  if redis.call('HSETNX', P .. 'address:' .. digest, 'subscription', 'waiting') == 1 then
    count('subscribe:waiting', 1)
    add('subscribe', {'p', payload, 'm', meta})
  else
    count('subscribe:duplicate', 1)
  end
end

-- subscription DIGEST STATE KEEP_MS: nothing for an address that was forgotten meanwhile; '' is no subscription at all
effects.subscription = function()
  local digest, state, keep = arg(), arg(), arg()
  if redis.call('EXISTS', P .. 'address:' .. digest) == 0 then return end
  if state == '' then redis.call('HDEL', P .. 'address:' .. digest, 'subscription')
  else redis.call('HSET', P .. 'address:' .. digest, 'subscription', state) end
  redis.call('PEXPIRE', P .. 'address:' .. digest, keep)
end

-- succeeded STAGE FAILURES BEGUN_MS: what passed now had failed so often while others passed; its call was begun then
effects.succeeded = function()
  local stage, failures, begun = arg(), number(), number()
  succeeded(stage)
  local key = P .. 'destination:' .. stage
  if begun > tonumber(redis.call('HGET', key, 'good_ms') or 0) then
    redis.call('HSET', key, 'good_ms', string.format('%.0f', begun))
  end
  local unwell = tonumber(redis.call('HGET', key, 'unwell') or 0)
  if unwell == 0 and failures == 0 then return end
  -- quick to grow and slow to fade: what is thought worse than it is only waits longer
  unwell = more_unwell(unwell, failures) * (1 - 1 / 64)
  if unwell > 0.001 then redis.call('HSET', key, 'unwell', string.format('%.5f', unwell))
  else redis.call('HDEL', key, 'unwell') end
end

-- recovered STAGE: what failed was an item's fault
effects.recovered = function() recovered(arg()) end

-- hold STAGE SUCCESSES BEGUN_MS: a batch waits until others have succeeded since, by calls that were not begun before its own
effects.hold = function()
  local stage, successes, begun = arg(), arg(), arg()
  redis.call('HSET', P .. 'destination:' .. stage, 'held', successes, 'held_ms', begun)
end

-- remember KEY KEEP_MS VALUE: a marker that leaves by itself
effects.remember = function()
  local key, keep, value = arg(), arg(), arg()
  redis.call('SET', key, value, 'PX', keep)
end

-- one move ---------------------------------------------------------------------------------------------
local function unchanged(versions)
  for i = 1, #versions, 2 do
    local version = redis.call('HGET', P .. 'visitor:' .. versions[i], 'version') or ''
    if version ~= versions[i + 1] then return false end
  end
  return true
end

local function buried_person(macs)
  for _, mac in ipairs(macs) do
    if redis.call('SISMEMBER', P .. 'tombstones', mac) == 1 then return true end
  end
  return false
end

-- Returns whether the entries are still in a worker's hands and, when the move is final, takes them out.
local function take_out(queue, consumer, ids, cursor, next_cursor)
  local key, place = queue_key(queue), queue .. '/' .. ids[1]
  if #ids == 1 and (redis.call('HGET', P .. 'cursors', place) or '') ~= cursor then return false end
  if next_cursor ~= '' then
    if #redis.call('XCLAIM', key, GROUP, consumer, 0, ids[1], 'JUSTID') == 0 then return false end
    redis.call('HSET', P .. 'cursors', place, next_cursor)
    return true
  end
  if #ids > 1 then -- all of them or none
    local claim = {key, GROUP, consumer, 0}
    for _, id in ipairs(ids) do claim[#claim + 1] = id end
    claim[#claim + 1] = 'JUSTID'
    if #redis.call('XCLAIM', unpack(claim)) ~= #ids then
      claim[3] = RELEASED -- some may have come from another worker's hands: anyone may take what is left
      redis.call('XCLAIM', unpack(claim))
      return false
    end
  end
  if redis.call('XACK', key, GROUP, unpack(ids)) == 0 then return false end
  redis.call('XDEL', key, unpack(ids))
  if cursor ~= '' then redis.call('HDEL', P .. 'cursors', place) end
  local places = {}
  for i, id in ipairs(ids) do places[i] = queue .. '/' .. id end
  redis.call('HDEL', P .. 'attempts', unpack(places))
  end_probe(queue, ids[1])
  return true
end

local function skip(effect_count) -- step over the arguments of a move that does not happen
  for _ = 1, effect_count do
    local length = number() -- on a line of its own: it moves `at`, too
    at = at + length
  end
end

local results = {}
for m = 1, number() do
  local queue, consumer, cursor, next_cursor = arg(), arg(), arg(), arg()
  local ids, versions, macs, numbers = list(), list(), list(), cjson.decode(arg())
  local notes, noted = number(), arg()
  local effect_count = number()
  local result = 1
  if not unchanged(versions) then
    result = -1
  elseif buried_person(macs) then
    result = -2
  elseif not take_out(queue, consumer, ids, cursor, next_cursor) then
    result = 0
  end
  if result == 1 then
    for field, change in pairs(numbers[1]) do count(field, change) end
    reread = string.match(queue, '^(%a+):raw$')
    note_senders(numbers[2], numbers[3])
    note_arrived(notes, noted)
    for _ = 1, effect_count do
      at = at + 1 -- the effect's length, needed only by skip
      effects[arg()]()
    end
  else
    skip(effect_count)
  end
  results[m] = result
end

if slots then
  for _, slot in ipairs(slots) do
    if slot.changed then redis.call('HSET', P .. 'seen', slot.name, slot.buckets .. ':' .. slot.marks) end
  end
end
write_senders()
write_arrivals()
close_books()
return {results, bells()}
