"""The mesh of mode `active-active`: its members, one record seen from its home region, and how a mode asks regions.

Invariant: everything here asks exactly one thing, or nothing, and decides nothing about versions.
"""

from __future__ import annotations

import enum

import msgspec

from replicator.domain.identifiers import RegionId
from replicator.domain.modes.requests import (
    At,
    DeleteMarked,
    Done,
    Found,
    FoundRow,
    GetItem,
    GetSideRow,
    Refused,
    Restamp,
    StampedPut,
    Steps,
)
from replicator.domain.records import ChangeRecord, ItemKey
from replicator.domain.stamps import Held, SideRow, Version, held, write_sequence
from replicator.domain.versions import STAMP

_MICROS = 1_000_000


class Guard(enum.Enum):
    """How another region's item is approached."""

    READ = "read"  # look first, and give an item that is not yet stamped a moment
    OPTIMISTIC = "optimistic"  # put at once over anything older


class ActivePolicy(msgspec.Struct, frozen=True):
    """The choices that a rule makes for mode `active-active`.

    `waits` bounds how often a look is repeated before going on without; safety does not need it. `look_ahead` must be
    off for a source that does not keep the order of records. `attribute` is the name of the stamp's attribute.
    """

    guard: Guard = Guard.READ
    waits: int = 10
    look_ahead: bool = True
    attribute: str = STAMP


class Mesh(msgspec.Struct, frozen=True):
    """The regions of a rule, seen from the one whose stream is read; `generation` is that stream's."""

    home: RegionId
    others: tuple[RegionId, ...]
    generation: int
    policy: ActivePolicy = msgspec.field(default_factory=ActivePolicy)

    def write(self, record: ChangeRecord) -> Write:
        """A record of the home region's stream as the protocol looks at it."""
        old = held(record.old, self.policy.attribute)
        return Write(
            key=record.key,
            region=self.home,
            sequence=write_sequence(self.generation, int(record.rank)),
            micros=record.micros or round(record.created_at * _MICROS),
            by_ttl=record.by_ttl,
            old=old,
            new=held(record.new, self.policy.attribute, old),
        )


class Write(msgspec.Struct, frozen=True):
    """One physical write to an item: what was there, what is there now, and its place in its region's stream."""

    key: ItemKey
    region: RegionId
    sequence: int
    micros: int
    by_ttl: bool
    old: Held | None
    new: Held | None

    def is_version(self, version: Version | None) -> bool:
        """Whether this version was given to this write."""
        return version is not None and version.is_write(self.region, self.sequence)


# -- one question each ---------------------------------------------------------------------------------------------


def look(mesh: Mesh, region: RegionId, key: ItemKey, like: Held | None = None) -> Steps[Held | None]:
    """What a key holds, read consistently; `like`: what it most likely is."""
    answer = yield At(region, GetItem(key))
    assert isinstance(answer, Found), "an item was read"
    return held(answer.item, mesh.policy.attribute, like)


def read_row(region: RegionId, key: ItemKey) -> Steps[SideRow]:
    """What a region remembers beside a key, read consistently."""
    answer = yield At(region, GetSideRow(key))
    assert isinstance(answer, FoundRow), "a side row was read"
    return answer.row


def attempt(
    mesh: Mesh, region: RegionId, request: StampedPut | Restamp | DeleteMarked
) -> Steps[tuple[bool, Held | None]]:
    """Whether a conditional write took effect, and if it did not, what is there instead."""
    answer = yield At(region, request)
    if isinstance(answer, Done):
        return True, None
    assert isinstance(answer, Refused), "a conditional write succeeds or is refused"
    return False, held(answer.item, mesh.policy.attribute)
