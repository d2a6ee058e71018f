-- Pace: which part of a vendor's configured rate is used, from LEAST to 1. Halved when the vendor asks for fewer
-- requests, raised a little with every call that goes well (additive increase, multiplicative decrease): it swings below
-- what the vendor takes. Arithmetic only: neither Redis nor a clock is asked here. `gap` is the time between two calls
-- of the configured rate, in milliseconds.
local LEAST = 0.05
local STEP, STEP_MS = 0.05, 10000 -- a twentieth of the rate for ten seconds of calls: from half to all of it in 100 s
local SLOWEST_MS = 60000 -- one call a minute is always made, unless fewer are configured

-- The share after the vendor asked for fewer requests.
local function slower(share, gap) return math.min(share, math.max(share / 2, LEAST, gap / SLOWEST_MS)) end

-- The share after one more call that went well. It counts for as much time as lies between two calls, at most for one step: waiting
-- without work raises nothing.
local function faster(share, gap) return math.min(1, share + STEP * math.min(1, gap / share / STEP_MS)) end

-- Whether a call that was asked to slow down tells anything new: it was begun after the last halving. Calls that were
-- on their way together are one signal. Who does not know when it was begun (nil) is believed once for each step.
local function is_news(begun, halved, now)
  if begun then return begun > halved end
  return now - halved >= STEP_MS
end

