-- Seal what waits in a stage into batches: a batch is complete, or its oldest item has waited long enough.
-- Nobody ever holds an entry of such a queue: reading, deleting and appending are this one step.
-- ARGV: stage, items a batch, batches at most, ripe_ms
-- Answer: {batches sealed, milliseconds until more is ripe (-1: nothing waits, -2: paused), batches sealed of what came
--         back from the dead letters}. Each of the two lines is sealed by itself.
-- A drill (form d, pipeline/drills.py) ends here: it joins no batch, and leaves a mark for whoever sent it.
-- Second run: seals what more is complete or ripe, as the next call would; what was sealed is in its batches.
local stage, most, wanted, ripe = arg(), number(), number(), number()

local pause = redis.call('HGET', P .. 'paused', stage)
if pause and cjson.decode(pause).by == 'operator' then return {0, -2, 0} end

-- hashed and plain addresses never share a batch; the form is the third word of the origin
local function by_form(key, rows)
  local groups = {h = {}, o = {}}
  for _, row in ipairs(rows) do
    local form = string.match(row[2][4], '^[^|]*|%d*|(%a)')
    if form == 'd' then
      redis.call('XDEL', key, row[1])
      count(stage .. ':waiting', -1)
      count(stage .. ':ignored', 1)
      redis.call('SET', P .. 'drill:' .. cjson.decode(row[2][2]).send_id .. ':' .. stage, 1, 'PX', 600000)
    else
      local group = groups[form] or groups.o
      group[#group + 1] = row
    end
  end
  return groups
end

local function seal(line, now)
  local key, batches = queue_key(line), queue_key(batches_of(line))
  local rows = redis.call('XRANGE', key, '-', '+', 'COUNT', most * wanted)
  if #rows == 0 then return 0, -1 end
  local groups, sealed, wait = by_form(key, rows), 0, -1
  -- the form that waits longest first, so that neither starves when both have more than this call may seal
  for _, form in ipairs(groups.h[1] == rows[1] and {'h', 'o'} or {'o', 'h'}) do
    local group = groups[form]
    for first = 1, #group, most do
      local last = math.min(first + most - 1, #group)
      local age = now - tonumber(string.match(group[first][1], '^%d+'))
      local remaining = age < 0 and 0 or ripe - age -- below 0: the clock was set back, and nobody knows how old it is
      if sealed < wanted and (last - first + 1 == most or remaining <= 0) then
        local ids, fields = {}, {}
        for i = first, last do
          ids[#ids + 1] = group[i][1]
          for _, field in ipairs(group[i][2]) do fields[#fields + 1] = field end
        end
        redis.call('XDEL', key, unpack(ids))
        redis.call('XADD', batches, '*', unpack(fields))
        sealed = sealed + 1
      elseif wait < 0 or remaining < wait then
        wait = remaining
      end
    end
  end
  if sealed > 0 and #rows == most * wanted then wait = 0 end
  return sealed, wait
end

local now = now_ms()
local sealed, wait = seal(stage, now)
local retried, retried_wait = seal(retried_line(stage), now)
close_books()
if wait < 0 or (retried_wait >= 0 and retried_wait < wait) then wait = retried_wait end
return {sealed, wait, retried}
