"""Every interleaving of users in all regions, workers, crashes and zombies, around the production mode `versioned`.

One key, two or three regions. A step is one request of `replicate_versioned`, answered by the memory region; what it
changes becomes a record of that region's stream, as a user's write does. A worker's state is a node of `Machine`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from replicator.domain.conflicts import LogConflict
from replicator.domain.identifiers import RegionId
from replicator.domain.modes.requests import At, Done
from replicator.domain.modes.versioned.ranks import Rank, rank_of, rank_of_delete
from tests.simulation.active_owed import SILENCE, Settle
from tests.simulation.versioned_machine import (
    LONGEST_STREAM,
    NOTHING,
    VERSION,
    Machine,
    image,
    written,
)
from tests.simulation.versioned_owed import LookUp, Miss, Owe, Row, SettleRead, put

# -- scenarios and states ------------------------------------------------------------------------------------------


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
    writes: tuple[Write, ...]
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


# -- moves ---------------------------------------------------------------------------------------------------------

Move = tuple[str, int, int]
"""What happens, to which user or worker, and where."""


class World:
    """One scenario: what can happen next, and what must hold in the end."""

    def __init__(self, scenario: Scenario, machine: Machine) -> None:
        self._scenario = scenario
        self._machine = machine

    def start(self) -> State:
        machine, count = self._machine, len(self._scenario.ops)
        first = image(0, "1", rising=self._scenario.rising)
        writes: tuple[Write, ...] = ()
        slot = machine.slot(machine.nothing, None)
        if self._scenario.start == "seeded":
            number = machine.image_number(first)
            slot, writes = machine.slot(number, None), (Write(number, rank_of(VERSION, first), frozenset()),)
        elif self._scenario.start == "buried":
            rank = rank_of_delete(VERSION, first)
            slot, writes = machine.slot(machine.nothing, rank.version), (Write(machine.nothing, rank, frozenset()),)
        workers = tuple(Worker(region) for region in range(count))
        nothing: tuple[int, ...] = ()
        return State(
            (slot,) * count,
            (nothing,) * count,
            (0,) * count,
            writes,
            workers,
            self._scenario.crashes,
            self._scenario.zombies,
            frozenset(),
            frozenset(),
            (None,) * (count * count) if self._scenario.away else (),
        )

    def moves(self, state: State) -> Iterator[Move]:
        """Everything that can happen next; what only ends zombies comes last."""
        for region, ops in enumerate(self._scenario.ops):
            if state.users[region] < len(ops):
                yield "user", region, 0
        for index, worker in enumerate(state.workers):
            length = len(state.streams[worker.shard])
            yield from self._steps(index, worker, length)
            yield from self._faults(state, index, worker, length)
        if self._scenario.away:
            yield from self._drains(state)

    def _steps(self, index: int, worker: Worker, length: int) -> Iterator[Move]:
        if worker.node != NOTHING:
            yield "step", index, worker.position
            if self._scenario.away and self._asks_away(worker.node, worker.shard):
                yield "away", index, worker.position
                if self._scenario.unheard:
                    yield "unheard", index, worker.position
        elif self._scenario.unordered:
            for position in range(length):
                if not worker.done >> position & 1:
                    yield "step", index, position
        elif worker.position < length:
            yield "step", index, worker.position

    def _asks_away(self, node: int, home: int) -> bool:
        """Whether a region is asked that may not answer."""
        request = self._machine.nodes[node].request
        if not isinstance(request, At):
            return False
        region = self._machine.regions.index(request.region)
        return region != home and region in self._scenario.away

    def _drains(self, state: State) -> Iterator[Move]:
        if state.drainer is not None:
            yield "drains", 0, 0
            yield "stops", 0, 0
            return
        for pair, row in enumerate(state.rows):
            if row is not None:
                yield "begins", 0, pair
        if self._scenario.expires and self._is_quiet(state):
            for region, slot in enumerate(state.slots):
                tombstone = self._machine.tombstone(slot)
                if tombstone is not None and self._is_past(state, Rank(tombstone, deleted=True, content="").text):
                    yield "expires", region, 0

    @staticmethod
    def _is_past(state: State, deleted: str) -> bool:
        return all(row is None or row.decided < deleted for row in state.rows)

    def _faults(self, state: State, index: int, worker: Worker, length: int) -> Iterator[Move]:
        if worker.zombie:
            yield "dies", index, 0
            return
        if state.crashes and (worker.node != NOTHING or worker.position or worker.done):
            for position in range(1 if self._scenario.unordered else worker.position + 1):
                yield "crashes", index, position
        if state.zombies and length:
            for position in range(min(worker.position, length - 1) + 1):
                yield "zombie", index, position

    def after(self, state: State, move: Move) -> State:
        """What a move leads to."""
        kind, index, position = move
        match kind:
            case "user":
                return self._user(state, index)
            case "begins" | "drains" | "stops":
                return self._drain(state, kind, position)
            case "expires":
                return self._expired(state, index)
            case _:
                return self._worker(state, kind, index, position)

    def _worker(self, state: State, kind: str, index: int, position: int) -> State:
        worker = state.workers[index]
        match kind:
            case "step":
                return self._step(state, index, worker, position)
            case "unheard":
                request = self._machine.nodes[worker.node].request
                assert isinstance(request, At)
                region = self._machine.regions.index(request.region)
                slot, _ = self._machine.step(state.slots[region], worker.node)
                done = self._recorded(state, region, slot)
                return self._gone_on(done, index, worker, position, self._machine.follow(worker.node, SILENCE))
            case "away":
                return self._gone_on(state, index, worker, position, self._machine.follow(worker.node, SILENCE))
            case "dies":
                return state._replace(workers=state.workers[:index] + state.workers[index + 1 :])
            case "crashes":
                return self._with(state, index, Worker(worker.shard, position))._replace(crashes=state.crashes - 1)
            case _:
                zombie = Worker(worker.shard, position, zombie=True)
                return state._replace(workers=(*state.workers, zombie), zombies=state.zombies - 1)

    def _expired(self, state: State, region: int) -> State:
        slot = self._machine.without_tombstone(state.slots[region])
        slots = (*state.slots[:region], slot, *state.slots[region + 1 :])
        return state._replace(slots=slots, crashes=0, zombies=0)

    @staticmethod
    def _with(state: State, index: int, worker: Worker) -> State:
        return state._replace(workers=(*state.workers[:index], worker, *state.workers[index + 1 :]))

    def _user(self, state: State, region: int) -> State:
        machine, scenario = self._machine, self._scenario
        op = scenario.ops[region][state.users[region]]
        users = (*state.users[:region], state.users[region] + 1, *state.users[region + 1 :])
        number = 1 + sum(map(len, scenario.ops[:region])) + state.users[region]
        held = machine.slot_images[state.slots[region]]
        before = machine.images[held]
        new = written(op, number, before, rising=scenario.rising)
        if new is None and before is None:
            return state._replace(users=users)
        seen = frozenset[int]()
        for write in state.writes:
            if before is not None and write.image == held:
                seen = write.seen | {held}
        if new is None:
            assert before is not None
            rank = rank_of_delete(VERSION, before)
        else:
            rank = rank_of(VERSION, new)
        after = self._changed(state, region, machine.image_number(new))
        return after._replace(users=users, writes=(*state.writes, Write(machine.image_number(new), rank, seen)))

    def _changed(self, state: State, region: int, item: int) -> State:
        """Let an item stand in a region, with a record of it in its stream."""
        machine = self._machine
        slot = machine.with_item(state.slots[region], item)
        return self._recorded(state, region, slot)

    def _recorded(self, state: State, region: int, slot: int) -> State:
        machine = self._machine
        old, new = machine.slot_images[state.slots[region]], machine.slot_images[slot]
        slots = (*state.slots[:region], slot, *state.slots[region + 1 :])
        if old == new:
            return state._replace(slots=slots)
        stream = (*state.streams[region], machine.record(region, old, new))
        if len(stream) > LONGEST_STREAM:
            raise Violation("ECHO: writes without end")
        return state._replace(slots=slots, streams=(*state.streams[:region], stream, *state.streams[region + 1 :]))

    def _step(self, state: State, index: int, worker: Worker, position: int) -> State:
        machine = self._machine
        node = worker.node
        if node == NOTHING:
            record = state.streams[worker.shard][position]
            node = machine.root(record, state.known, owing=bool(self._scenario.away))
        request = machine.nodes[node].request
        if isinstance(request, LogConflict):
            lost = state.lost
            if self._scenario.logged and request.loser is not None:
                lost |= {machine.image_number(request.loser)}
            state, node = state._replace(lost=lost), machine.follow(node, Done())
        elif isinstance(request, Owe):
            state, node = self._owed(state, worker.shard, position, request), machine.follow(node, Done())
        elif isinstance(request, Miss | LookUp | SettleRead):
            state, answer = self._asked_rows(state, worker.shard, position, request)
            node = machine.follow(node, answer)
        elif isinstance(request, At):
            region = machine.regions.index(request.region)
            slot, node = machine.step(state.slots[region], node)
            state = self._recorded(state, region, slot)
        return self._gone_on(state, index, worker, position, node)

    def _gone_on(self, state: State, index: int, worker: Worker, position: int, node: int) -> State:
        ended = self._machine.nodes[node].ended
        if ended is None:
            return self._with(state, index, worker._replace(position=position, node=node))
        if self._scenario.remembers:
            state = state._replace(known=state.known | {(region, ended.rank) for region in ended.regions})
        if self._scenario.unordered:
            moved = worker._replace(position=0, node=NOTHING, done=worker.done | 1 << position)
        else:
            moved = worker._replace(position=position + 1, node=NOTHING)
        return self._with(state, index, moved)

    def _asked_rows(
        self, state: State, home: int, position: int, request: Miss | LookUp | SettleRead
    ) -> tuple[State, Row | bool]:
        """What a worker asks of the owed table beside writing rows."""
        pair = self._pair(home, request.region)
        if isinstance(request, Miss):
            state = self._owed(state, home, position, request)
            row = state.rows[pair]
            assert row is not None
            return state, row
        standing = state.rows[pair]
        if isinstance(request, LookUp):
            return state, standing is not None
        if standing is not None and self._machine.owing.may_settle(request.version, standing.version):
            state = state._replace(rows=(*state.rows[:pair], None, *state.rows[pair + 1 :]))
        return state, True

    def _pair(self, home: int, other: RegionId) -> int:
        return home * len(self._machine.regions) + self._machine.regions.index(other)

    def _owed(self, state: State, home: int, position: int, owe: Owe | Miss) -> State:
        """A row is written."""
        pair = self._pair(home, owe.region)
        row = Row(self._machine.owing.version(position, owe.decided), owe.decided, owe.kept)
        return state._replace(rows=(*state.rows[:pair], put(state.rows[pair], row), *state.rows[pair + 1 :]))

    def _drain(self, state: State, kind: str, pair: int) -> State:
        machine = self._machine
        if kind == "begins":
            row = state.rows[pair]
            assert row is not None
            home, other = divmod(pair, len(state.slots))
            node = machine.drain(home, machine.regions[other], row.kept)
            return state._replace(drainer=Drainer(pair, row.version, node))
        drainer = state.drainer
        assert drainer is not None
        if kind == "stops":
            return state._replace(drainer=None)
        request = machine.nodes[drainer.node].request
        if isinstance(request, Settle):
            standing = state.rows[drainer.pair]
            if standing is not None and machine.owing.may_settle(drainer.version, standing.version):
                rows = (*state.rows[: drainer.pair], None, *state.rows[drainer.pair + 1 :])
                state = state._replace(rows=rows)
            return state._replace(drainer=None)
        if isinstance(request, LogConflict):
            lost = state.lost
            if self._scenario.logged and request.loser is not None:
                lost |= {machine.image_number(request.loser)}
            node = machine.follow(drainer.node, Done())
            return state._replace(lost=lost, drainer=drainer._replace(node=node))
        assert isinstance(request, At)
        region = machine.regions.index(request.region)
        slot, node = machine.step(state.slots[region], drainer.node)
        return self._recorded(state, region, slot)._replace(drainer=drainer._replace(node=node))

    # -- the end ---------------------------------------------------------------------------------------------------

    def quiescent(self, state: State) -> bool:
        """Whether nothing is left to do."""
        return state.drainer is None and not any(state.rows) and self._is_quiet(state)

    def _is_quiet(self, state: State) -> bool:
        """Whether users and workers have nothing left to do."""
        if any(done < len(ops) for done, ops in zip(state.users, self._scenario.ops, strict=True)):
            return False
        return all(
            worker.node == NOTHING and not worker.zombie and self._idle(worker, len(state.streams[worker.shard]))
            for worker in state.workers
        )

    def _idle(self, worker: Worker, length: int) -> bool:
        return worker.done == (1 << length) - 1 if self._scenario.unordered else worker.position == length

    def check(self, state: State) -> None:
        """All regions equal, the greatest write won, and what it beat is logged."""
        machine = self._machine
        items = [machine.slot_images[slot] for slot in state.slots]
        if len(set(items)) > 1:
            raise Violation(f"DIVERGENCE: {[machine.images[item] and machine.images[item].wire for item in items]}")  # type: ignore[union-attr]
        if not state.writes:
            return
        best = max(state.writes, key=lambda write: write.rank)
        if items[0] != best.image:
            raise Violation(f"WINNER: {machine.images[items[0]]} instead of {best.rank.shown}")
        if self._scenario.logged:
            self._check_log(state, best)

    def _check_log(self, state: State, best: Write) -> None:
        nothing = self._machine.nothing
        lost = [
            write for write in state.writes if write.image not in {best.image, nothing} and write.image not in best.seen
        ]
        owned = frozenset[int]().union(*(write.seen for write in state.writes))
        for write in lost:
            if write.image not in owned and write.image not in state.lost:
                raise Violation(f"UNLOGGED: {write.rank.shown} lost")
