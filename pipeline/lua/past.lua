-- The books at some moments of the history: of each, the first entry from there on. Writes nothing. Their names are told
-- once, because to read them is most of what an entry costs its reader. ARGV: moments, in ms.
-- Answer: {[names], ...} in the order in which they came up, then [{entry, which names, [numbers]}, ...], oldest first.
local sets, known, rows, last = {}, {}, {}, ''
for _, at_ms in ipairs(ARGV) do
  local entry = redis.call('XRANGE', P .. 'history', at_ms, '+', 'COUNT', 1)[1]
  if entry and entry[1] ~= last then
    last = entry[1]
    local names, numbers = {}, {}
    for i = 1, #entry[2], 2 do
      names[#names + 1], numbers[#numbers + 1] = entry[2][i], entry[2][i + 1]
    end
    local word = table.concat(names, ' ')
    if not known[word] then
      sets[#sets + 1] = names
      known[word] = #sets
    end
    rows[#rows + 1] = {last, known[word], numbers}
  end
end
return {sets, rows}
