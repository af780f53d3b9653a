"""Mode `versioned`: the application raises a version attribute, and users may write in every region.

Owns what one record of one region's stream asks of all regions, as a generator of requests. A record says "join this
image": every region ends with the greatest image by (version, deleted, content). Invariants (docs/protocol.md): J1 what
the daemon writes only raises an item's rank. J2 every image that was ever written is joined into all regions, unless a
greater one is. No attribute is added to items; deletes are remembered in side rows. Nothing depends on the order of
records. Leaves retries, fencing and which records pass a rule's filter to its driver.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from typing import NamedTuple

from msgspec import Struct

from replicator.domain.conflicts import ConflictKind, LogConflict, Operation, Reason, Resolution
from replicator.domain.identifiers import RegionId
from replicator.domain.image import Image, canonical, unreserved
from replicator.domain.modes.ordered import Effect
from replicator.domain.modes.requests import (
    Absent,
    At,
    Done,
    Found,
    GetItem,
    GetTombstone,
    RaiseTombstone,
    Refused,
    RegionSteps,
    Remove,
    Replace,
    Response,
)
from replicator.domain.modes.versioned.ranks import LOWEST, Rank, VersionAttribute, rank_of, rank_of_delete
from replicator.domain.records import ChangeRecord, ItemKey

_MICROS = 1_000_000

_OF_TWO_VERSIONS = frozenset({ConflictKind.PUT_PUT, ConflictKind.DELETE_PUT})
"""Kinds that compare two versions: `unversioned` where the loser has none."""

Known = Collection[tuple[RegionId, Rank]]
"""What the caller itself wrote to regions recently: this rank, or something greater, was there."""


class VersionedMesh(Struct, frozen=True):
    """The regions of a rule, seen from the one whose stream is read, and the attribute that orders their images."""

    home: RegionId
    others: tuple[RegionId, ...]
    version: VersionAttribute


class Joined(Struct, frozen=True):
    """How a record ended: its effect by region, and where `rank`, or something greater, was since."""

    rank: Rank
    effects: Mapping[RegionId, Effect]
    regions: tuple[RegionId, ...]


class Settled(Struct, frozen=True):
    """A record whose home region has answered; `deliver` brings it to every other region."""

    rank: Rank
    effects: Mapping[RegionId, Effect]
    """The effect at home, where a record asks for one there."""

    @property
    def owed_version(self) -> str:
        """What the row of a region that did not answer says: text that sorts like ranks."""
        return self.rank.text

    def joined(self, mesh: VersionedMesh, effects: Mapping[RegionId, Effect]) -> Joined:
        """How the record ended; `effects`: those in the other regions, without those that are owed it."""
        return Joined(self.rank, {**self.effects, **effects}, (mesh.home, *effects))


class Party(NamedTuple):
    """An image or a delete, and whose it is: one side of a conflict."""

    rank: Rank
    image: Image | None
    region: RegionId | None
    micros: int | None


class Write(Struct, frozen=True):
    """A record with its images as they are sent: without reserved attributes."""

    key: ItemKey
    old: Image | None
    new: Image | None
    micros: int


def write_of(record: ChangeRecord) -> Write:
    """A record as this mode looks at it."""
    return Write(
        key=record.key,
        old=None if record.old is None else unreserved(record.old),
        new=None if record.new is None else unreserved(record.new),
        micros=round(record.created_at * _MICROS),
    )


def replicate_versioned(record: ChangeRecord, mesh: VersionedMesh, known: Known = ()) -> RegionSteps[Joined]:
    """Bring one record of the home region to all regions; what is `known` (`OwnWrites`) is not looked after again."""
    write = write_of(record)
    settled = yield from settle(mesh, write, known)
    if isinstance(settled, Joined):
        return settled
    effects: dict[RegionId, Effect] = {}
    for region in mesh.others:
        effects[region] = yield from deliver(mesh, region, write, known)
    return settled.joined(mesh, effects)


def settle(mesh: VersionedMesh, write: Write, known: Known) -> RegionSteps[Settled | Joined]:
    """What a record asks of its home region: how it ended if that is all, else what other regions are to be brought.

    A driver that has settled a record goes on from here when another region did not answer: it need not look again.
    """
    if write.new is None:
        assert write.old is not None, "a record has an image"
        rank = rank_of_delete(mesh.version, write.old)
        return Settled(rank, {mesh.home: (yield from _delete(mesh, mesh.home, write, write.old, known))})
    if write.old is not None and regressed(mesh, write.old, write.new):
        return (yield from _take_back(mesh, write, write.old, write.new))
    if write.old is None:
        removal = yield from below_tombstone(mesh, write, write.new, known)
        if removal is not None:
            return removal
    return Settled(rank_of(mesh.version, write.new), {})


def deliver(mesh: VersionedMesh, region: RegionId, write: Write, known: Known) -> RegionSteps[Effect]:
    """Bring a settled record to one other region, unless something greater is there."""
    if write.new is None:
        assert write.old is not None, "a record has an image"
        return (yield from _delete(mesh, region, write, write.old, known))
    if write.old is not None and regressed(mesh, write.old, write.new):
        return (yield from join(mesh, write.key, _restored(mesh, write.old), region, (), known))
    party = Party(rank_of(mesh.version, write.new), write.new, mesh.home, write.micros)
    return (yield from join(mesh, write.key, party, region, replaced_by(mesh, write), known))


def replaced_by(mesh: VersionedMesh, write: Write) -> tuple[str, ...]:
    """The mark of the image that a write replaced knowingly; none when it did not, or was taken back."""
    if write.old is None or (write.new is not None and regressed(mesh, write.old, write.new)):
        return ()
    return (rank_of(mesh.version, write.old).mark,)


def left_by(mesh: VersionedMesh, write: Write) -> str:
    """The mark of the image that other regions are brought for a write; empty for a delete."""
    if write.new is None:
        return ""
    back = write.old is not None and regressed(mesh, write.old, write.new)
    image = write.old if back else write.new
    assert image is not None, "what is taken back was there"
    return rank_of(mesh.version, image).mark


def regressed(mesh: VersionedMesh, old: Image, new: Image) -> bool:
    """Whether a write lowered the item's rank: its version fell or vanished, or it lost a tie."""
    return rank_of(mesh.version, new) < rank_of(mesh.version, old)


def below_tombstone(mesh: VersionedMesh, write: Write, new: Image, known: Known) -> RegionSteps[Joined | None]:
    """Delete an item again that was created at or below its tombstone; None when it was not."""
    rank = rank_of(mesh.version, new)
    tombstone = yield from tombstone_in(mesh.home, write.key)
    if tombstone is None or tombstone < rank.version:
        return None
    removal = Rank(tombstone, deleted=True, content="")
    ours = (mesh.home, rank) in known
    if not ours and (yield from item_in(mesh.home, write.key)) is not None:
        # Where nothing is any more, the image was brought here and deleted since, or its loss is logged already.
        loser = Party(rank, new, mesh.home, write.micros)
        yield _conflict(write.key, ConflictKind.STALE_CREATE, Party(removal, None, None, None), loser)
    effect = yield from remove(mesh, write.key, Party(removal, None, mesh.home, write.micros), mesh.home, new)
    return Joined(removal, {mesh.home: effect}, (mesh.home,))


def _take_back(mesh: VersionedMesh, write: Write, old: Image, new: Image) -> RegionSteps[Settled]:
    """Put the greater image back that a user overwrote with a lesser one."""
    winner = _restored(mesh, old)
    loser = Party(rank_of(mesh.version, new), new, mesh.home, write.micros)
    yield _conflict(write.key, ConflictKind.VERSION_REGRESS, winner, loser)
    return Settled(
        winner.rank, {mesh.home: (yield from join(mesh, write.key, winner, mesh.home, (loser.rank.mark,), ()))}
    )


def _restored(mesh: VersionedMesh, old: Image) -> Party:
    return Party(rank_of(mesh.version, old), old, mesh.home, None)


# -- one region ----------------------------------------------------------------------------------------------------


def join(  # noqa: PLR0913, PLR0917 - what, where, and what is known about it
    mesh: VersionedMesh,
    key: ItemKey,
    joined: Party,
    region: RegionId,
    replaced: Collection[str],
    known: Known,
    *,
    decides: bool = True,
) -> RegionSteps[Effect]:
    """Let a region hold this image or a greater one. `replaced`: marks of what it replaced where it was written.

    Anything else that it replaces here has lost, which is logged first. Where it is not known what it replaced (not
    `decides`), such a thing is left alone: the effect is then that the image is owed by its own record.
    """
    rank, image = joined.rank, joined.image
    assert image is not None, "a put carries an image"
    if (region, rank) in known:
        return Effect.STALE
    standing = yield from item_in(region, key)
    while True:
        seen = {*replaced, rank.mark}  # it does not lose to itself, which a slow worker may have put
        if standing is None:
            tombstone = yield from tombstone_in(region, key)
            if tombstone is not None and tombstone >= rank.version:
                return Effect.STALE
            answer = yield At(region, Replace(key, image, Absent()))
        else:
            theirs = Party(rank_of(mesh.version, standing), standing, region, None)
            seen.add(theirs.rank.mark)
            if theirs.rank >= rank:
                yield from log_tie(key, theirs, joined)
                return Effect.STALE
            if theirs.rank.mark not in replaced:
                if not decides:
                    return Effect.OWED
                yield _conflict(key, ConflictKind.PUT_PUT, joined, theirs)
            answer = yield At(region, Replace(key, image, mesh.version.exactly(standing)))
        if isinstance(answer, Done):
            yield from log_unseen(mesh, key, joined, answer.item, region, seen)
            return Effect.APPLIED
        standing = _in_the_way(answer)


def log_tie(key: ItemKey, standing: Party, joined: Party) -> RegionSteps[None]:
    """Log an image that was not put because another of the same version is there."""
    if standing.rank != joined.rank and standing.rank.version == joined.rank.version:
        yield _conflict(key, ConflictKind.PUT_PUT, standing, joined)


def log_unseen(  # noqa: PLR0913, PLR0917 - what, where, and what is known about it
    mesh: VersionedMesh,
    key: ItemKey,
    joined: Party,
    replaced: Image | None,
    region: RegionId,
    seen: Container[str],
) -> RegionSteps[None]:
    """Log an image of the same version that came between the look and the put; `seen`: marks of those that did not.

    One that is greater than the image put is brought back by its own record.
    """
    if replaced is None:
        return
    loser = Party(rank_of(mesh.version, replaced), replaced, region, None)
    if loser.rank.mark not in seen:
        outcome = Resolution.OVERWRITTEN if loser.rank < joined.rank else Resolution.REPAIRED
        yield _conflict(key, ConflictKind.PUT_PUT, joined, loser, outcome)


def _delete(mesh: VersionedMesh, region: RegionId, write: Write, old: Image, known: Known) -> RegionSteps[Effect]:
    """Let a region remember the delete, and carry it out there."""
    rank = rank_of_delete(mesh.version, old)
    if (region, rank) in known:
        return Effect.STALE
    yield At(region, RaiseTombstone(write.key, rank.version))
    return (yield from remove(mesh, write.key, Party(rank, None, mesh.home, write.micros), region, old))


def remove(mesh: VersionedMesh, key: ItemKey, delete: Party, region: RegionId, expected: Image) -> RegionSteps[Effect]:
    """Delete a region's item if its version is at most the delete's; anything but `expected` is logged first.

    The first try takes only an item of the expected version; its refusal holds what else is there. The second takes
    every lower version, and those behind it what is there: a text that is no version may sort above one.
    """
    version = delete.rank.version
    seen, when = expected, iter((mesh.version.at_most(version),))
    answer = yield At(region, Remove(key, mesh.version.exactly(expected)))
    while not isinstance(answer, Done):
        standing = _in_the_way(answer)
        if standing is None:
            return Effect.ABSENT
        if mesh.version.of(standing) > version:
            return Effect.STALE
        yield from log_removed(mesh, key, delete, region, standing, (seen,))
        seen = standing
        answer = yield At(region, Remove(key, next(when, mesh.version.exactly(standing))))
    if answer.item is None:
        return Effect.ABSENT
    yield from log_removed(mesh, key, delete, region, answer.item, (expected, seen))
    return Effect.DELETED


def log_removed(  # noqa: PLR0913, PLR0917 - what, where, and what is known about it
    mesh: VersionedMesh,
    key: ItemKey,
    delete: Party,
    region: RegionId,
    removed: Image,
    expected: tuple[Image, ...],
) -> RegionSteps[None]:
    """Log an image that goes with a delete which did not know it."""
    if not any(_same(removed, image) for image in expected):
        loser = Party(rank_of(mesh.version, removed), removed, region, None)
        yield _conflict(key, ConflictKind.DELETE_PUT, delete, loser)


def item_in(region: RegionId, key: ItemKey) -> RegionSteps[Image | None]:
    """What a region holds, read consistently."""
    answer = yield At(region, GetItem(key))
    assert isinstance(answer, Found), "an item was read"
    return answer.item


def tombstone_in(region: RegionId, key: ItemKey) -> RegionSteps[str | None]:
    """The version of the last delete that a region remembers, read consistently."""
    answer = yield At(region, GetTombstone(key))
    assert isinstance(answer, Found), "a tombstone was read"
    return answer.tombstone


def _in_the_way(answer: Response) -> Image | None:
    assert isinstance(answer, Refused), "a conditional write succeeds or is refused"
    return answer.item


def _same(image: Image, other: Image | None) -> bool:
    return other is not None and canonical(image) == canonical(other)


# -- conflicts -----------------------------------------------------------------------------------------------------


def _conflict(
    key: ItemKey, kind: ConflictKind, winner: Party, loser: Party, outcome: Resolution = Resolution.OVERWRITTEN
) -> LogConflict:
    unversioned = loser.rank.version == LOWEST
    tie = winner.rank.version == loser.rank.version and not winner.rank.deleted
    return LogConflict(
        key=key,
        kind=ConflictKind.UNVERSIONED if unversioned and kind in _OF_TWO_VERSIONS else kind,
        reason=Reason.HASH_TIE if tie else Reason.VERSION,
        winner_version=winner.rank.shown,
        winner=winner.image,
        winner_region=winner.region,
        winner_micros=winner.micros,
        winner_op=Operation.DELETE if winner.rank.deleted else Operation.PUT,
        loser_version=None if unversioned else loser.rank.shown,
        loser=loser.image,
        loser_region=loser.region,
        loser_micros=loser.micros,
        outcome=outcome,
    )
