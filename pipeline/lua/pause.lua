-- Pause a stage until somebody resumes it, also on a full server: that is when an operator may want it most.
-- ARGV: stage, by, reason.
-- Second run: makes the same pause once more, from a moment later on. When it was lifted in between, the stage is
-- paused again: whoever paused it was not told before now.
local stage, by, reason = arg(), arg(), arg()
even_when_full()
redis.call('HSET', P .. 'paused', stage,
  cjson.encode({by = by, reason = reason, since_ms = now_ms(), until_ms = cjson.null}))
