-- Pause a stage because its vendor's key is not set, also on a full server; an operator's pause stays as it is.
-- ARGV: stage, reason.
-- Second run: finds the pause of the first one. When that was lifted in between, the stage is paused once more, as
-- the next sweep would.
local stage, reason = arg(), arg()
local pause = redis.call('HGET', P .. 'paused', stage)
pause = pause and cjson.decode(pause)
if pause and (pause.by == 'operator' or pause.reason == reason) then return end
even_when_full()
redis.call('HSET', P .. 'paused', stage,
  cjson.encode({by = 'relay', reason = reason, since_ms = now_ms(), until_ms = cjson.null}))
