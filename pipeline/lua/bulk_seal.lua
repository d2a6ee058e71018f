-- Seal what waits to be asked about into one bulk job, when more of it waits than single calls should ask about.
-- Only what was never called for goes into a job: what came back from one, or was refused, carries its attempts (t).
-- What came back from the dead letters has jobs of its own, half of all at most: a job is a few calls, however many
-- visitors it asks about, and whoever it gives back goes to the line they came from.
-- ARGV: stage, name of the job, more than this must wait, visitors a job at most, visitors a part, jobs at most
-- Answer: how many visitors were sealed.
-- Second run: finds the job of this name and answers 0.
local stage, name = arg(), arg()
local from, most, part, jobs = number(), number(), number(), number()
local bulk, job = queue_key(stage .. ':bulk'), P .. 'bulk:' .. name
if redis.call('EXISTS', job) == 1 or redis.call('HEXISTS', P .. 'paused', stage) == 1 then return 0 end

local function may_be_made(line)
  local names = redis.call('ZRANGE', P .. 'bulk', 0, -1)
  if line == stage or #names >= jobs then return #names < jobs end
  local same = 0
  for _, other in ipairs(names) do
    if redis.call('HGET', P .. 'bulk:' .. other, 'line') == line then same = same + 1 end
  end
  return same < jobs / 2
end

local function last_delivered(key)
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    local group = {}
    for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
    if group.name == GROUP then return group['last-delivered-id'] end
  end
end

-- Those in the line that may go into a job, when there are enough of them.
local function fit(line)
  local key = queue_key(line .. ':batches')
  if redis.call('XLEN', key) <= from or not may_be_made(line) then return end
  local last = last_delivered(key)
  if not last then return end -- the sweep makes missing groups anew
  -- nobody has had these in hands; `2 * most`, so that some unfit ones in front do not hide the others
  local rows = {}
  for _, row in ipairs(redis.call('XRANGE', key, '(' .. last, '+', 'COUNT', 2 * most)) do
    if row[2][#row[2] - 1] ~= 't' and #rows < most then rows[#rows + 1] = row end
  end
  return #rows > from and rows or nil
end

local line = stage .. ':retried'
local rows = fit(line)
if not rows then
  line = stage
  rows = fit(line)
end
if not rows then return 0 end

local now = string.format('%.0f', now_ms())
local ids, parts = {}, {}
for i, row in ipairs(rows) do ids[i] = row[1] end
redis.call('XDEL', queue_key(line .. ':batches'), unpack(ids))
for first = 1, #rows, part do
  local fields = {}
  for i = first, math.min(first + part - 1, #rows) do
    for _, field in ipairs(rows[i][2]) do fields[#fields + 1] = field end
  end
  parts[#parts + 1] = redis.call('XADD', bulk, '*', unpack(fields))
end
redis.call('HSET', job, 'parts', table.concat(parts, ' '), 'visitors', #rows, 'line', line)
redis.call('ZADD', P .. 'bulk', now, name)
return #rows
