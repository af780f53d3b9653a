"""What the modes of a mesh share in copying: two looks at a key in all regions, and how an undecidable one is decided.

A mesh has no source: what all regions should hold follows from what they hold. So a difference is what the second look
shows while every region's item is as it was at the first; its side rows are read with the second one only.
"""

from __future__ import annotations

import enum
from collections.abc import Generator, Mapping
from typing import Any, Generic, TypeVar

from msgspec import Struct

from replicator.domain.conflicts import ConflictKind, LogConflict
from replicator.domain.copying.contents import Kind, print_of
from replicator.domain.copying.looks import MOST_LOOKS, Ended
from replicator.domain.identifiers import RegionId
from replicator.domain.image import Image
from replicator.domain.records import ItemKey
from replicator.domain.values import replace

T = TypeVar("T")
S = TypeVar("S")

Items = Mapping[RegionId, Image | None]
"""What each region holds under a key."""


class MeshCandidate(Struct, frozen=True):
    """A key at which regions differed: what each held, when the last of them was read, and how many looks there were.

    `looked_at` in seconds since 1970, by servers' time.
    """

    key: ItemKey
    held: Mapping[RegionId, str | None]
    looked_at: float
    looks: int = 1


class MeshDifference(Struct, Generic[S], frozen=True):
    """What two looks agree on: how each region differs from what all should hold; `seen` is what a repair takes."""

    key: ItemKey
    kinds: Mapping[RegionId, Kind]
    seen: S


def prints(items: Items) -> dict[RegionId, str | None]:
    """What tells whether a region's item is another one."""
    return {region: print_of(item) for region, item in items.items()}


def judged(
    candidate: MeshCandidate, kinds: Mapping[RegionId, Kind], items: Items, seen: S, looked_at: float
) -> MeshDifference[S] | MeshCandidate | Ended:
    """What a second look makes of a candidate; another candidate: look once more, when its look has passed."""
    if not kinds:
        return Ended.SAME
    now = prints(items)
    if now == candidate.held:
        return MeshDifference(candidate.key, kinds, seen)
    looks = candidate.looks + 1
    return Ended.MOVING if looks > MOST_LOOKS else MeshCandidate(candidate.key, now, looked_at, looks)


class Missing(enum.StrEnum):
    """What an item that one region lacks, without a delete that says why, is taken for."""

    KEEP = "keep"  # its put was lost: it is copied
    DELETE = "delete"  # its delete was lost: it is deleted everywhere
    MANUAL = "manual"  # neither: it is listed


class MeshMended(enum.Enum):
    """How a repair of one key ended, in all regions."""

    PUT = "put"
    DELETED = "deleted"
    LEFT = "left"  # undecided, as the operator wants
    CHANGED = "changed"  # it is not as it was seen any more: look anew


def logged_as(kind: ConflictKind, steps: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
    """The same steps, with what they log under another kind."""
    try:
        request = next(steps)
        while True:
            named = replace(request, kind=kind) if isinstance(request, LogConflict) else request
            request = steps.send((yield named))
    except StopIteration as end:
        result: T = end.value
        return result
