"""Whether a cache may hold older entries than before, as what its server says of itself shows. No calls.

A server that took over from another one lacks what had not reached it; one that was started again holds what it saved
last, however long ago that was. Invariant: what cannot be known counts as old.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class OnRestore(enum.Enum):
    """What is done when a cache may have gone back."""

    FLUSH = "flush"  # all entries of the rules are dropped
    DEBT = "debt"  # what was dropped or refreshed lately is dropped again; all entries, when that is not enough
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class CacheServer:
    """What a server says of itself. `logs`: it keeps a log of every write, and so lost a second at most."""

    run_id: str
    uptime_seconds: float
    entries: int
    logs: bool


class Again(enum.Enum):
    """What has to be done again."""

    NOTHING = "nothing"
    RECENT = "recent"
    ALL = "all"


def again(policy: OnRestore, before: str | None, now: CacheServer, unseen_seconds: float, *, remembered: bool) -> Again:
    """What has to be done again at a server; `before`: the run id that was seen last, `unseen_seconds` ago.

    `remembered`: whether every action of the policy's window is.
    """
    if before in {None, now.run_id} or policy is OnRestore.IGNORE or not now.entries:
        return Again.NOTHING
    took_over = now.uptime_seconds > unseen_seconds
    if policy is OnRestore.DEBT and remembered and (took_over or now.logs):
        return Again.RECENT
    return Again.ALL
