-- Shared by every script: the words of pipeline/keys.py and the few steps that all of them take.
-- Ages are computed from Redis's own clock, never from a process's.
local P = '{relay}:'
local GROUP = 'workers'
local RELEASED = 'released'

local function queue_key(name) return P .. 'queue:' .. name end

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- The books: changes are collected and written once, at the end of the same script.
local ledger = {}
local function count(field, delta) ledger[field] = (ledger[field] or 0) + delta end
local function close_books()
  for field, delta in pairs(ledger) do
    if delta ~= 0 then redis.call('HINCRBY', P .. 'books', field, delta) end
  end
end

local STAGES = {'unpack', 'enrich', 'subscribe', 'forward', 'scores'}
local function bells() return redis.call('HMGET', P .. 'bells', unpack(STAGES)) end

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

local function write_letter(stage, id, source, reason, now, fields)
  redis.call('ZADD', P .. 'dead', now, stage .. '/' .. source .. '/' .. reason .. '/' .. id)
  redis.call('HSET', P .. 'dead:' .. id, 'stage', stage, 'source', source, 'reason', reason,
    'buried_at', string.format('%.0f', now), unpack(fields))
end
