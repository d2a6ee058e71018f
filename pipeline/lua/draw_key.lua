-- Return the key that tombstones are made with; the first call draws it, also on a full server: no merge is made
-- without it. ARGV: a key drawn by the caller. Answer: the key.
-- Second run: answers with what the first one kept.
local drawn = arg()
even_when_full()
redis.call('SET', P .. 'tombstone-key', drawn, 'NX')
return redis.call('GET', P .. 'tombstone-key')
