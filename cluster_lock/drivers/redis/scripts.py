"""What the server runs for the verbs that change something, a Lua script for each: each is atomic, and reads the
server's clock only for tokens. `script` says what stands where."""

from __future__ import annotations

from .script import Script

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
plan('SET', prefix .. 'lease/' .. id, ttl .. ' ' .. holder, 'PX', ttl)
plan('SADD', prefix .. 'leases', id)
write()
return 1
""",
    writes=True,
)

RENEW = Script("renew", "return redis.call('PEXPIRE', prefix .. 'lease/' .. ARGV[2], ARGV[3])")

PRIMARY_FOR = Script(
    "see for how long it is the primary",
    """
local who, now = ARGV[2], tonumber(redis.call('TIME')[1])
local value = of_type('GET', prefix .. 'primary')
local known, since = string.match(value or '', '^(%S+) (%d+)$')
-- Both are whole seconds.
if known == who and tonumber(since) <= now then return math.max(0, now - tonumber(since) - 1) end
plan('SET', prefix .. 'primary', who .. ' ' .. now)
write()
return 0
""",
    writes=True,
)

REVOKE = Script("revoke a lease", "forget(ARGV[2]) write() return 1", writes=True)

ACQUIRE = Script(
    "acquire",
    """
local lease, name, record = ARGV[2], ARGV[3], ARGV[4]
if not alive(lease) then return {'gone'} end
local stands = standing(name)
if stands and not stands.lease then return {'foreign'} end
if stands and stands.lease == lease then
  local before = of_type('GET', lasting('before/', name))
  return {'held', stands.index, stands.record, before or false}
end
if stands and alive(stands.lease) then return {'taken'} end
local word = last_word(name)
if not word and stands then word = stands.record end
if stands then remove(prefix .. 'held/' .. stands.lease, name) end
local index = next_index()
put(name, lease, record, index)
plan('SET', lasting('last/', name), index .. ' ' .. record)
plan('DEL', lasting('before/', name))
if word then plan('SET', lasting('before/', name), word) end
write()
return {'granted', index, record, word}
""",
    writes=True,
)

RELEASE = Script(
    "release",
    """
local lease, index, name, farewell = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local stands = standing(name)
if not stands or stands.lease ~= lease or stands.index ~= index or not alive(lease) then return 0 end
plan('SET', lasting('last/', name), next_index() .. ' ' .. farewell)
plan('DEL', lasting('before/', name))
delete(name)
remove(prefix .. 'held/' .. lease, name)
write()
return 1
""",
    writes=True,
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
plan('SET', lasting('last/', name), new .. ' ' .. record)
plan('SET', lasting('before/', name), stands.record)
write()
return 1
""",
    writes=True,
)

ANNOUNCE = Script(
    "announce",
    """
local lease, name, record = ARGV[2], ARGV[3], ARGV[4]
if not alive(lease) then return 0 end
local stands = standing(name)
if stands and stands.lease and stands.lease ~= lease then remove(prefix .. 'held/' .. stands.lease, name) end
put(name, lease, record, next_index())
write()
return 1
""",
    writes=True,
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
write()
return 1
""",
    writes=True,
)

MARK = Script(
    "ask the replicas",
    """
-- WAIT waits for what its own connection wrote, of which a reading has nothing. This reaches the replicas, and changes
-- nothing.
tell('')
write()
return 1
""",
    writes=True,
)
