-- Say when a bulk job is due again, and what is to be remembered of it; also on a full server.
-- ARGV: stage, name, due in ms (negative: it is over and forgotten), what became of the call ('succeeded', 'ended'
--       somehow else, 'goes on', 'again': it succeeded, and a job that was begun is made anew), [field, value, ...]
-- Answer: 1, or 0 when the job is over.
-- Second run: writes the same again; the job is due a moment later, and one success more is counted.
local stage, name, due_in, call = arg(), arg(), number(), arg()
local job, fields = P .. 'bulk:' .. name, list()
even_when_full()
if call ~= 'goes on' then end_probe(bulk_of(stage), name) end
if call == 'succeeded' or call == 'again' then succeeded(stage, true) end
if due_in < 0 or redis.call('EXISTS', job) == 0 then
  redis.call('DEL', job)
  redis.call('ZREM', P .. 'bulk', name)
  return 0
end
if call == 'again' and redis.call('HGET', job, 'begun') == '1' then
  count('maybe_duplicate', tonumber(redis.call('HGET', job, 'visitors') or 0))
  close_books()
end
if #fields > 0 then redis.call('HSET', job, unpack(fields)) end
redis.call('ZADD', P .. 'bulk', string.format('%.0f', now_ms() + due_in), name)
return 1
