"""Whether a cache may hold older entries than before, as what its server says of itself shows. No calls.

A server that took over from another one lacks what had not reached it; one that was started again holds what it saved
last, however long ago that was. Invariant: what cannot be known counts as old.
"""

from __future__ import annotations

import enum

from msgspec import Struct


class OnRestore(enum.Enum):
    """What is done when a cache may have gone back."""

    FLUSH = "flush"  # all entries of the rules are dropped
    DEBT = "debt"  # what was dropped or refreshed lately is dropped again; all entries, when that is not enough
    IGNORE = "ignore"


class CacheServer(Struct, frozen=True):
    """What a server says of itself. `logs`: it keeps a log of every write, and so lost a second at most."""

    run_id: str
    uptime_seconds: float
    entries: int
    logs: bool


class CacheServers(Struct, frozen=True):
    """What the servers of a cache say: its one, or the primaries of a cluster. `silent`: how many of these do not."""

    said: tuple[CacheServer, ...]
    silent: int = 0

    def known(self, before: str | None) -> str:
        """Their run ids as they are noted; those that may be the ids of silent ones stay known."""
        ids = {server.run_id for server in self.said}
        return ",".join(sorted(ids | set((before or "").split(",")) - {""} if self.silent else ids))


class Again(enum.Enum):
    """What has to be done again; the later one is the more."""

    NOTHING = "nothing"
    RECENT = "recent"
    ALL = "all"


_AGAIN = list(Again)


def again(
    policy: OnRestore, before: str | None, now: CacheServers, unseen_seconds: float, *, remembered: bool
) -> Again:
    """What has to be done again; `before`: the run ids that were known `unseen_seconds` ago.

    `remembered`: whether every action of the policy's window is.
    """
    if before is None or policy is OnRestore.IGNORE:
        return Again.NOTHING
    known = before.split(",")
    others = [server for server in now.said if server.run_id not in known and server.entries]
    found = [_of(policy, server, unseen_seconds, remembered) for server in others]
    return max(found, default=Again.NOTHING, key=_AGAIN.index)


def _of(policy: OnRestore, server: CacheServer, unseen_seconds: float, remembered: bool) -> Again:  # noqa: FBT001
    """The same of one server that was not known."""
    took_over = server.uptime_seconds > unseen_seconds
    if policy is OnRestore.DEBT and remembered and (took_over or server.logs):
        return Again.RECENT
    return Again.ALL
