"""What the server runs, a Lua script for each verb: each is atomic, and reads the server's clock only for tokens.

Under the prefix stand, beside a key for each name:

    leader/NAME       "LEASE INDEX RECORD": which lease holds it, its fencing token, the record. No expiry of its own
    lease/ID          the holder, for people; it expires when the lease does
    last/NAME         "INDEX WORD": what the last holder left, its record or its farewell; NAME without "leader/"
    before/NAME       what the holder of now found there
    held/ID           the names that a lease holds; swept when the lease is gone
    leases, names     the leases and names that there may be
    primary           which server this is, if it was a replica once, and since when somebody knows it for the primary
    index             the last index. It is a time in microseconds, or one more than the one before it: it grows,
                      whatever is deleted, as long as the server's clock does

What is not of the form of a lock, or of another type, was written by other hands: it is shown, and refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

SHOWN = 4096
"""Bytes of a foreign value that are shown."""

_COMMON = """
local prefix = ARGV[1]

local function alive(lease)
  return redis.call('EXISTS', prefix .. 'lease/' .. lease) == 1
end

-- Milliseconds that a lease has left; -2: it is gone. After the clock was set back, or by a person's hand, it may have
-- more than it was given for, or no end: then it is given for that from now on, as much as any renewal gives.
local function left_of(lease)
  local key = prefix .. 'lease/' .. lease
  local left = redis.call('PTTL', key)
  if left == -2 then return left end
  local value = redis.pcall('GET', key)
  local ttl = type(value) == 'string' and tonumber(string.match(value, '^(%d+) '))
  if ttl and ttl > 0 and (left == -1 or left > ttl) then
    redis.call('PEXPIRE', key, ttl)
    return ttl
  end
  return left
end

-- What stands under a name: its lease, index and record; nil if nothing does. Without a lease it is not ours.
local function standing(name)
  local value = redis.pcall('GET', prefix .. name)
  if not value then return nil end
  if type(value) == 'table' then return {record = '(not a string)', sum = value.err} end
  local lease, index, start = string.match(string.sub(value, 1, 64), '^(%x+) (%d+) ()')
  if not lease or #lease ~= 16 or #index > 16 then
    return {record = string.sub(value, 1, {SHOWN}), sum = redis.sha1hex(value)}
  end
  return {lease = lease, index = index, record = string.sub(value, start)}
end

-- Where that of a lock stands which outlives it: under the name of the lock as people know it.
local function lasting(room, name)
  return prefix .. room .. string.gsub(name, '^leader/', '', 1)
end

-- What the last holder left, and the index of the last change of a lock that is free now.
local function last_word(name)
  local value = redis.pcall('GET', lasting('last/', name))
  if type(value) ~= 'string' then return false, '0' end
  local index, start = string.match(string.sub(value, 1, 32), '^(%d+) ()')
  if not index then return false, '0' end
  return string.sub(value, start), index
end

local function present_index()
  local value = redis.pcall('GET', prefix .. 'index')
  local number = type(value) == 'string' and tonumber(value) or 0
  -- No clock gets there before the year 2128: junk, which must not become a token.
  if not (number > 0 and number < 5000000000000000) then return 0 end
  return math.floor(number)
end

local function next_index()
  local time = redis.call('TIME')
  local index = string.format('%.0f', math.max(present_index() + 1, time[1] * 1000000 + time[2]))
  redis.call('SET', prefix .. 'index', index)
  return index
end

local function tell(name)
  redis.call('PUBLISH', prefix .. 'changes', name)
end

local function members(key)
  local found = redis.pcall('SMEMBERS', key)
  if found.err then redis.call('DEL', key) return {} end
  return found
end

local function add(key, name)
  local done = redis.pcall('SADD', key, name)
  if type(done) == 'table' then redis.call('DEL', key) redis.call('SADD', key, name) end
end

local function remove(key, name)
  redis.pcall('SREM', key, name)
end

local function put(name, lease, record, index)
  redis.call('SET', prefix .. name, lease .. ' ' .. index .. ' ' .. record)
  add(prefix .. 'names', name)
  add(prefix .. 'held/' .. lease, name)
  tell(name)
end

local function delete(name)
  redis.call('DEL', prefix .. name)
  remove(prefix .. 'names', name)
  tell(name)
end

-- Frees what a lease holds, and forgets the lease.
local function forget(lease)
  for _, name in ipairs(members(prefix .. 'held/' .. lease)) do
    local stands = standing(name)
    if stands and stands.lease == lease then
      next_index()
      delete(name)
    elseif not stands then
      remove(prefix .. 'names', name)
    end
  end
  redis.call('DEL', prefix .. 'held/' .. lease, prefix .. 'lease/' .. lease)
  remove(prefix .. 'leases', lease)
end
""".replace("{SHOWN}", str(SHOWN))


@dataclass(frozen=True)
class Script:
    """`name` is what error texts call it."""

    name: str
    body: str
    text: bytes = field(init=False, repr=False)
    sha: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        text = (_COMMON + self.body).encode()
        object.__setattr__(self, "text", text)
        # By which the server knows it.
        object.__setattr__(self, "sha", hashlib.sha1(text, usedforsecurity=False).hexdigest())


GRANT = Script(
    "grant a lease",
    """
-- A few of those that died, so that none stay for ever.
local swept = 0
for _, lease in ipairs(members(prefix .. 'leases')) do
  if swept == 100 then break end
  if not alive(lease) then forget(lease) swept = swept + 1 end
end
local id, holder, ttl = ARGV[2], ARGV[3], ARGV[4]
redis.call('SET', prefix .. 'lease/' .. id, ttl .. ' ' .. holder, 'PX', ttl)
add(prefix .. 'leases', id)
return 1
""",
)

PRIMARY_FOR = Script(
    "see for how long it is the primary",
    """
local who, now = ARGV[2], tonumber(redis.call('TIME')[1])
local value = redis.pcall('GET', prefix .. 'primary')
local known, since = string.match(type(value) == 'string' and value or '', '^(%S+) (%d+)$')
-- Both are whole seconds.
if known == who and tonumber(since) <= now then return math.max(0, now - tonumber(since) - 1) end
redis.call('SET', prefix .. 'primary', who .. ' ' .. now)
return 0
""",
)

REVOKE = Script("revoke a lease", "forget(ARGV[2]) return 1")

ACQUIRE = Script(
    "acquire",
    """
local lease, name, record = ARGV[2], ARGV[3], ARGV[4]
if not alive(lease) then return {'gone'} end
local stands = standing(name)
if stands and not stands.lease then return {'foreign'} end
if stands and stands.lease == lease then
  local before = redis.pcall('GET', lasting('before/', name))
  return {'held', stands.index, stands.record, type(before) == 'string' and before}
end
if stands and alive(stands.lease) then return {'taken'} end
local word = last_word(name)
if not word and stands then word = stands.record end
if stands then remove(prefix .. 'held/' .. stands.lease, name) end
local index = next_index()
put(name, lease, record, index)
redis.call('SET', lasting('last/', name), index .. ' ' .. record)
redis.call('DEL', lasting('before/', name))
if word then redis.call('SET', lasting('before/', name), word) end
return {'granted', index, record, word}
""",
)

RELEASE = Script(
    "release",
    """
local lease, index, name, farewell = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local stands = standing(name)
if not stands or stands.lease ~= lease or stands.index ~= index or not alive(lease) then return 0 end
redis.call('SET', lasting('last/', name), next_index() .. ' ' .. farewell)
redis.call('DEL', lasting('before/', name))
delete(name)
remove(prefix .. 'held/' .. lease, name)
return 1
""",
)

TRANSFER = Script(
    "transfer",
    """
local lease, index, name, heir, heir_name, record = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local stands = standing(name)
-- If not by this request, then by an earlier copy of it whose answer was lost.
if stands and stands.lease == heir and stands.record == record and tonumber(stands.index) > tonumber(index) then
  return 1
end
if not stands or stands.lease ~= lease or stands.index ~= index or not alive(lease) then return 0 end
local waits = standing(heir_name)
if not waits or waits.lease ~= heir or not alive(heir) then return 0 end
local new = next_index()
put(name, heir, record, new)
remove(prefix .. 'held/' .. lease, name)
redis.call('SET', lasting('last/', name), new .. ' ' .. record)
redis.call('SET', lasting('before/', name), stands.record)
return 1
""",
)

ANNOUNCE = Script(
    "announce",
    """
local lease, name, record = ARGV[2], ARGV[3], ARGV[4]
if not alive(lease) then return 0 end
local stands = standing(name)
if stands and stands.lease and stands.lease ~= lease then remove(prefix .. 'held/' .. stands.lease, name) end
put(name, lease, record, next_index())
return 1
""",
)

WITHDRAW = Script(
    "withdraw",
    """
local lease, name = ARGV[2], ARGV[3]
local stands = standing(name)
if not stands or stands.lease ~= lease then return 0 end
next_index()
delete(name)
remove(prefix .. 'held/' .. lease, name)
return 1
""",
)

_ROW = """
-- Lease, index, record, milliseconds that the lease has left, and for what is not ours a sum of its bytes.
local function row(name)
  local stands = standing(name)
  if stands and not stands.lease then return {'', '0', stands.record, -1, stands.sum} end
  if stands then
    local left = left_of(stands.lease)
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
for at = 2, #ARGV do rows[at] = row(ARGV[at]) end
return rows
""",
)

SCAN = Script(
    "scan",
    _ROW
    + """
local wanted, found = ARGV[2], {}
for _, name in ipairs(members(prefix .. 'names')) do
  if string.sub(name, 1, #wanted) == wanted then
    local one = row(name)
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
  local value = redis.pcall('GET', key)
  found[at - 1] = {type(value) == 'string' and value or '', redis.call('PTTL', key)}
end
return found
""",
)
