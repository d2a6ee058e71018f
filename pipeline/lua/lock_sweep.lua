-- Be the one worker that sweeps now, also on a full server. ARGV: worker, ms. Answer: whether it is (0/1).
-- Second run: the lock is taken, so nobody sweeps before it is over: a second later.
even_when_full()
return redis.call('SET', P .. 'sweeping', ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
