"""Every interleaving of users in all regions, workers, crashes and zombies, around the production mode `versioned`.

One key, two or three regions. A step is one request of `replicate_versioned`, answered by the memory region; what it
changes becomes a record of that region's stream, as a user's write does. A worker's state is a node of `Machine`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
from tests.simulation.versioned_states import Drainer, Scenario, State, Violation, Worker, Write

Move = tuple[str, int, int]
"""What happens, to which user or worker, and where."""

Stood = tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]
"""The slots and the streams of all regions."""


class World:
    """One scenario: what can happen next, and what must hold in the end."""

    def __init__(self, scenario: Scenario, machine: Machine) -> None:
        self._scenario = scenario
        self._machine = machine
        self._histories: list[tuple[Write, ...]] = []
        self._history_numbers: dict[tuple[Write, ...], int] = {}
        self._away: dict[tuple[int, int], bool] = {}

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
            self._history(writes),
            workers,
            self._scenario.crashes,
            self._scenario.zombies,
            frozenset(),
            frozenset(),
            (None,) * (count * count) if self._scenario.away else (),
        )

    def _history(self, writes: tuple[Write, ...]) -> int:
        if writes not in self._history_numbers:
            self._history_numbers[writes] = len(self._histories)
            self._histories.append(writes)
        return self._history_numbers[writes]

    def moves(self, state: State) -> list[Move]:
        """Everything that can happen next; what only ends zombies comes last."""
        scenario, streams = self._scenario, state.streams
        moves: list[Move] = [
            ("user", region, 0)
            for region, (done, ops) in enumerate(zip(state.users, scenario.ops, strict=True))
            if done < len(ops)
        ]
        faults = state.crashes or state.zombies or len(state.workers) > len(streams)
        for index, worker in enumerate(state.workers):
            length = len(streams[worker.shard])
            self._steps(moves, index, worker, length)
            if faults:
                moves.extend(self._faults(state, index, worker, length))
        if scenario.away:
            if state.drainer is not None:
                moves += (("drains", 0, 0), ("stops", 0, 0))
            else:
                moves.extend(self._drains(state))
        return moves

    def _steps(self, moves: list[Move], index: int, worker: Worker, length: int) -> None:
        _, at, done, node, _ = worker
        if node != NOTHING:
            moves.append(("step", index, at))
            if self._scenario.away and self._asks_away(node, worker.shard):
                moves.append(("away", index, at))
                if self._scenario.unheard:
                    moves.append(("unheard", index, at))
        elif self._scenario.unordered:
            moves.extend(("step", index, position) for position in range(length) if not done >> position & 1)
        elif at < length:
            moves.append(("step", index, at))

    def _asks_away(self, node: int, home: int) -> bool:
        """Whether a region is asked that may not answer."""
        found = self._away.get((node, home))
        if found is None:
            request = self._machine.nodes[node].request
            region = self._machine.regions.index(request.region) if isinstance(request, At) else home
            found = self._away[node, home] = region != home and region in self._scenario.away
        return found

    def _drains(self, state: State) -> Iterator[Move]:
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
                node = self._machine.follow(worker.node, SILENCE)
                return self._gone_on(state, index, position, node, self._stood(state, region, slot))
            case "away":
                node = self._machine.follow(worker.node, SILENCE)
                return self._gone_on(state, index, position, node, (state.slots, state.streams))
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
        writes = self._histories[state.history]
        for write in writes:
            if before is not None and write.image == held:
                seen = write.seen | {held}
        if new is None:
            assert before is not None
            rank = rank_of_delete(VERSION, before)
        else:
            rank = rank_of(VERSION, new)
        after = self._changed(state, region, machine.image_number(new))
        history = self._history((*writes, Write(machine.image_number(new), rank, seen)))
        return after._replace(users=users, history=history)

    def _changed(self, state: State, region: int, item: int) -> State:
        """Let an item stand in a region, with a record of it in its stream."""
        machine = self._machine
        slot = machine.with_item(state.slots[region], item)
        return self._recorded(state, region, slot)

    def _recorded(self, state: State, region: int, slot: int) -> State:
        slots, streams = self._stood(state, region, slot)
        return state._replace(slots=slots, streams=streams)

    def _stood(self, state: State, region: int, slot: int) -> Stood:
        """All slots and streams once a slot has become another one."""
        slots, streams, images = state.slots, state.streams, self._machine.slot_images
        held = slots[region]
        if slot == held:
            return slots, streams
        old, new = images[held], images[slot]
        slots = (*slots[:region], slot, *slots[region + 1 :])
        if old == new:
            return slots, streams
        stream = (*streams[region], self._machine.record(region, old, new))
        if len(stream) > LONGEST_STREAM:
            raise Violation("ECHO: writes without end")
        return slots, (*streams[:region], stream, *streams[region + 1 :])

    def _step(self, state: State, index: int, worker: Worker, position: int) -> State:
        machine = self._machine
        node = worker.node
        if node == NOTHING:
            record = state.streams[worker.shard][position]
            node = machine.root(record, state.known, owing=bool(self._scenario.away))
        request = machine.nodes[node].request
        if isinstance(request, At):
            region = machine.regions.index(request.region)
            slot, node = machine.step(state.slots[region], node)
            return self._gone_on(state, index, position, node, self._stood(state, region, slot))
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
        return self._gone_on(state, index, position, node, (state.slots, state.streams))

    def _gone_on(self, state: State, index: int, position: int, node: int, stood: Stood) -> State:
        """Let a worker be at a node; `stood`: how all regions stand then."""
        slots, streams = stood
        _, _, users, history, workers, crashes, zombies, lost, known, rows, drainer = state
        shard, _, done, _, zombie = workers[index]
        ended = self._machine.nodes[node].ended
        if ended is None:
            moved = Worker(shard, position, done, node, zombie)
        elif self._scenario.unordered:
            moved = Worker(shard, 0, done | 1 << position, NOTHING, zombie)
        else:
            moved = Worker(shard, position + 1, done, NOTHING, zombie)
        if ended is not None and self._scenario.remembers:
            known |= {(region, ended.rank) for region in ended.regions}
        workers = (*workers[:index], moved, *workers[index + 1 :])
        return State(slots, streams, users, history, workers, crashes, zombies, lost, known, rows, drainer)

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
        slots, streams = self._stood(state, region, slot)
        drainer = Drainer(drainer.pair, drainer.version, node)
        return state._replace(slots=slots, streams=streams, drainer=drainer)

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
        writes = self._histories[state.history]
        if not writes:
            return
        best = max(writes, key=lambda write: write.rank)
        if items[0] != best.image:
            raise Violation(f"WINNER: {machine.images[items[0]]} instead of {best.rank.shown}")
        if self._scenario.logged:
            self._check_log(state, writes, best)

    def _check_log(self, state: State, writes: Sequence[Write], best: Write) -> None:
        nothing = self._machine.nothing
        lost = [write for write in writes if write.image not in {best.image, nothing} and write.image not in best.seen]
        owned = frozenset[int]().union(*(write.seen for write in writes))
        for write in lost:
            if write.image not in owned and write.image not in state.lost:
                raise Violation(f"UNLOGGED: {write.rank.shown} lost")
