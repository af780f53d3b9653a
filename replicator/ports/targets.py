"""Ports to what a change is applied to: regions, caches and the conflict log, under a fence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

from msgspec import Struct, field

from replicator.domain.cache_keys import CacheAction
from replicator.domain.conflicts import ConflictEntry
from replicator.domain.errors import ReplicatorError
from replicator.domain.identifiers import RuleName
from replicator.domain.item_events import EventShape, ItemEvent
from replicator.domain.modes.requests import GuardedPut, Put, Request, Response
from replicator.domain.rules import Rule, Target

ENTRY_HEAD = 192
"""Bytes of a cache entry that hold its kind and the version of every mode."""


class Fence(Protocol):
    """Is checked before every send."""

    def check(self) -> None:
        """Raise `LeaseLost` when the lease's deadline has passed; suspended time counts."""


class OpenFence:
    """A fence that never falls, for whatever holds no lease: operators, and reads."""

    def check(self) -> None:
        """Let every send pass."""


OPEN = OpenFence()


class Region(Protocol):
    """One region's table and its side rows."""

    async def execute(self, request: Request, fence: Fence) -> Response:
        """Carry a request out; the fence is checked right before the send."""


Following = Callable[[], Put | GuardedPut | None]
"""The write that goes out behind one that took effect; None: none does."""


@runtime_checkable
class Chains(Protocol):
    """A region that writes one item after the other, which costs less than each by itself."""

    async def execute_chain(self, first: Put | GuardedPut, fence: Fence, following: Following) -> Response:
        """Carry a write out, and behind each that took effect the one that `following` gives, until it gives none.

        Response and errors are those of the last write that it gave. It need not be asked behind a write that took
        effect: then that one is the last. The fence is checked right before each send.
        """


class CacheAnswer(Struct, frozen=True):
    """What became of a batch of cache actions; every action that is not refused took effect."""

    changed: int = 0
    """How many entries changed."""
    unstored: frozenset[str] = frozenset()
    """Keys whose entry was dropped because there is no room to refresh it."""
    refused: Mapping[str, ReplicatorError] = field(default_factory=dict)
    """Keys that could not be touched, and why."""
    leased: Mapping[str, str] = field(default_factory=dict)
    """The leases of entries that were absent and are to be filled, by key."""


class CacheFill(Struct, frozen=True):
    """An entry to be stored while its lease stands."""

    key: str
    lease: str
    entry: bytes
    ttl_ms: int
    hashed: bool = False


class Cache(Protocol):
    """One cache beside a region's table."""

    async def apply(self, actions: Sequence[CacheAction]) -> CacheAnswer:
        """Carry the actions out; raises what kept all of them from taking effect."""

    async def fill(self, fills: Sequence[CacheFill]) -> int:
        """Store entries whose leases still stand; returns how many."""

    async def heads(self, keys: Sequence[str]) -> list[bytes]:
        """The first `ENTRY_HEAD` bytes of entries, in the order of their keys; empty where there is none."""


class Sink(Protocol):
    """Where events go: a queue, a topic, a stream or an address."""

    @property
    def shape(self) -> EventShape:
        """What its events show."""

    @property
    def most(self) -> int:
        """Events of one call."""

    @property
    def at_once(self) -> int:
        """Calls at the same time."""

    async def send(self, events: Sequence[ItemEvent], fences: Sequence[Fence] = ()) -> Sequence[ReplicatorError | None]:
        """Send events of different keys, at most `most`; returns what became of each: None when it is durable there.

        `fences`: one per event, checked before each call that it is in; none: nothing forbids it. `PoisonRecord` is an
        event that the service refuses as it is.
        """


class TableClaims(Protocol):
    """Which rule wrote a table, as rules note it where they write."""

    async def wrote(self, rule: Rule, target: Target, names: Collection[RuleName]) -> bool:
        """Whether a target's table was written before by its rule, under one of these names."""


class ConflictLog(Protocol):
    """Conflict entries: data, durable before the checkpoint passes the record."""

    async def write(self, entry: ConflictEntry) -> None:
        """Make the entry durable; an entry whose id is there already stays as it was."""
