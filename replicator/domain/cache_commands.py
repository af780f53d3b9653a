"""The commands that the user of a cache needs, as Redis and Valkey name them in access lists. No calls.

Invariant: each is used by a daemon that acts on such a cache, or by `check`, and nothing else is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from msgspec import Struct

_STORES = ("unlink", "get", "set", "eval", "evalsha")
_BY_ACTION = {
    "invalidate": ("unlink",),
    "refresh": _STORES,
    "write_through": (*_STORES, "time"),
}


class CacheUse(Struct, frozen=True):
    """How a cache is used: by which actions on entries, over which keys, and by which of its ways.

    `channels`, `streams`: where changes are published.
    """

    actions: Collection[str]
    patterns: Collection[str]
    channels: Collection[str] = ()
    streams: Collection[str] = ()
    scans: bool = False
    """Whether a flush looks for entries."""
    drops_database: bool = False
    """Whether a flush drops the whole database."""
    stores_hashes: bool = False
    """Whether entries that are stored are hashes."""
    refills: bool = False
    """Whether entries are stored in a mesh."""
    reads_again: bool = False
    holds_events: bool = False
    database: int = 0
    is_cluster: bool = False
    is_named: bool = False
    """Whether connections have a name."""
    is_pinged: bool = False
    """Whether idle connections are tried."""

    @property
    def commands(self) -> tuple[str, ...]:
        """The names of the commands."""
        needed: list[str] = ["info"]
        needed += [command for action in self.actions for command in _BY_ACTION[action]]
        for is_used, commands in (
            (self.channels, ("eval", "evalsha", "publish")),
            (self.streams, ("eval", "evalsha", "xadd")),
            (self.stores_hashes, ("type", "hget", "hset", "pexpire")),
            (self.refills, ("exists", "time")),
            (self.reads_again, ("getrange",)),
            (self.scans, ("scan", "unlink")),
            (self.drops_database, ("flushdb",)),
            (self.holds_events, ("xadd", "type")),
            (self.database, ("select",)),
            (self.is_cluster, ("asking", "cluster|slots", "cluster|info")),
            (self.is_named, ("client|setname",)),
            (self.is_pinged, ("ping",)),
        ):
            needed += commands if is_used else ()
        return tuple(dict.fromkeys(needed))

    def acl(self, username: str) -> str:
        """The command that makes such a user."""
        return " ".join(("ACL SETUSER", username, "reset on >PASSWORD", *self._rights()))

    def _rights(self) -> Iterable[str]:
        yield from (f"~{pattern}" for pattern in dict.fromkeys((*self.patterns, *map(_literal, self.streams))))
        yield from (f"&{channel}" for channel in dict.fromkeys(map(_literal, self.channels)))
        yield from (f"+{command}" for command in self.commands)


def _literal(name: str) -> str:
    """A name as a pattern."""
    return re.sub(r"([*?\[\]^\\])", r"\\\1", name)
