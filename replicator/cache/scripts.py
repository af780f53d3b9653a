"""The scripts of a reader, of one key each, or of one and the keys of its tags.

Invariant: nothing is stored but by the holder of the lease that stands in the entry, and whatever the daemon does to an
entry ends its lease. Each run of LOOK gives another lease, by the server's clock: a LOOK that was sent twice, and runs
a second time when the table was read already, does not bring back the lease that the daemon ended. A lease that renews
an entry carries the entry behind a `|`, so other readers go on with it; the daemon drops both at once.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final

LOOK: Final = """
local now = redis.call('TIME')
local lease = ARGV[1] .. '.' .. now[1] .. '.' .. now[2]
local entry = redis.call('GET', KEYS[1])
if not entry or entry:sub(1, 3 + #ARGV[1]) == 'L:' .. ARGV[1] .. '.' and not entry:find('|', 1, true) then
  redis.call('SET', KEYS[1], 'L:' .. lease, 'PX', ARGV[2])
  return {'lease', '', lease}
end
local kind = entry:sub(1, 2)
if kind == 'V:' then
  local life = redis.call('PTTL', KEYS[1])
  if life >= 0 and life < tonumber(ARGV[3]) then
    redis.call('SET', KEYS[1], 'L:' .. lease .. '|' .. entry, 'KEEPTTL')
    return {'renew', entry, lease}
  end
  return {'hit', entry}
end
if kind == 'T:' then return {'absent'} end
if kind ~= 'L:' then return {'foreign'} end
local bar = entry:find('|', 1, true)
if bar then return {'hit', entry:sub(bar + 1)} end
return {'wait'}
"""
"""`LOOK key token lease_ms early_ms`: what the entry is, the entry, and the lease that the caller was given.

`early_ms` above the life that is left turns a value into a lease that carries it; 0 never does.
"""

LOOK_TAGGED: Final = """
local now = redis.call('TIME')
local stamp = '.' .. now[1] .. '.' .. now[2]
local tags = {}
for place = 2, #KEYS do
  local epoch = redis.call('GET', KEYS[place])
  if not epoch then
    epoch = ARGV[1] .. stamp
    redis.call('SET', KEYS[place], epoch, 'PX', ARGV[3])
  elseif redis.call('PTTL', KEYS[place]) < tonumber(ARGV[3]) then
    redis.call('PEXPIRE', KEYS[place], ARGV[3])
  end
  tags[#tags + 1] = epoch
end
local current = 'G:' .. table.concat(tags, ',') .. '|'
local entry = redis.call('GET', KEYS[1])
if entry then
  if entry:sub(1, #current) == current then return {'hit', entry:sub(#current)} end
  local kind = entry:sub(1, 2)
  if kind == 'L:' and entry:sub(1, 3 + #ARGV[1]) ~= 'L:' .. ARGV[1] .. '.' then return {'wait'} end
  if kind ~= 'L:' and kind ~= 'G:' then return {'foreign'} end
end
redis.call('SET', KEYS[1], 'L:' .. ARGV[1] .. stamp, 'PX', ARGV[2])
return {'lease', current, ARGV[1] .. stamp}
"""
"""`LOOK_TAGGED key tag... token lease_ms tag_ms`: the same for an entry under tags.

A tag's key holds an epoch, which is another one whenever it was dropped. An entry is a hit while it was filled under
the epochs that stand now. A lease comes with those of this moment, which is before the table is read: a tag that is
dropped meanwhile makes the fill a miss by itself. A tag lives as long as an entry, from the last look on; without it
all entries under it are misses.
"""

FILL: Final = """
local entry = redis.call('GET', KEYS[1])
local lease = 'L:' .. ARGV[1]
if entry ~= lease and (not entry or entry:sub(1, #lease + 1) ~= lease .. '|') then return 0 end
if ARGV[2] == '' then redis.call('UNLINK', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
"""
"""`FILL key lease entry life_ms`: 1 when the lease still stood and the entry is stored; an empty entry returns it."""

LOOK_HASH: Final = """
local kind = redis.call('TYPE', KEYS[1]).ok
local now = redis.call('TIME')
local lease = ARGV[1] .. '.' .. now[1] .. '.' .. now[2]
if kind == 'hash' then
  local fields = redis.call('HGETALL', KEYS[1])
  local version, kept = false, {}
  for place = 1, #fields, 2 do
    if fields[place] == '' then version = fields[place + 1]
    else
      kept[#kept + 1] = fields[place]
      kept[#kept + 1] = fields[place + 1]
    end
  end
  if not version then return {'foreign'} end
  return {'hit', 'V:' .. version .. '|' .. (#kept > 0 and cjson.encode(kept) or '[]')}
end
if kind ~= 'string' and kind ~= 'none' then return {'foreign'} end
local entry = redis.call('GET', KEYS[1])
if not entry or entry:sub(1, 3 + #ARGV[1]) == 'L:' .. ARGV[1] .. '.' then
  redis.call('SET', KEYS[1], 'L:' .. lease, 'PX', ARGV[2])
  return {'lease', '', lease}
end
if entry:sub(1, 2) == 'T:' then return {'absent'} end
if entry:sub(1, 2) == 'L:' then return {'wait'} end
return {'foreign'}
"""
"""`LOOK_HASH key token lease_ms early_ms`: LOOK of an entry that is a hash, given as names and texts in turns."""

FILL_HASH: Final = """
if redis.call('TYPE', KEYS[1]).ok ~= 'string' or redis.call('GET', KEYS[1]) ~= 'L:' .. ARGV[1] then return 0 end
local bar = ARGV[2]:find('|', 1, true)
if ARGV[2] == '' then redis.call('UNLINK', KEYS[1])
elseif not bar then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
else
  local fields = cjson.decode(ARGV[2]:sub(bar + 1))
  redis.call('UNLINK', KEYS[1])
  redis.call('HSET', KEYS[1], '', ARGV[2]:sub(3, bar - 1))
  for first = 1, #fields, 1000 do
    redis.call('HSET', KEYS[1], unpack(fields, first, math.min(first + 999, #fields)))
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 1
"""
"""FILL of such an entry: the version in the field without a name, and a field for each attribute."""

SCRIPTS: Final = {
    script: sha1(script.encode(), usedforsecurity=False).hexdigest()
    for script in (LOOK, LOOK_TAGGED, LOOK_HASH, FILL, FILL_HASH)
}
"""The name by which a server knows a script that it ran before."""
