-- A call outside the stages went well: a vendor that asked for fewer requests is asked a little more often.
-- ARGV: vendor
-- Second run: counts for another call.
even_when_full()
climb(arg())
