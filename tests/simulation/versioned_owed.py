"""Regions that do not answer in `versioned_world`: what they miss is owed to them, and brought by a drainer."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

from replicator.domain.identifiers import RegionId
from replicator.domain.modes.ordered import Effect
from replicator.domain.modes.versioned import replicate as versioned
from replicator.domain.modes.versioned.drain import drain
from replicator.domain.modes.versioned.replicate import Joined, Known, Settled, VersionedMesh, Write, write_of
from replicator.domain.owed_keys import MOST_REPLACED, mesh_version, settles
from replicator.domain.records import ChangeRecord, ItemKey
from tests.simulation.active_owed import NoAnswer, Settle

Steps = Generator[Any, Any, Any]


class Kept(NamedTuple):
    """What a row keeps beside its version; see `OwedKey`."""

    replaced: tuple[str, ...]
    left: str | None


class Owe(NamedTuple):
    """Write a row: `decided` is the rank that a region is to hold, `kept` what is kept beside it."""

    region: RegionId
    decided: str
    kept: Any


class Miss(NamedTuple):
    """The same; answered with the row as it stands then."""

    region: RegionId
    decided: str
    kept: Any


class LookUp(NamedTuple):
    """Whether a row is there."""

    region: RegionId


class SettleRead(NamedTuple):
    """Take a row away unless it is greater than the one that was read."""

    region: RegionId
    version: str


RowRequest = Owe | Miss | LookUp | Settle | SettleRead


class Row(NamedTuple):
    """A row as it stands."""

    version: str
    decided: str
    kept: Any


def owing(record: ChangeRecord, mesh: VersionedMesh, known: Known) -> Steps:
    """Bring one record to all regions, or into the rows of those that do not answer."""
    return (yield from owing_with(record, mesh, known, lambda write, _: kept_of(mesh, write)))


def kept_of(mesh: VersionedMesh, write: Write) -> Kept:
    """What a row keeps of a change."""
    return Kept(versioned.replaced_by(mesh, write), versioned.left_by(mesh, write))


def owing_with(record: ChangeRecord, mesh: VersionedMesh, known: Known, kept: Callable[[Write, Settled], Any]) -> Steps:
    """The same, with something else beside a row."""
    write = write_of(record)
    settled = yield from versioned.settle(mesh, write, known)
    if isinstance(settled, Joined):
        return settled
    effects: dict[RegionId, Effect] = {}
    for region in mesh.others:
        try:
            effects[region] = yield from versioned.deliver(mesh, region, write, known)
        except NoAnswer:
            yield Owe(region, settled.owed_version, kept(write, settled))
    return settled.joined(mesh, effects)


def owing_through_rows(record: ChangeRecord, mesh: VersionedMesh, known: Known) -> Steps:
    """The same where a key that is owed already is brought as a drainer does, which the engine prefers in this mode."""
    write = write_of(record)
    settled = yield from versioned.settle(mesh, write, known)
    if isinstance(settled, Joined):
        return settled
    effects: dict[RegionId, Effect] = {}
    kept = kept_of(mesh, write)
    for region in mesh.others:
        try:
            if (yield LookUp(region)):
                row = yield Miss(region, settled.owed_version, kept)
                yield from drain(mesh, region, record.key, *row.kept)
                yield SettleRead(region, row.version)
            else:
                effects[region] = yield from versioned.deliver(mesh, region, write, known)
        except NoAnswer:
            yield Owe(region, settled.owed_version, kept)
    return settled.joined(mesh, effects)


def draining(mesh: VersionedMesh, region: RegionId, key: ItemKey, kept: Any) -> Steps:
    """Bring a region what it is owed, then take its row away."""
    yield from drain(mesh, region, key, *kept)
    yield Settle(region)


def place_and_rank(position: int, decided: str) -> str:
    """The version of a row as it is in production."""
    return mesh_version(0, position, decided)


@dataclass(frozen=True, slots=True)
class Owing:
    """How keys are owed; tests pass other ways to show what a rule is for."""

    record: Callable[[ChangeRecord, VersionedMesh, Known], Steps] = owing
    drain: Callable[[VersionedMesh, RegionId, ItemKey, Any], Steps] = draining
    version: Callable[[int, str], str] = place_and_rank
    may_settle: Callable[[str, str], bool] = settles


PRODUCTION = Owing()


def put(standing: Row | None, row: Row) -> Row:
    """The row after one was written: the greatest version stands."""
    if standing is None or standing.version > row.version:
        return row if standing is None else standing
    if not isinstance(row.kept, Kept):
        return row
    replaced = dict.fromkeys((*standing.kept.replaced[:1], *row.kept.replaced, *standing.kept.replaced[1:]))
    return row._replace(kept=row.kept._replace(replaced=tuple(replaced)[:MOST_REPLACED]))
