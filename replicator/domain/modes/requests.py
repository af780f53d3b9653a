"""What a mode may ask of the world, and on which conditions, as values.

Invariant: these values are the whole vocabulary between decisions and effects. Adapters answer them and decide nothing;
the memory adapter evaluates the conditions, `adapters/dynamodb/expressions.py` renders them, and a contract suite
proves that both agree on a real server.
"""

from __future__ import annotations

import enum
from collections.abc import Generator
from typing import TypeVar

import msgspec

from replicator.domain.conflicts import LogConflict
from replicator.domain.identifiers import RegionId
from replicator.domain.image import Image
from replicator.domain.records import ItemKey
from replicator.domain.stamps import SideRow, Stamp, Tombstone, Version

# -- conditions on an item -----------------------------------------------------------------------------------------


class StampBelow(msgspec.Struct, frozen=True, gc=False):
    """The item exists, carries a stamp, and the stamp sorts below `version`."""

    version: str


class AbsentOrStampBelow(msgspec.Struct, frozen=True, gc=False):
    """No item, or one whose stamp sorts below `version`; an item without a stamp fails."""

    version: str


class UnstampedOrStampBelow(msgspec.Struct, frozen=True, gc=False):
    """No item, one without a stamp, or one whose stamp sorts below `version`."""

    version: str


Condition = StampBelow | AbsentOrStampBelow | UnstampedOrStampBelow


class Absent(msgspec.Struct, frozen=True):
    """The key has no item."""


class StampIs(msgspec.Struct, frozen=True, gc=False):
    """An item exists and its stamp attribute is exactly `seen` (wire JSON); None: it exists and has none."""

    seen: bytes | None


class ContentIs(msgspec.Struct, frozen=True):
    """An item without a stamp exists and has the attributes of `seen`, as far as one expression can state them.

    An attribute that is not in `seen` goes unnoticed: no expression can state that an item has no others.
    """

    seen: Image


SeenCondition = Absent | StampIs | ContentIs
"""What was seen there still is; what a repair asks."""

# -- conditions on a side row --------------------------------------------------------------------------------------


class TombstoneBelow(msgspec.Struct, frozen=True, gc=False):
    """No tombstone, or one that sorts below `version`."""

    version: str


class TombstoneIs(msgspec.Struct, frozen=True):
    """The tombstone is exactly this version; what a repair asks."""

    version: str


# -- requests ------------------------------------------------------------------------------------------------------


class Put(msgspec.Struct, frozen=True, gc=False):
    """Write `image` with the stamp `version` if `when` holds; a refusal holds what is there."""

    key: ItemKey
    image: Image
    version: str
    when: Condition | SeenCondition


class GuardedPut(msgspec.Struct, frozen=True, gc=False):
    """`put`, in one transaction with the check of the tombstone that `guard` is."""

    put: Put
    guard: TombstoneBelow | TombstoneIs


class Delete(msgspec.Struct, frozen=True, gc=False):
    """Delete the item if `when` holds; a refusal holds what is there."""

    key: ItemKey
    when: Condition | SeenCondition


class RaiseTombstone(msgspec.Struct, frozen=True, gc=False):
    """Record that the item was deleted at `version`, unless a tombstone at or above it is there already."""

    key: ItemKey
    version: str


class GetItem(msgspec.Struct, frozen=True, gc=False):
    """Read the item, consistently."""

    key: ItemKey


class GetTombstone(msgspec.Struct, frozen=True, gc=False):
    """Read the tombstone's version, consistently."""

    key: ItemKey


# -- requests of mode `active-active` ------------------------------------------------------------------------------


class UnstampedOrBelow(msgspec.Struct, frozen=True, gc=False):
    """An item exists, and it has no stamp or one that sorts below `version`."""

    version: Version


StampCondition = Absent | StampIs | UnstampedOrBelow


class StampedPut(msgspec.Struct, frozen=True, gc=False):
    """Write `image` with `stamp`, sealed with a new nonce, if `when` holds; a refusal holds what is there."""

    key: ItemKey
    image: Image
    stamp: Stamp
    when: StampCondition


class Restamp(msgspec.Struct, frozen=True, gc=False):
    """Set nothing but the stamp, sealed with a new nonce, if `when` holds; a refusal holds what is there."""

    key: ItemKey
    stamp: Stamp
    when: StampIs


class Unstamp(msgspec.Struct, frozen=True):
    """Take the stamp off an item, of any mode, and nothing else, if `when` holds; a refusal holds what is there."""

    key: ItemKey
    when: StampIs


class DeleteMarked(msgspec.Struct, frozen=True):
    """Delete the item if the delete of this version marked it; a refusal holds what is there."""

    key: ItemKey
    version: Version


class GetSideRow(msgspec.Struct, frozen=True, gc=False):
    """Read the side row, consistently."""

    key: ItemKey


class MergeTombstone(msgspec.Struct, frozen=True):
    """Record another region's delete, unless a tombstone at or above it is there; a refusal holds the row."""

    key: ItemKey
    tombstone: Tombstone


class SettleTombstone(msgspec.Struct, frozen=True):
    """Record a delete of this region, if tombstone and floor are as `seen`; a refusal holds the row.

    `removed_at` is where in this region's stream it took effect; None when a later one is known to have.
    """

    key: ItemKey
    seen: SideRow
    tombstone: Tombstone
    removed_at: int | None


class RaiseFloor(msgspec.Struct, frozen=True):
    """Record the version of a write whose item is gone, if tombstone and floor are as `seen`."""

    key: ItemKey
    seen: SideRow
    floor: Version


class NoteRemoval(msgspec.Struct, frozen=True):
    """Record that the delete of this version took effect at this place of the region's stream, unless a later did."""

    key: ItemKey
    removed_at: int
    removed: Version


StampRequest = (
    StampedPut
    | Restamp
    | Unstamp
    | DeleteMarked
    | GetSideRow
    | MergeTombstone
    | SettleTombstone
    | RaiseFloor
    | NoteRemoval
)


class At(msgspec.Struct, frozen=True):
    """Carry a request out in one of the mesh's regions."""

    region: RegionId
    request: GetItem | GetTombstone | RaiseTombstone | StampRequest | VersionedRequest


class Wait(msgspec.Struct, frozen=True):
    """Let the time between two looks pass; `attempt` counts from 1."""

    attempt: int


class LookAhead(msgspec.Struct, frozen=True):
    """Find the first removal of this key behind a place in the home region's stream, among what was read already."""

    key: ItemKey
    after: int


# -- requests of mode `versioned` ----------------------------------------------------------------------------------


class VersionIs(msgspec.Struct, frozen=True):
    """An item exists and `attribute` is exactly `seen` (wire JSON); None: it exists without that attribute."""

    attribute: str
    seen: bytes | None


class VersionAtMost(msgspec.Struct, frozen=True):
    """`attribute` is missing or not of type `kind` (N or S), or there is no item, or it is at most `value`.

    A `value` of None is below every value: only the first three are left.
    """

    attribute: str
    kind: str
    value: str | None


VersionCondition = Absent | VersionIs | VersionAtMost


class Replace(msgspec.Struct, frozen=True):
    """Write `image` as it is if `when` holds; `Done` holds what it replaced, a refusal what is there."""

    key: ItemKey
    image: Image
    when: Absent | VersionIs


class Remove(msgspec.Struct, frozen=True):
    """Delete the item if `when` holds; `Done` holds what it removed, a refusal what is there."""

    key: ItemKey
    when: VersionIs | VersionAtMost


VersionedRequest = Replace | Remove

# -- all requests --------------------------------------------------------------------------------------------------

OrderedRequest = Put | GuardedPut | Delete | RaiseTombstone | GetItem | GetTombstone

Request = OrderedRequest | StampRequest | VersionedRequest | LogConflict
"""What a region may be asked."""

MeshRequest = At | Wait | LookAhead | LogConflict
"""What the modes of a mesh ask of their driver."""

# -- responses -----------------------------------------------------------------------------------------------------


class Done(msgspec.Struct, frozen=True, gc=False):
    """The write took effect. `item`: what a `Replace` or `Remove` took away, None when nothing was there.

    `units`: write units that it took, when the region was asked to tell; nothing is decided by them.
    """

    item: Image | None = None
    units: float | None = None

    def __eq__(self, other: object) -> bool:
        return self.item == other.item if isinstance(other, Done) else NotImplemented

    def __hash__(self) -> int:
        return hash((Done, self.item))


class Refused(msgspec.Struct, frozen=True, gc=False):
    """A condition failed. `item` is what the key holds, None when nothing does or only the tombstone refused."""

    item: Image | None = None
    by_tombstone: bool = False


class Found(msgspec.Struct, frozen=True, gc=False):
    """Answer to a read. Of an item: `item`; of a tombstone: `tombstone` (its version). None when there is none."""

    item: Image | None = None
    tombstone: str | None = None


class Remover(enum.Enum):
    """What removed an item."""

    USER = "user"  # or its time to live
    DAEMON = "daemon"  # it finished a marked delete
    UNKNOWN = "unknown"  # not among what was read


class FoundRow(msgspec.Struct, frozen=True, gc=False):
    """Answer to `GetSideRow`; a row that is not there is an empty one."""

    row: SideRow


class RefusedRow(msgspec.Struct, frozen=True):
    """The condition of a write to a side row failed; `row` is what is there."""

    row: SideRow


class FoundAhead(msgspec.Struct, frozen=True):
    """Answer to `LookAhead`."""

    remover: Remover


Response = Done | Refused | Found | FoundRow | RefusedRow
"""What a region answers."""

MeshResponse = Response | FoundAhead
"""What the modes of a mesh are answered."""

T = TypeVar("T")
Steps = Generator[MeshRequest, MeshResponse, T]
"""A part of such a mode: requests out, responses in, a result at the end."""

RegionSteps = Generator[At | LogConflict, Response, T]
"""The same where it waits for nothing and looks at nothing ahead."""
