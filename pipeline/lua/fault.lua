-- What is known of a stage's vendor when a call to it failed.
-- ARGV: stage, the batch that this one was split from at first, the one that it is an untried half of ('': none), whether
--       only held ones are left to be tried (0/1), whether this one may be parted then, for nothing else to be compared
--       with (0/1). Of all that is held that is done to one at a time: an outage shall not leave single items behind. When
--       all of the others have failed since anything of that one could be parted, the next one takes its place.
-- Answer: {successes, failures in a row, whether it is the one to be parted (0/1), whether a part of what it was split
--          from was buried (0/1), how unwell the vendor is (0 to 1), when the call was begun, of those that succeeded,
--          that was begun last}
-- Second run: counts once more that nothing was parted, and takes the first half of a batch that failed for both.
local HALF_KEPT_MS = 86400000
local stage, root, half_of = arg(), arg(), arg()
local is_left, may_be_parted = number() == 1, number() == 1
local key = P .. 'destination:' .. stage
local state = redis.call('HMGET', key, 'successes', 'failures', 'unwell', 'parted', 'good_ms')
local is_parted = 0
even_when_full()
if is_left then
  local held = 0
  for _, line in ipairs({stage, retried_line(stage)}) do
    held = held + redis.call('XLEN', queue_key(held_of(line)))
  end
  local passed = redis.call('HINCRBY', key, 'unparted', 1)
  if may_be_parted and (not state[4] or state[4] == root or passed > held) then
    is_parted = 1
    redis.call('HSET', key, 'parted', root, 'unparted', 0)
  end
end
-- where one item is to blame, one half of a batch passes: of a vendor that fails both, something is wrong
if half_of ~= '' and not redis.call('SET', P .. 'half:' .. stage .. ':' .. half_of, 1, 'NX', 'PX', HALF_KEPT_MS) then
  state[3] = string.format('%.5f', more_unwell(tonumber(state[3] or 0), 1))
  redis.call('HSET', key, 'unwell', state[3])
end
local is_explained = redis.call('EXISTS', P .. 'explained:' .. stage .. ':' .. root)
return {tonumber(state[1] or 0), tonumber(state[2] or 0), is_parted, is_explained, state[3] or '0',
  tonumber(state[5] or 0)}
