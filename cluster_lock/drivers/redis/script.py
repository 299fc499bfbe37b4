"""What all scripts begin with, and what the server knows one by.

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

A script is told last which server it is meant for, by its replication id: that is another one whenever a server is
started anew or becomes a primary, however long a connection to it stands. Nothing is read or written elsewhere.

The server takes back nothing of a script that it stops in the middle. So what is to be written is gathered first, and
written when the user has been found to have the right to all of it (asked from Redis 7.0 on).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

OTHER = "OTHERSERVER"
"""What the answer of a script begins with that was not meant for this server."""

SHOWN = 4096
"""Bytes of a foreign value that are shown."""

_COMMON = """
local prefix, meant = ARGV[1], table.remove(ARGV)
local said = redis.call('INFO', 'replication')
if not (string.find(said, 'role:master', 1, true) and string.find(said, 'master_replid:' .. meant, 1, true)) then
  return {err = '{OTHER} it is not the primary any more that we knew'}
end

-- What a command answers; nil where strangers made the key another type. Any other refusal ends the script.
local function of_type(...)
  local answer = redis.pcall(...)
  if type(answer) ~= 'table' or not answer.err then return answer end
  if string.find(answer.err, 'WRONGTYPE', 1, true) then return nil end
  return redis.call(...)
end

local function alive(lease)
  return redis.call('EXISTS', prefix .. 'lease/' .. lease) == 1
end

-- Milliseconds that a lease has left; -2: it is gone. After the clock was set back, or by a person's hand, it may have
-- more than it was given for, or no end: then it has that from now on, as much as any renewal gives.
local function left_of(lease, cuts)
  local key = prefix .. 'lease/' .. lease
  local left = redis.call('PTTL', key)
  if left == -2 then return left end
  local value = of_type('GET', key)
  local ttl = value and tonumber(string.match(value, '^(%d+) '))
  if ttl and ttl > 0 and (left == -1 or left > ttl) then
    if cuts then redis.pcall('PEXPIRE', key, ttl) end  -- who has no right to write only looks
    return ttl
  end
  return left
end

-- What stands under a name: its lease, index and record; nil if nothing does. Without a lease it is not ours.
local function standing(name)
  local value = of_type('GET', prefix .. name)
  if value == nil then return {record = '(not a string)', sum = 'WRONGTYPE'} end
  if not value then return nil end
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
  local value = of_type('GET', lasting('last/', name))
  if not value then return false, '0' end
  local index, start = string.match(string.sub(value, 1, 32), '^(%d+) ()')
  if not index then return false, '0' end
  return string.sub(value, start), index
end

local function present_index()
  local value = of_type('GET', prefix .. 'index')
  local number = value and tonumber(value) or 0
  -- No clock gets there before the year 2128: junk, which must not become a token.
  if not (number > 0 and number < 5000000000000000) then return 0 end
  return math.floor(number)
end

local function members(key)
  return of_type('SMEMBERS', key) or {}
end
"""

_WRITING = """
local news, planned, drawn = {}, {}, nil

local function plan(...)
  planned[#planned + 1] = {...}
end

local function tell(name)
  news[#news + 1] = {'PUBLISH', prefix .. 'changes', name}
end

local function check(...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(...) then
    local command, key = ...
    error({err = 'NOPERM the user has not the right to ' .. command .. ' ' .. key .. ': nothing was changed'})
  end
end

-- Last, and once. What is told is heard when the script is over.
local function write()
  if drawn then plan('SET', prefix .. 'index', string.format('%.0f', drawn)) end
  for _, command in ipairs(news) do check(unpack(command)) end
  for _, command in ipairs(planned) do
    check(unpack(command))
    if command[1] == 'SADD' then check('DEL', command[2]) end
  end
  for _, command in ipairs(news) do redis.call(unpack(command)) end
  for _, command in ipairs(planned) do
    if of_type(unpack(command)) == nil and command[1] == 'SADD' then
      redis.call('DEL', command[2])
      redis.call(unpack(command))
    end
  end
end

local function next_index()
  local time = redis.call('TIME')
  drawn = math.max((drawn or present_index()) + 1, time[1] * 1000000 + time[2])
  return string.format('%.0f', drawn)
end

local function put(name, lease, record, index)
  plan('SET', prefix .. name, lease .. ' ' .. index .. ' ' .. record)
  plan('SADD', prefix .. 'names', name)
  plan('SADD', prefix .. 'held/' .. lease, name)
  tell(name)
end

local function remove(key, name)
  plan('SREM', key, name)
end

local function delete(name)
  plan('DEL', prefix .. name)
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
  plan('DEL', prefix .. 'held/' .. lease, prefix .. 'lease/' .. lease)
  remove(prefix .. 'leases', lease)
end
"""


@dataclass(frozen=True)
class Script:
    """`name` is what error texts call it. `writes`: the body ends with `write()`, or may."""

    name: str
    body: str
    writes: bool = False
    text: bytes = field(init=False, repr=False)
    sha: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        common = _COMMON.replace("{OTHER}", OTHER).replace("{SHOWN}", str(SHOWN))
        text = (common + (_WRITING if self.writes else "") + self.body).encode()
        object.__setattr__(self, "text", text)
        # By which the server knows it.
        object.__setattr__(self, "sha", hashlib.sha1(text, usedforsecurity=False).hexdigest())
