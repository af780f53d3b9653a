"""Mode `active-active`, lost writes: two writes of which one had to lose, as an entry for the conflict log.

Invariant: what identifies an entry depends only on the two writes, so a replay logs the same entry again.
"""

from __future__ import annotations

import msgspec

from replicator.domain.conflicts import ConflictKind, LogConflict, Operation, Reason, Resolution, kind_of
from replicator.domain.image import Image
from replicator.domain.modes.active_active.mesh import Mesh
from replicator.domain.modes.requests import Steps
from replicator.domain.records import ItemKey
from replicator.domain.stamps import Held, StampKind, Tombstone, Version, parent_of, seed_version


class Contender(msgspec.Struct, frozen=True):
    """One of two writes; a delete has no image, a write that was overwritten before it was stamped has no version."""

    version: Version | None
    image: Image | None

    @property
    def operation(self) -> Operation:
        """What the write did."""
        return Operation.DELETE if self.image is None else Operation.PUT


def stamped_write(item: Held) -> Contender:
    """The write that an item's stamp names: a put, or the delete that marked it."""
    return Contender(item.version, None if item.kind is StampKind.MARK else item.bare)


def unversioned_write(item: Held) -> Contender:
    """The local write that made an item what it is, and that was not stamped yet."""
    return Contender(None, item.bare)


def delete_of(tombstone: Tombstone) -> Contender:
    """The delete that a tombstone records."""
    return Contender(tombstone.version, None)


def met_unseen(winner: Version, parent: str, loser: Version) -> bool:
    """Whether the winner's region did not know of the loser: another region's write that is not the winner's parent."""
    return winner.region != loser.region and parent != parent_of(loser)


def log_loss(
    mesh: Mesh, key: ItemKey, winner: Contender, loser: Contender, outcome: Resolution = Resolution.OVERWRITTEN
) -> Steps[None]:
    """Make the loss of a write durable."""
    assert winner.version is not None, "a winner is always versioned"
    yield LogConflict(
        key=key,
        kind=_kind(winner, loser),
        winner_version=winner.version.text,
        winner=winner.image,
        loser=loser.image,
        reason=_reason(winner.version, loser.version),
        loser_version=None if loser.version is None else loser.version.text,
        winner_region=winner.version.region,
        loser_region=mesh.home if loser.version is None else loser.version.region,
        winner_micros=winner.version.micros,
        loser_micros=None if loser.version is None else loser.version.micros,
        winner_op=winner.operation,
        loser_op=loser.operation,
        outcome=outcome,
    )


def _kind(winner: Contender, loser: Contender) -> ConflictKind:
    if loser.version is None:
        return ConflictKind.UNVERSIONED
    if loser.version == seed_version(loser.version.region):
        return ConflictKind.SEED
    return kind_of(winner.operation, loser.operation)


def _reason(winner: Version, loser: Version | None) -> Reason:
    if loser is None:
        return Reason.VERSION  # the loser had none when it was overwritten
    if winner.micros != loser.micros:
        return Reason.LATER_TIME
    return Reason.REGION_TIE if winner.counter == loser.counter else Reason.CAUSAL
