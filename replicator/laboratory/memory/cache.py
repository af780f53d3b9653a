"""A cache beside a replica in memory, and its readers.

Invariant: an entry is the very bytes that Redis holds (`V:version|payload`, `T:version`, `L:token`), and `acted`,
`leased` and `filled` are the three scripts of the cache protocol as pure functions of one entry.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import assert_never

from replicator.domain.cache_keys import CacheAction, Invalidate, Publish, Refill, Refresh
from replicator.domain.cache_restores import CacheServer, CacheServers
from replicator.domain.errors import ReplicatorError
from replicator.domain.values import replace
from replicator.laboratory.memory.faults import Faults
from replicator.ports.targets import ENTRY_HEAD, CacheAnswer, CacheFill

_MARK_WIDTH = 2
_LEASE, _MARKER, _VALUE = b"L:", b"T:", b"V:"


def value_entry(version: str, payload: bytes) -> bytes:
    """The entry of an item that exists."""
    return _VALUE + version.encode() + b"|" + payload


def acted(entry: bytes | None, action: CacheAction) -> bytes | None:
    """The daemon's part: what an entry becomes by an action."""
    match action:
        case Invalidate():
            return None
        case Refresh():
            return _refreshed(entry, action)
        case Refill():
            return None
        case Publish():
            return entry
        case _:
            assert_never(action)


def _refreshed(entry: bytes | None, action: Refresh) -> bytes | None:
    """Absent stays absent; a lease, or what another program wrote, is dropped; an older entry is replaced."""
    version = action.version.encode()
    if entry is None or not _ours(entry, _MARK_WIDTH + len(version)):
        return None
    if entry[_MARK_WIDTH : _MARK_WIDTH + len(version)] >= version:
        return entry
    return value_entry(action.version, action.payload) if action.payload else _MARKER + version


def _ours(entry: bytes, width: int) -> bool:
    """Whether an entry is a value or a marker whose version is as long as ours."""
    kind, mark = entry[:_MARK_WIDTH], entry[width : width + 1]
    return len(entry) >= width and ((kind == _VALUE and mark == b"|") or (kind == _MARKER and not mark))


def leased(entry: bytes | None, token: str) -> tuple[bytes, bool]:
    """A reader looks an entry up: the entry, and whether the reader now holds the lease to fill it."""
    return (_LEASE + token.encode(), True) if entry is None else (entry, False)


def filled(entry: bytes | None, token: str, value: bytes) -> bytes | None:
    """A reader fills behind its miss: only while its own lease is still there."""
    return value if entry == _LEASE + token.encode() else entry


class MemoryCache:
    """One cache; entries live until they are invalidated or evicted."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.entries: dict[str, bytes] = {}
        self.lives_ms: dict[str, int] = {}
        """How long an entry that a refresh wrote may live."""
        self.full = False
        """Whether there is no room: what a refresh would store is dropped."""
        self.says: CacheServer | None = None
        """What the server says of itself."""
        self.told: list[Publish] = []
        """What was published."""
        self._leases = itertools.count(1)
        self.refusals: dict[str, ReplicatorError] = {}
        """Keys that may not be touched, and why."""

    async def apply(self, actions: Sequence[CacheAction]) -> CacheAnswer:
        """Carry the actions out; what drops entries goes first."""
        async with self.faults.around("cache"):
            refused = {action.key: self.refusals[action.key] for action in actions if action.key in self.refusals}
            changed, unstored, leased = 0, set(), {}
            for action in sorted(actions, key=lambda action: isinstance(action, Refresh)):
                if action.key in refused:
                    continue
                before = self.entries.get(action.key)
                after = acted(before, action)
                if isinstance(action, Publish):
                    self.told.append(action)
                    changed += 1
                    continue
                fills = isinstance(action, Refill) and (action.through or before is not None)
                fills = fills or (before is None and isinstance(action, Refresh) and action.through)
                if fills and not self.full:
                    leased[action.key] = f"through.{next(self._leases)}"
                    after = _LEASE + leased[action.key].encode()
                if after != before and after is not None and self.full:
                    unstored.add(action.key)
                    after = None
                self._store(action.key, after)
                if after not in {before, None} and isinstance(action, Refresh) and action.key not in leased:
                    self.lives_ms[action.key] = action.ttl_ms
                changed += after != before
            return CacheAnswer(changed, frozenset(unstored), refused, leased)

    async def fill(self, fills: Sequence[CacheFill]) -> int:
        """Store entries whose leases still stand."""
        async with self.faults.around("cache"):
            stored = 0
            for fill in fills:
                if self.entries.get(fill.key) == _LEASE + fill.lease.encode():
                    self._store(fill.key, fill.entry)
                    self.lives_ms[fill.key] = fill.ttl_ms
                    stored += 1
            return stored

    async def get(self, key: str) -> bytes | None:
        """An entry as it is."""
        async with self.faults.around("cache"):
            return self.entries.get(key)

    async def heads(self, keys: Sequence[str]) -> list[bytes]:
        """The first bytes of entries."""
        async with self.faults.around("cache"):
            return [self.entries.get(key, b"")[:ENTRY_HEAD] for key in keys]

    async def servers(self) -> CacheServers | None:
        """What the server says of itself, if it does."""
        async with self.faults.around("cache"):
            says = self.says
            return None if says is None else CacheServers((replace(says, entries=len(self.entries)),))

    async def flush(self, patterns: Sequence[str] | None) -> int:
        """Drop every entry whose key matches a pattern, or everything."""
        async with self.faults.around("cache"):
            found = [key for key in self.entries if patterns is None or any(map(partial(fnmatchcase, key), patterns))]
            for key in found:
                self._store(key, None)
            return len(found)

    def evict(self, key: str) -> None:
        """Drop an entry, as memory pressure or its expiry would."""
        self._store(key, None)

    def _store(self, key: str, entry: bytes | None) -> None:
        if entry is None:
            self.entries.pop(key, None)
            self.lives_ms.pop(key, None)
        else:
            self.entries[key] = entry
