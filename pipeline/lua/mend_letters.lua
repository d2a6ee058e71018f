-- Bring a piece of the index by kind in line with the index of all dead letters, which is never wrong. What is in line
-- is not written, so a full server refuses only what is missing.
-- ARGV: a kind, to take out of it what is no letter any more; or '' to add what is missing, and in the end to count each
-- kind and to note that all was gone through; where to go on ('0' at first); about how many letters; for how many
-- milliseconds the note is kept. Answer: {where to go on, '0' at the end; how many places were wrong}.
-- Second run: finds the piece in line.
local kind, cursor, most, kept_ms = arg(), arg(), number(), number()
local all, counted, wrong = P .. 'dead', P .. 'dead-kinds', 0
local found = redis.call('ZSCAN', kind == '' and all or kind_key(kind), cursor, 'COUNT', most)
for i = 1, #found[2], 2 do
  local member, score = found[2][i], found[2][i + 1]
  if kind ~= '' then
    if not redis.call('ZSCORE', all, kind .. '/' .. member) then
      redis.call('ZREM', kind_key(kind), member)
      wrong = wrong + 1
    end
  else
    local of, id = string.match(member, '^([^/]*/[^/]*/[^/]*)/(.*)$')
    local listed = redis.call('ZSCORE', kind_key(of), id)
    if not listed or tonumber(listed) ~= tonumber(score) then
      redis.call('ZADD', kind_key(of), score, id)
      wrong = wrong + 1
    end
    if redis.call('HEXISTS', counted, of) == 0 then redis.call('HSET', counted, of, 0) end
  end
end
if kind == '' and found[1] == '0' then
  even_when_full()
  for _, each in ipairs(redis.call('HKEYS', counted)) do
    local letters = redis.call('ZCARD', kind_key(each))
    if letters ~= tonumber(redis.call('HGET', counted, each)) then wrong = wrong + 1 end
    if letters == 0 then redis.call('HDEL', counted, each) else redis.call('HSET', counted, each, letters) end
  end
  redis.call('SET', P .. 'dead-checked', 1, 'PX', kept_ms)
end
return {found[1], wrong}
