-- One item was refused on its own. Count how many in a row, and of how many batches, with the same words and
-- no success in between.
-- ARGV: the caller's name, the call's word, stage, digest of the words, batch that the item was sealed in,
--       whether it is refused for the first time (0/1).
-- Answer: {refusals in a row, batches}
-- Second run: counts nothing, and answers as the first one did.
local caller, word, stage, words, root, is_first = arg(), arg(), arg(), arg(), arg(), number()
local said = earlier(caller, word)
if said then return said end

local key = P .. 'destination:' .. stage
local state = redis.call('HMGET', key, 'words', 'refusals', 'roots')
local refusals, roots = 1, root
if state[1] == words then
  refusals = tonumber(state[2] or 0) + is_first
  roots = state[3] or ''
  if not string.find(' ' .. roots .. ' ', ' ' .. root .. ' ', 1, true) then roots = roots .. ' ' .. root end
end
even_when_full()
redis.call('HSET', key, 'words', words, 'refusals', refusals, 'roots', string.sub(roots, 1, 200))
local _, batches = string.gsub(roots, '%S+', '')
return finally(caller, word, {refusals, batches})
