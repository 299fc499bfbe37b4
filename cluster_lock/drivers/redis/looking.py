"""What the server runs for who reads. Nothing is changed but by READ, with which a lock is waited for or confirmed: it
cuts a lease that has more time left than it was given for."""

from __future__ import annotations

from .script import Script

_ROW = """
-- Lease, index, record, milliseconds that the lease has left, and for what is not ours a sum of its bytes.
local function row(name, cuts)
  local stands = standing(name)
  if stands and not stands.lease then return {'', '0', stands.record, -1, stands.sum} end
  if stands then
    local left = left_of(stands.lease, cuts)
    -- -2: it is gone, and with it what it held. -1: somebody wrote it.
    if left ~= -2 then return {stands.lease, stands.index, stands.record, left, ''} end
  end
  local _, index = last_word(name)
  return {'', index, false, -2, ''}
end
"""

READ = Script(
    "read",
    _ROW
    + """
local rows = {string.format('%.0f', present_index())}
for at = 2, #ARGV do rows[at] = row(ARGV[at], true) end
return rows
""",
)

LOOK = Script(
    "look",
    _ROW
    + """
local rows = {}
for at = 2, #ARGV do rows[at - 1] = row(ARGV[at], false) end
return rows
""",
)

KEYS = Script("look for keys", "return redis.call('SCAN', ARGV[2], 'MATCH', ARGV[3], 'COUNT', ARGV[4])")

TIME = Script("ask the time", "return redis.call('TIME')")

SCAN = Script(
    "scan",
    _ROW
    + """
local wanted, found = ARGV[2], {}
for _, name in ipairs(members(prefix .. 'names')) do
  if string.sub(name, 1, #wanted) == wanted then
    local one = row(name, false)
    if one[1] ~= '' then found[#found + 1] = {name, one[1], one[2], one[3]} end
  end
end
return found
""",
)

TIMES = Script(
    "look at leases",
    """
local found = {}
for at = 2, #ARGV do
  local key = prefix .. 'lease/' .. ARGV[at]
  local value = of_type('GET', key)
  found[at - 1] = {value or '', redis.call('PTTL', key)}
end
return found
""",
)
