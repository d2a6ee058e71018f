-- Write an entry into the audit, also on a full server: what makes room there is an order, too.
-- ARGV: about how many entries are kept, [fields].
-- Second run: writes the same entry, with the same time, once more.
local most = number()
even_when_full()
redis.call('XADD', P .. 'audit', 'MAXLEN', '~', most, '*', unpack(list()))
