-- Note that a worker lives, also on a full server: its work would be taken from it otherwise.
-- Second run: the worker lives a moment longer.
-- ARGV: worker, milliseconds after which a heartbeat is forgotten.
local worker, forgotten = arg(), number()
local now = now_ms()
redis.call('ZREMRANGEBYSCORE', P .. 'workers', '-inf', now - forgotten)
redis.call('ZADD', P .. 'workers', now, worker)
