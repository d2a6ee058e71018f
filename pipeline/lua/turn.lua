-- Use one call of a vendor's rate outside the stages; `claim` shares the same rate by the same rules.
-- ARGV: vendor, milliseconds between two calls (0: no limit), rank (0 is served first)
-- Answer: 0 when the call may be made now, else the milliseconds to wait before asking again.
-- Second run: may use up another call of the rate, which then nobody makes.
local vendor, gap, rank = arg(), number(), number()
local now = now_ms()
local wait, next_call = rate_wait(vendor, gap, rank, now)
if wait then return wait end
even_when_full()
take_call(vendor, gap, rank, now, next_call)
count_turn(vendor)
return 0
