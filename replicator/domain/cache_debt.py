"""What a cache is owed: entries whose action could not be carried out, and what is done when there are too many.

Every debt is settled by dropping the entry, whatever the action was: a reader then fills it from the table, which held
the change before the debt was noted. So the order of debts, and of debts and newer actions, does not matter: a newer
entry that is dropped costs a reader one miss. Invariant: a row is there before the record counts as done that asked for
it, and is taken away only as it was read before its entry was dropped (`token`).
"""

from __future__ import annotations

import enum
from hashlib import sha256

from msgspec import Struct

from replicator.domain.cache_restores import OnRestore
from replicator.domain.errors import ReplicatorError, Unreachable
from replicator.domain.values import replace


class OnFull(enum.Enum):
    """What becomes of an action when a cache is owed as many entries as are kept."""

    FLUSH = "flush"  # all entries of the rules are dropped when it is back
    WAIT = "wait"  # the target waits for the cache
    IGNORE = "ignore"  # the entry stays stale until it expires or its item changes again, and is counted


class DebtPolicy(Struct, frozen=True):
    """How much is kept, and what is done beyond.

    `patterns`: globs that all entries of the rules match; None: the whole database is ours.
    """

    max_keys: int = 100_000
    on_full: OnFull = OnFull.FLUSH
    patterns: tuple[str, ...] | None = None
    on_restore: OnRestore = OnRestore.DEBT
    restore_window: float = 600.0
    """Seconds for which actions are remembered, to be done again when the cache may have gone back."""
    may_flush: bool = True
    """Whether the patterns match nothing but entries of the rules."""

    def along(self, other: DebtPolicy) -> DebtPolicy:
        """The same with the patterns of other rules, too."""
        if self.patterns is None or other.patterns is None or set(other.patterns) <= set(self.patterns):
            return self
        may_flush = self.may_flush and other.may_flush
        on_full = OnFull.WAIT if self.on_full is OnFull.FLUSH and not may_flush else self.on_full
        patterns = tuple(dict.fromkeys((*self.patterns, *other.patterns)))
        return replace(self, patterns=patterns, may_flush=may_flush, on_full=on_full)


class OwedEntry(Struct, frozen=True):
    """An entry that is to be dropped. `token`: another one each time it becomes owed; `since`: seconds since 1970.

    `due`: when it may be dropped, for a change that is under way may come until then; 0: at once. Such a debt stands by
    itself, whatever else is owed of the entry.
    """

    key: str
    token: str
    since: float
    due: float = 0.0

    @property
    def name(self) -> str:
        """What distinguishes it from other debts of the cache."""
        return f"{self.token}|{self.key}" if self.due else self.key

    @property
    def row_id(self) -> str:
        """64 hexadecimal digits, the same for every debt of this entry that is due at once."""
        return sha256(self.name.encode()).hexdigest()


class SeenServer(Struct, frozen=True):
    """The run ids of the servers of a cache that were seen last, and when (seconds since 1970)."""

    run_id: str
    at: float


class OwedFlush(Struct, frozen=True):
    """All entries are to be dropped, because more were owed than are kept; `token` and `since` as in `OwedEntry`."""

    token: str
    since: float


class DebtUnstored(Unreachable):
    """A cache did not carry an action out, and that could not be noted."""

    advice = "Restore the cache or the table of the backlog; no restart is needed."


class DebtFull(Unreachable):
    """A cache is owed as many entries as are kept."""

    advice = "Restore the cache, raise its debt.max_keys, or set debt.policy to flush; it continues by itself."


class PartAway(Unreachable):
    """A node of a cache does not answer, and others did their part."""


def unstored(error: ReplicatorError, why: ReplicatorError) -> DebtUnstored:
    """An action was not carried out (`error`), and the owed table did not take it (`why`)."""
    return DebtUnstored(f"{error.message} Its backlog cannot be stored either: {why.message}", advice=why.advice)


def full(cache: str, keys: int, error: ReplicatorError) -> DebtFull:
    """A cache that is owed all that is kept; `error`: why it does not answer."""
    return DebtFull(f"Cache {cache} is owed {keys} entries, the most that is kept. {error.message}")
