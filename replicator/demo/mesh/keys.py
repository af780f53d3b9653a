"""The truth about keys that several regions write: every acknowledged write, and which of them may survive.

Invariant: all that is known here comes from answers to writers and from the writers' clock, which is also the clock of
the servers; nothing comes from the daemon. Numbers of writes are unique for a key, so no two writes have equal content.
What may survive follows from docs/protocol.md alone: in mode `versioned` the greatest (version, delete, content), in
mode `active-active` the last write of some region, unless another write came in a later second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import msgspec

from replicator.demo.dynamodb import Typed
from replicator.demo.items import COUNTER, DemoKey, Keyspace, popularised, table_keys
from replicator.demo.layout import VERSION, Layout
from replicator.domain.image import Image, content_hash
from replicator.domain.stamps import StampKind, parse_stamp

SHARED: Final = 0.7
"""Share of keys that users write in every region; each of the others belongs to one region."""

_SECOND_MS = 1_000
_CACHED_ORDERS = 1_650
"""Over all regions: each order is replicated to all of them, so fewer do for more regions."""

_LEAST_ORDER_KEYS = 350


@dataclass(frozen=True, slots=True)
class Write:
    """An acknowledged write that changed something."""

    number: int
    region: str
    content: str | None
    """Hash of what it left, without the stamp; None: it was a delete."""

    over: int
    """Number of the write whose image it replaced or deleted; 0: there was no item."""

    version: int | None
    """Mode `versioned`: of what it left, for a delete of what it deleted."""

    started_ms: int
    acknowledged_ms: int
    marked: bool = False
    """A delete of an item that the daemon was deleting at that moment: it counts as that delete (limit L4)."""

    @property
    def rank(self) -> tuple[bool, int, bool, str]:
        """Its rank in mode `versioned`."""
        return self.version is not None, self.version or 0, self.content is None, self.content or ""


@dataclass(slots=True)
class MeshKey(DemoKey):
    """A key, the regions in which it is written, and its history."""

    writers: tuple[str, ...]
    locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    """By region; held for a write, so that the order of writes in one region is known."""

    history: list[Write] = field(default_factory=list)
    """In the order of acknowledgements."""

    numbers: int = 0
    highest: dict[str, int] = field(default_factory=dict)
    """Mode `versioned`: the highest version that the application knows of, by region."""

    def __post_init__(self) -> None:
        """One lock for each region."""
        self.locks = {region: asyncio.Lock() for region in self.writers}

    @property
    def item(self) -> Write | None:
        """The last write of a key that is written in one region; None when that was a delete."""
        last = self.history[-1] if self.history else None
        return last if last is not None and last.content is not None else None

    @property
    def shared(self) -> bool:
        """Whether users write it in several regions."""
        return len(self.writers) > 1

    def next_number(self) -> int:
        """The number of a write that begins."""
        self.numbers += 1
        return self.numbers

    def survivors(self, mode: str) -> list[Write]:
        """The writes that may have won; the surviving item is what one of them left. Empty: nothing was written."""
        if mode == "versioned":
            return [max(self.history, key=lambda write: write.rank)] if self.history else []
        last = [write for region in self.writers for write in self._last(region)]
        return [write for write in last if not self._beaten(write)]

    def losses(self, survivor: str | None) -> Iterator[tuple[Write, bool]]:
        """Every image that the daemon overwrote with another one: no later user saw it, and it is not the survivor.

        With each goes whether it is maximal: the last write of its region; those must be in the conflict log.
        """
        known = {write.over for write in self.history}
        last = {write.number for region in self.writers for write in self._last(region)}
        for write in self.history:
            if write.content not in {None, survivor} and write.number not in known:
                yield write, write.number in last

    def _last(self, region: str) -> Iterator[Write]:
        """The last write of a region; before a delete that counts as the daemon's, also the one before."""
        for write in reversed([write for write in self.history if write.region == region]):
            yield write
            if not write.marked:
                return

    def _beaten(self, write: Write) -> bool:
        """Whether another write came in a later second, by every clock: it has the greater version."""
        second = write.acknowledged_ms // _SECOND_MS
        return any(other.started_ms // _SECOND_MS > second and not other.marked for other in self.history)


def mesh_keyspace(layout: Layout, random: Random) -> Keyspace[MeshKey]:
    """The demo's keys: shared ones, and some for each region alone."""
    regions = tuple(layout.regions)

    def writers() -> tuple[str, ...]:
        return regions if random.random() < SHARED else (random.choice(regions),)

    order_keys = max(_LEAST_ORDER_KEYS, _CACHED_ORDERS // len(regions))
    return popularised([MeshKey(table, key, writers()) for table, key in table_keys(layout, order_keys)], random)


def content_of(image: Image | None) -> str | None:
    """What an item holds, as a hash; None for no item."""
    return None if image is None else content_hash(image)


def content_of_item(item: Typed) -> str:
    """The same, of an item that is about to be written."""
    return content_hash(Image(msgspec.json.encode(item)))


def number_of(image: Image | None) -> int:
    """The number of the write that left an image."""
    return 0 if image is None else _number(image.attributes, COUNTER) or 0


def version_of(image: Image) -> int | None:
    """The application's version of an image."""
    return _number(image.attributes, VERSION)


def is_marked(image: Image) -> bool:
    """Whether the daemon is deleting the item that looks like this."""
    stamp = parse_stamp(image.stamp or "")
    return stamp is not None and stamp.kind is StampKind.MARK


def contested(keys: Iterable[MeshKey]) -> int:
    """How many keys were written in more than one region."""
    return sum(len({write.region for write in key.history}) > 1 for key in keys)


def _number(attributes: Typed, name: str) -> int | None:
    value: Any = attributes.get(name, {}).get("N")
    return int(value) if isinstance(value, str) else None
