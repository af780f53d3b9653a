"""What a search through mode `active-active` is about: users' writes, a start, faults, what must hold at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from replicator.domain.identifiers import RegionId
from replicator.domain.modes.active_active.mesh import ActivePolicy, Mesh
from replicator.domain.modes.active_active.replicate import Finished, replicate_active
from replicator.domain.modes.requests import GetItem, Response, StampRequest, Steps
from replicator.domain.owed_keys import settles
from replicator.domain.records import ChangeRecord
from replicator.laboratory.memory.stamped import StampedSlot, answer_stamped
from tests.simulation.active_owed import Owed, draining, owing

REGIONS = tuple(RegionId(name) for name in ("aa", "bb", "cc", "dd", "ee"))
LETTERS = "ABCDE"
GENERATION = 1_700_000_000_000

Answer = Callable[[StampedSlot, GetItem | StampRequest, str], tuple[StampedSlot, Response]]
Mode = Callable[[ChangeRecord, Mesh], Steps[Finished]]
Drain = Callable[[Mesh, Owed], Steps[None]]


@dataclass(frozen=True, slots=True)
class Op:
    """A user's write, at a whole second by the clock of its region.

    P puts, U updates, D deletes, R reads now and puts the whole image later with what has become an old stamp, T is an
    expiry, N puts what is there already, I puts the image of the start back with its stamp (docs/protocol.md, L3).
    """

    kind: str
    second: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """What users write in each region, what stands there at the start, and how much may go wrong.

    `start`: None (no item), or `seed` (stamped at the beginning of time), `ahead` (stamped in the future), `tombstone`
    (deleted in the future, in effect everywhere), `buried` (deleted before everything, in effect everywhere), followed
    by the region whose version it is: `("seed", 0)`.
    """

    ops: tuple[tuple[Op, ...], ...]
    start: tuple[str, int] | None = None
    crashes: int = 0
    zombies: int = 0
    policy: ActivePolicy = field(default_factory=lambda: ActivePolicy(waits=0))
    checks: frozenset[str] = frozenset({"winner", "log", "undelete"})
    """Beyond convergence: `winner` (the greatest version won), `log` (every lost write was logged), `undelete` (nothing
    that only a user had deleted was put back by the daemon in its own region, not even for a moment)."""
    logged: frozenset[int] = frozenset()
    """Writes that must be logged in any case, counted from 1 through all regions."""
    bound: int = 40
    """Daemon writes to items, beyond which they count as endless."""
    expiry: str = ""
    """Tombstones may expire: `` never, `safe` once nothing older can be replayed or written, `any` at any time."""

    away: tuple[int, ...] = ()
    """Regions that may not answer, at any step that brings them something: they are owed the key then."""
    drainers: int = 1
    """How many at a time bring what is owed."""
    unheard: bool = False
    """What was asked may be done all the same, and only its answer is lost."""
    stops: bool = False
    """A drainer may stop at any step, as when its region does not answer again; else it stops only in a crash."""

    joins: bool = False
    """The last region joins a mesh of the others. Their workers do not know it until, at any moment, a new one takes
    over that does, and reads everything again. Zombies of the old ones do not know it either."""

    def __str__(self) -> str:
        writes = " | ".join(
            f"{letter} {' '.join(f'{op.kind}{op.second}' for op in ops) or '-'}"
            for letter, ops in zip(LETTERS, self.ops, strict=False)
        )
        start = "absent" if self.start is None else f"{self.start[0]} {LETTERS[self.start[1]]}"
        more = " joins" if self.joins else ""
        if self.away:
            away = "".join(LETTERS[region] for region in self.away)
            more += f" away={away} drainers={self.drainers}{' unheard' * self.unheard}{' stops' * self.stops}"
        return f"{writes}  start={start} crashes={self.crashes} zombies={self.zombies}{more}"


def ops(text: str) -> tuple[tuple[Op, ...], ...]:
    """Writes as `A` and `B` separated by `|`, each a letter and a second: `P1 D2 | U1`."""
    return tuple(tuple(Op(word[0], int(word[1:])) for word in part.split()) for part in text.split("|"))


@dataclass(frozen=True, slots=True)
class Variant:
    """The world and the mode as they run; tests pass others to show what a rule is for."""

    answer: Answer = answer_stamped
    mode: Mode = replicate_active
    nonces: bool = True
    owing: Mode = owing
    """In place of `mode` where something may be owed."""
    drain: Drain = draining
    may_settle: Callable[[str, str], bool] = settles


PRODUCTION = Variant()
