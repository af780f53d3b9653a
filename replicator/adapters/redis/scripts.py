"""What runs inside the server.

Invariant: no error of one key ends a script, so none keeps the other keys back; and a script that answers has proven
that its server takes writes, even when there was nothing to write: a server that was demoted without knowing the entry
must not count as done.
"""

from __future__ import annotations

from hashlib import sha1

_ACT = """
local changed, unstored, refused = 0, {}, {}
local first, leased = false, {}
local function failed(answer) return type(answer) == 'table' and answer.err end
--read
for i, key in ipairs(KEYS) do
  local version, payload, life = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
  local entry = look(key)
  local trouble = failed(entry)
  if trouble and trouble:find('WRONGTYPE', 1, true) then entry, trouble = '', false end
  if i == 1 then first = entry end
  --absent
  if entry and not trouble then
    local kind, mark = entry:sub(1, 2), entry:sub(3 + #version, 3 + #version)
    local ours = #entry >= 2 + #version and (kind == 'V:' and mark == '|' or kind == 'T:' and mark == '')
    local answer = false
    if not ours then
      answer = redis.pcall('UNLINK', key)
      trouble = failed(answer)
    elseif entry:sub(3, 2 + #version) < version then
      if payload == '' then answer = redis.pcall('SET', key, 'T:' .. version, 'PX', life)
      else answer = store(key, version, payload, life) end
      trouble = failed(answer)
      if trouble then
        answer = redis.pcall('UNLINK', key)
        if trouble:find('OOM', 1, true) then
          trouble = failed(answer)
          if not trouble then unstored[#unstored + 1] = i end
        end
      end
    end
    if answer and not failed(answer) then changed = changed + 1 end
  end
  if trouble then
    refused[#refused + 1] = i
    refused[#refused + 1] = trouble
  end
end
if changed == 0 then
  local proof = redis.pcall('SET', KEYS[1], '', first and 'NX' or 'XX')
  local trouble = failed(proof)
  if trouble and not trouble:find('OOM', 1, true) then return proof end
end
return {changed, unstored, refused, leased}
"""
"""For every key: absent -> nothing, lease or foreign entry -> dropped, older entry -> the value or the marker.

An entry whose version is not as long as ours is a foreign one: the two could not be compared. What cannot be stored is
dropped instead. Answers with the number of changed entries, the places of those that were dropped for want of memory,
a place and an error, in turns, of those that could not be touched, and a place and a lease of those that were absent
and are to be filled. The last `SET` sets nothing, for its condition never holds; the server looks at its own role
before it looks at the condition.
"""

_STRINGS = """
local function look(key) return redis.pcall('GET', key) end
local function store(key, version, payload, life)
  return redis.pcall('SET', key, 'V:' .. version .. '|' .. payload, 'PX', life)
end
"""
_STORED = """
local function stored(key, version, payload, life)
  local fields = cjson.decode(payload)
  local answer = redis.pcall('UNLINK', key)
  if type(answer) == 'table' and answer.err then return answer end
  answer = redis.pcall('HSET', key, '', version)
  for first = 1, #fields, 1000 do
    if type(answer) == 'table' and answer.err then return answer end
    answer = redis.pcall('HSET', key, unpack(fields, first, math.min(first + 999, #fields)))
  end
  if type(answer) == 'table' and answer.err then return answer end
  return redis.pcall('PEXPIRE', key, life)
end
"""
_HASHES = f"""{_STORED}
local store = stored
local function look(key)
  if redis.call('TYPE', key).ok ~= 'hash' then
    local entry = redis.pcall('GET', key)
    if type(entry) == 'string' and entry:sub(1, 2) == 'V:' then return '' end
    return entry
  end
  local version = redis.pcall('HGET', key, '')
  if type(version) == 'string' then return 'V:' .. version .. '|' end
  return version or ''
end
"""
"""A value is a hash with the version in the field without a name, which no attribute has; all else is a string."""

APPLY = _ACT.replace("  --absent\n", "").replace("--read\n", _STRINGS.lstrip())
_THROUGH = _ACT.replace(
    "--absent",
    """if not entry then
    local now = redis.call('TIME')
    local lease = ARGV[3 * #KEYS + 1] .. '.' .. now[1] .. '.' .. now[2] .. '.' .. i
    local answer = redis.pcall('SET', key, 'L:' .. lease, 'PX', ARGV[3 * #KEYS + 2])
    trouble = failed(answer)
    if trouble and trouble:find('OOM', 1, true) then trouble = false
    elseif not trouble then
      leased[#leased + 1] = i
      leased[#leased + 1] = lease
      changed = changed + 1
    end
  end""",
)
THROUGH = _THROUGH.replace("--read\n", _STRINGS.lstrip())
"""The same, but of an absent entry the lease is taken (`token` and its life in ms follow), if there is room for it."""

APPLY_HASH = _ACT.replace("  --absent\n", "").replace("--read\n", _HASHES.lstrip())
THROUGH_HASH = _THROUGH.replace("--read\n", _HASHES.lstrip())

REFILL = """
local changed, refused, leased = 0, {}, {}
local now = redis.call('TIME')
for i, key in ipairs(KEYS) do
  local found = redis.pcall('EXISTS', key)
  local trouble = type(found) == 'table' and found.err
  if not trouble and (found == 1 or ARGV[3] == '1') then
    local lease = ARGV[1] .. '.' .. now[1] .. '.' .. now[2] .. '.' .. i
    local answer = redis.pcall('SET', key, 'L:' .. lease, 'PX', ARGV[2])
    trouble = type(answer) == 'table' and answer.err
    if not trouble then
      leased[#leased + 1] = i
      leased[#leased + 1] = lease
      changed = changed + 1
    elseif trouble:find('OOM', 1, true) then
      answer = redis.pcall('UNLINK', key)
      trouble = type(answer) == 'table' and answer.err
    end
  end
  if trouble then
    refused[#refused + 1] = i
    refused[#refused + 1] = trouble
  end
end
if changed == 0 then
  local proof = redis.pcall('SET', KEYS[1], '', redis.call('EXISTS', KEYS[1]) == 1 and 'NX' or 'XX')
  if type(proof) == 'table' and proof.err and not proof.err:find('OOM', 1, true) then return proof end
end
return {changed, {}, refused, leased}
"""
"""`REFILL key... token lease_ms through`: every entry becomes a lease, an absent one when `through` is 1.

Answers as the others do, and proves that its server takes writes as they do.
"""

FILL = """
if redis.call('GET', KEYS[1]) ~= 'L:' .. ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
"""`FILL key lease entry life_ms`: store the entry if the lease still stands, as readers do."""

FILL_HASH = f"""{_STORED.lstrip()}
if redis.call('TYPE', KEYS[1]).ok ~= 'string' or redis.call('GET', KEYS[1]) ~= 'L:' .. ARGV[1] then return 0 end
local bar = ARGV[2]:find('|', 1, true)
if not bar then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 1
end
local answer = stored(KEYS[1], ARGV[2]:sub(3, bar - 1), ARGV[2]:sub(bar + 1), ARGV[3])
if type(answer) == 'table' and answer.err then
  redis.call('UNLINK', KEYS[1])
  return 0
end
return 1
"""
"""The same of an entry that is a hash; a marker is a string."""

TELL = """
if ARGV[2] == '0' then
  local role = redis.pcall('INFO', 'replication')
  if type(role) == 'string' and role:find('role:slave', 1, true) then
    return redis.error_reply('READONLY what is published here does not reach the listeners of the primary')
  end
end
local told, refused = 0, {}
for i = 3, #ARGV do
  local answer
  if ARGV[2] == '0' then answer = redis.pcall('PUBLISH', ARGV[1], ARGV[i])
  else answer = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'message', ARGV[i]) end
  if type(answer) == 'table' and answer.err then
    refused[#refused + 1] = i - 2
    refused[#refused + 1] = answer.err
  else told = told + 1 end
end
return {told, {}, refused, {}}
"""
"""`TELL stream name most message...`: add messages to the stream, or publish them on the channel when `most` is 0.

Answers as the others do. A replica takes messages for its own listeners alone, so it is asked what it is.
"""

NOTHING = "return 0"
"""Proves that scripts on its key are permitted."""


def digest(script: str) -> str:
    """The name by which a server knows a script that it ran before."""
    return sha1(script.encode(), usedforsecurity=False).hexdigest()
