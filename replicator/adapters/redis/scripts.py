"""What runs inside the server.

Invariant: no error of one key ends a script, so none keeps the other keys back; and a script that answers has proven
that its server takes writes, even when there was nothing to write: a server that was demoted without knowing the entry
must not count as done.
"""

from __future__ import annotations

from hashlib import sha1

APPLY = """
local changed, unstored, refused = 0, {}, {}
local first = false
local function failed(answer) return type(answer) == 'table' and answer.err end
for i, key in ipairs(KEYS) do
  local version, payload, life = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
  local entry = redis.pcall('GET', key)
  local trouble = failed(entry)
  if trouble and trouble:find('WRONGTYPE', 1, true) then entry, trouble = '', false end
  if i == 1 then first = entry end
  if entry and not trouble then
    local kind, mark = entry:sub(1, 2), entry:sub(3 + #version, 3 + #version)
    local ours = #entry >= 2 + #version and (kind == 'V:' and mark == '|' or kind == 'T:' and mark == '')
    local answer = false
    if not ours then
      answer = redis.pcall('UNLINK', key)
      trouble = failed(answer)
    elseif entry:sub(3, 2 + #version) < version then
      local fresh = 'T:' .. version
      if payload ~= '' then fresh = 'V:' .. version .. '|' .. payload end
      answer = redis.pcall('SET', key, fresh, 'PX', life)
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
return {changed, unstored, refused}
"""
"""For every key: absent -> nothing, lease or foreign entry -> dropped, older entry -> the value or the marker.

An entry whose version is not as long as ours is a foreign one: the two could not be compared. What cannot be stored is
dropped instead. Answers with the number of changed entries, the places of those that were dropped for want of memory,
and a place and an error, in turns, of those that could not be touched. The last `SET` sets nothing, for its condition
never holds; the server looks at its own role before it looks at the condition.
"""

NOTHING = "return 0"
"""Proves that scripts on its key are permitted."""


def digest(script: str) -> str:
    """The name by which a server knows a script that it ran before."""
    return sha1(script.encode(), usedforsecurity=False).hexdigest()
