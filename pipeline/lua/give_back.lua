-- Let anyone take entries that a worker holds; those it no longer holds stay where they are.
-- ARGV: queue, consumer, [entry ids]. Answer: how many were given back.
-- Second run: finds them given back already and answers 0. What the same worker has taken again in between it
-- loses once more: whoever takes it does the work too, and only the first move of the two happens.
local queue, consumer = arg(), arg()
local key, given = queue_key(queue), 0
for _, id in ipairs(list()) do
  if is_held_by(key, id, consumer) then
    let_anyone_take(queue, id)
    given = given + 1
  end
end
return given
