"""What a mode may ask of the world, and on which conditions, as values.

Invariant: these values are the whole vocabulary between decisions and effects. Adapters answer them and decide nothing;
the memory adapter evaluates the conditions, `adapters/expressions.py` renders them, and a contract suite proves that
both agree on a real server.
"""

from __future__ import annotations

from dataclasses import dataclass

from replicator.domain.image import Image
from replicator.domain.records import ItemKey

# -- conditions on an item -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StampBelow:
    """The item exists, carries a stamp, and the stamp sorts below `version`."""

    version: str


@dataclass(frozen=True, slots=True)
class AbsentOrStampBelow:
    """No item, or one whose stamp sorts below `version`; an item without a stamp fails."""

    version: str


@dataclass(frozen=True, slots=True)
class UnstampedOrStampBelow:
    """No item, one without a stamp, or one whose stamp sorts below `version`."""

    version: str


Condition = StampBelow | AbsentOrStampBelow | UnstampedOrStampBelow

# -- conditions on a side row --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TombstoneBelow:
    """No tombstone, or one that sorts below `version`."""

    version: str


# -- requests ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Put:
    """Write `image` with the stamp `version` if `when` holds; a refusal tells what stands there."""

    key: ItemKey
    image: Image
    version: str
    when: Condition


@dataclass(frozen=True, slots=True)
class GuardedPut:
    """`put`, in one transaction with the check that no tombstone stands at or above `guard.version`."""

    put: Put
    guard: TombstoneBelow


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the item if `when` holds; a refusal tells what stands there."""

    key: ItemKey
    when: Condition


@dataclass(frozen=True, slots=True)
class RaiseTombstone:
    """Record that the item was deleted at `version`, unless a tombstone at or above it is there already."""

    key: ItemKey
    version: str


@dataclass(frozen=True, slots=True)
class GetItem:
    """Read the item, consistently."""

    key: ItemKey


@dataclass(frozen=True, slots=True)
class GetTombstone:
    """Read the tombstone's version, consistently."""

    key: ItemKey


@dataclass(frozen=True, slots=True)
class LogConflict:
    """Make a conflict entry durable; answered when it is."""

    key: ItemKey
    kind: str
    winner_version: str
    winner: Image | None
    loser: Image | None


Request = Put | GuardedPut | Delete | RaiseTombstone | GetItem | GetTombstone | LogConflict

# -- responses -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Done:
    """The write took effect."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A condition failed. `item` is what stands under the key, None when nothing does or only the tombstone refused."""

    item: Image | None = None
    by_tombstone: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """Answer to a read. Of an item: `item`; of a tombstone: `tombstone` (its version). None when there is none."""

    item: Image | None = None
    tombstone: str | None = None


Response = Done | Refused | Found
