-- Store deliveries that a receiver had spilled as one entry of the inbox, and note how far their file has come with
-- it, in the same step. ARGV: file, the places in it before and behind them, how long the note lives (ms), packed
-- deliveries. Answer: {how far the file has come, unpack's bell}; nothing is stored when that was not their place.
-- The note is written in any case: then what is waited for (an fsync, a replica) covers what an earlier call stored.
-- Second run: finds that the file has come further, and stores nothing.
local file, from, upto, lives = arg(), number(), number(), number()
local key = P .. 'spilled:' .. file
local come = tonumber(redis.call('GET', key) or 0)
if come == from then
  local fields = {}
  for i = at + 1, #ARGV do
    fields[#fields + 1] = 'p'
    fields[#fields + 1] = ARGV[i]
  end
  redis.call('XADD', queue_key('unpack'), '*', unpack(fields))
  count('unpack:in', #ARGV - at); count('unpack:waiting', #ARGV - at)
  close_books()
  come = upto
end
redis.call('SET', key, string.format('%.0f', come), 'PX', lives)
return {come, tonumber(redis.call('HGET', P .. 'bells', 'unpack') or 0)}
