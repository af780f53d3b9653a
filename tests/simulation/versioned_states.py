"""A scenario of mode `versioned`, and the states that `versioned_world` goes through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from replicator.domain.identifiers import RegionId
from replicator.domain.modes.versioned.ranks import Rank
from tests.simulation.versioned_machine import NOTHING
from tests.simulation.versioned_owed import Row


@dataclass(frozen=True, slots=True)
class Scenario:
    """What users write in each region, how all regions start, and how much may go wrong."""

    ops: tuple[tuple[str, ...], ...]
    start: str = "absent"  # or seeded: version 1 everywhere; or buried: a delete of version 1 was done everywhere
    crashes: int = 0
    zombies: int = 0
    rising: bool = True
    unordered: bool = False
    """The source delivers records in any order."""
    remembers: bool = False
    """All workers share a memory of own writes, which survives crashes."""
    logged: bool = False
    """Every maximal lost put must be logged."""
    away: tuple[int, ...] = ()
    """Regions that may not answer, at any step that brings them something: they are owed the key then. One drainer
    brings it, and may stop at any step."""
    unheard: bool = False
    """What was asked may be done all the same, and only its answer is lost."""
    expires: bool = False
    """Tombstones may expire when all is quiet and nothing as new as they is owed."""

    def __str__(self) -> str:
        writes = " | ".join(" ".join(mine) or "-" for mine in self.ops)
        more = " rising" * self.rising + " unordered" * self.unordered + " remembers" * self.remembers
        more += f" away={self.away}" * bool(self.away) + " unheard" * self.unheard + " expires" * self.expires
        return f"versioned {writes}  start={self.start} crashes={self.crashes} zombies={self.zombies}{more}"


class Write(NamedTuple):
    """A user's write that took effect: its image, its rank, and the writes that it overwrote knowingly."""

    image: int
    rank: Rank
    seen: frozenset[int]


class Worker(NamedTuple):
    """A worker on a region's stream: records done in order, or as a set, and the node of the one in hand."""

    shard: int
    position: int = 0
    done: int = 0
    node: int = NOTHING
    zombie: bool = False


class Drainer(NamedTuple):
    """A drainer at work: between which regions, which version it read, and its node."""

    pair: int
    version: str
    node: int


class State(NamedTuple):
    """A moment in a run."""

    slots: tuple[int, ...]
    streams: tuple[tuple[int, ...], ...]
    users: tuple[int, ...]
    history: int
    """Which writes took effect: a number that the world knows, because a state is hashed whenever it is met."""
    workers: tuple[Worker, ...]
    crashes: int
    zombies: int
    lost: frozenset[int]
    known: frozenset[tuple[RegionId, Rank]]
    rows: tuple[Row | None, ...] = ()
    """What is owed: home region times the number of regions, plus the other one."""
    drainer: Drainer | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a search saw; without a violation it is complete."""

    states: int
    quiescent: int
    violation: str | None = None
    trace: tuple[str, ...] = ()


class Violation(Exception):
    """An invariant does not hold."""
