"""Regions that do not answer in `active_world`: what they miss is owed to them, and brought by a drainer.

A record is brought as the engine does it: settled at home, then delivered to one region after the other; where a region
does not answer, its row is written instead. `Owe` and `Settle` are the requests to the owed table, which is modelled by
its meaning: the greatest version stands, and a row is taken away only by its version or a greater one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from replicator.domain.identifiers import RegionId
from replicator.domain.modes.active_active import replicate
from replicator.domain.modes.active_active.drain import drain
from replicator.domain.modes.active_active.mesh import Mesh, Write
from replicator.domain.modes.active_active.replicate import Finished, Settled
from replicator.domain.modes.requests import Steps
from replicator.domain.owed_keys import mesh_version, settles
from replicator.domain.records import ChangeRecord, ItemKey
from replicator.domain.versions import ORDERED_WIDTH, SEQUENCE_DIGITS


class NoAnswer(Exception):
    """A region does not answer; whatever was asked of it before stands."""


@dataclass(frozen=True, slots=True)
class Silence:
    """In place of an answer."""


SILENCE = Silence()


@dataclass(frozen=True, slots=True)
class Owe:
    """Write a row: what the home region owes another one. `kept`: nothing, but where a test keeps more."""

    region: RegionId
    version: str
    kept: Any = None

    @property
    def decided(self) -> str:
        """The version that was decided for its record."""
        return self.version[ORDERED_WIDTH:]


@dataclass(frozen=True, slots=True)
class Settle:
    """Take the row away that was read before its key was drained, if it has not changed since."""

    region: RegionId


@dataclass(frozen=True, slots=True)
class Owed:
    """What a drainer begins with, in place of a record."""

    region: RegionId
    key: ItemKey
    kept: Any = None


Kept = Callable[[Write, Settled], tuple[str, Any]]
"""The version of a row, and what is kept beside it."""


def as_the_engine_does(write: Write, settled: Settled) -> tuple[str, None]:
    """A row as it is in production."""
    generation, number = divmod(write.sequence, 10**SEQUENCE_DIGITS)
    return mesh_version(generation, number, settled.owed_version), None


def owing(record: ChangeRecord, mesh: Mesh, kept: Kept = as_the_engine_does) -> Steps[Finished]:
    """Bring one record to all regions, or into the rows of those that do not answer."""
    write = mesh.write(record)
    settled = yield from replicate.settle(mesh, write)
    if isinstance(settled, Finished):
        return settled
    for region in mesh.others:
        try:
            yield from replicate.deliver(mesh, region, write, settled)
        except NoAnswer:
            yield Owe(region, *kept(write, settled))  # type: ignore[misc]
    return settled.finished


def draining(mesh: Mesh, owed: Owed) -> Steps[None]:
    """Bring a region what it is owed, then take its row away."""
    yield from drain(mesh, owed.region, owed.key)
    yield Settle(owed.region)  # type: ignore[misc]


Row = Owe | None
Table = tuple[Row, ...]
"""The rows of all home regions for all others: home region times the number of regions, plus the other one."""


class Rows:
    """All owed tables that were met, by number; 0 is the empty one."""

    def __init__(self, regions: int, may_settle: Callable[[str, str], bool] = settles) -> None:
        self._may_settle = may_settle
        self.tables: list[Table] = []
        self._numbers: dict[Table, int] = {}
        self.rows: list[Owe] = []
        self._row_numbers: dict[Owe, int] = {}
        self.number((None,) * (regions * regions))

    def number(self, table: Table) -> int:
        """The number of a table."""
        number = self._numbers.setdefault(table, len(self.tables))
        if number == len(self.tables):
            self.tables.append(table)
        return number

    def row(self, row: Owe) -> int:
        """The number of a row."""
        number = self._row_numbers.setdefault(row, len(self.rows))
        if number == len(self.rows):
            self.rows.append(row)
        return number

    def put(self, number: int, pair: int, row: Owe) -> int:
        """The table after a row was written: the greatest version stands."""
        table = self.tables[number]
        standing = table[pair]
        if standing is not None and standing.version > row.version:
            return number
        return self.number((*table[:pair], row, *table[pair + 1 :]))

    def settled(self, number: int, pair: int, read: Owe) -> int:
        """The table after a drainer tried to take away a row that it had read."""
        table = self.tables[number]
        standing = table[pair]
        if standing is None or not self._may_settle(read.version, standing.version):
            return number
        return self.number((*table[:pair], None, *table[pair + 1 :]))
