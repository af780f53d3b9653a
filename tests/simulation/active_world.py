"""Every interleaving of users, workers that crash and workers that should be dead, around mode `active-active`.

One key, two to five regions. A step is one request of the production generators, answered by the memory adapter, so
that whatever can happen between two requests does happen somewhere in the search. Everything that states are made of
is interned, so a state is a tuple of small integers, and what a step leads to is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from replicator.domain.conflicts import LogConflict
from replicator.domain.identifiers import RegionId
from replicator.domain.modes.active_active import mesh as mesh_module
from replicator.domain.modes.active_active.mesh import Mesh
from replicator.domain.modes.requests import Done, FoundAhead, LookAhead, Remover
from replicator.domain.stamps import NO_ROW, Version, held
from replicator.domain.values import replace
from replicator.laboratory.memory.stamped import StampedSlot
from tests.simulation.active_owed import SILENCE, Owe, Owed, Rows
from tests.simulation.active_places import KEY, Place, ahead, start_places
from tests.simulation.active_regions import Regions
from tests.simulation.active_scenario import GENERATION, PRODUCTION, REGIONS, Op, Scenario, Variant
from tests.simulation.active_tree import DONE, NOWHERE, Tree
from tests.simulation.active_truth import Truth
from tests.simulation.active_users import SNAPSHOTS, Users

# A pure function, asked for the same few images all the time.
vars(mesh_module)["held"] = lru_cache(maxsize=1 << 16)(held)

State = tuple[int, ...]
Move = tuple[str, int, int]
"""What happens, to which of them, and with which position. What: `user`, `step`, `away`, `crash`, `zombie`, `die`,
`join`, `drain`, `drop`, `expire`.

Of a step the position says whether what the worker looks for ahead was read already (0) or not yet (1); `away` is a
step whose region does not answer. `drain` begins with a row, `drop` ends so that it is begun anew.
"""

NODES = 1 << 32
_ZOMBIES = 1 << 8
_ROWS = 1 << 16
"""A worker is its position times `NODES`, plus the node it stands at (0: before a record). A zombie's position is in
the shard of a region: region times `_ZOMBIES`, plus the position. A drainer is the row that it read (home region times
the number of regions, plus the other region; that times `_ROWS`, plus the row's number) times `NODES`, plus the node; 0
when it has none in hand."""


class World:
    """All states of one scenario and the moves between them.

    Longer than other classes: this is the hot loop of every search, where one more call costs more than what it does.
    """

    def __init__(self, scenario: Scenario, variant: Variant = PRODUCTION) -> None:
        self.scenario = scenario
        self.regions = len(scenario.ops)
        names = REGIONS[: self.regions]
        meshes = [
            Mesh(home, tuple(name for name in names if name != home), GENERATION, scenario.policy) for home in names
        ]
        old = [replace(mesh, others=tuple(name for name in mesh.others if name != names[-1])) for mesh in meshes]
        # Layout of a state.
        regions = self.regions
        self._user, self.worker, self._rest = regions, 2 * regions, 3 * regions
        self.owed = self._rest + 4
        self.drainer = self.owed + bool(scenario.away)
        self.zombie = self.drainer + scenario.drainers * bool(scenario.away)
        self._one_zombie = self.zombie + 1
        mode = variant.owing if scenario.away else variant.mode
        self.tree = Tree(mode, [*meshes, *old[:-1], meshes[-1]], variant.drain, self.owed)
        self.rows = Rows(regions, variant.may_settle)
        self._silence = self.tree.response(SILENCE)
        self._old = self.regions if scenario.joins else 0
        """Where the meshes of old workers begin; 0: there are none. A place beyond `_ZOMBIES` marks an old worker."""
        self.met = Regions(scenario, variant, self.tree)
        self.users = Users(scenario, self.met)
        self._begun: dict[tuple[int, int], int] = {}
        self._steps: dict[tuple[int, int], tuple[int, int]] = {}
        self._done = self.tree.response(Done())
        self.start: State = (
            *map(self.met.number, start_places(scenario)),
            *((0,) * regions),
            *(self._old * _ZOMBIES * NODES if region < regions - 1 else 0 for region in range(regions)),
            self.users.start,
            0,
            scenario.crashes,
            scenario.zombies,
            *((0,) * (self.zombie - self.owed)),
        )

    # -- everything that can happen --------------------------------------------------------------------------------

    def moves(self, state: State) -> Iterator[tuple[Move, State]]:
        """Everything that can happen next, by name."""
        for region in range(self.regions):
            if state[self._user + region] < self.users.ends[region]:
                yield ("user", region, 0), self.user(state, region)
        for region in range(self.regions):
            yield from self._worker_moves(state, region)
        for index in range(self.zombie, len(state)):
            yield from self._named_steps(state, index)
            yield ("die", index, 0), state[:index] + state[index + 1 :]
        for index in range(self.drainer, self.zombie):
            if state[index]:
                yield ("step", index, 0), self._drained(state, index)
                for after in self._stopped(state, index):
                    yield ("drop", index, 0), after
            else:
                for pair, begun in self._drains(state):
                    yield ("drain", index, pair), self._changed(state, index, begun)
        if self.scenario.expiry:
            yield from self._expiries(state)

    def _worker_moves(self, state: State, region: int) -> Iterator[tuple[Move, State]]:
        index = self.worker + region
        yield from self._named_steps(state, index)
        for earlier in self._crashes(state, region):
            yield ("crash", region, earlier), self.crash(state, region, earlier)
        if self._is_old(state, region):
            yield ("join", region, 0), self.take_over(state, region)
        if state[self._rest + 3]:
            for earlier in self._wakes(state, region):
                yield ("zombie", region, earlier), self.wake(state, region, earlier)

    def _named_steps(self, state: State, index: int) -> Iterator[tuple[Move, State]]:
        for blind, after in enumerate(self.steps(state, index)):
            yield ("step", index, blind), after
        if self.scenario.away:
            for blind, after in enumerate(self._aways(state, index)):
                yield ("away", index, blind), after

    def _crashes(self, state: State, region: int) -> list[int]:
        """Where a new worker of a region may begin after a crash of the present one."""
        worker = state[self.worker + region]
        if not state[self._rest + 2] or not worker:
            return []
        known = worker // NODES // _ZOMBIES * _ZOMBIES
        return [place for place in range(known, worker // NODES + 1) if place * NODES != worker]

    def _wakes(self, state: State, region: int) -> range:
        """Where a zombie of a region's shard may stand."""
        return range(min(state[self.worker + region] // NODES % _ZOMBIES + 1, self.met.lengths[state[region]]))

    def apply(self, state: State, move: Move) -> State:
        """Let one thing happen."""
        return dict(self.moves(state))[move]

    # -- and what of it a search must follow -----------------------------------------------------------------------

    def nexts(self, state: State) -> list[State]:
        """States to go on with in a complete search: two kinds of moves that make no difference are left out.

        A zombie that dies is one that never takes another step, so it need not die: `is_quiescent` does not wait for
        it. A worker that begins anew, or a zombie that wakes, changes nothing that others see before its first step, so
        it does both at once. (Not so where a crash may move the place that a zombie can wake at, and where tombstones
        expire once all is idle.) `named` gives the moves of such a step.
        """
        if self.scenario.expiry:
            return [after for _, after in self.moves(state)]
        found: list[State] = []
        for region, end in enumerate(self.users.ends):
            if state[self._user + region] < end:
                found.append(self.user(state, region))
        for index in range(self.worker, self._rest):
            found += self.steps(state, index)
        for index in range(self.zombie, len(state)):
            found += self.steps(state, index)
        if state[self._rest + 2] or state[self._rest + 3]:
            for region in range(self.regions):
                found += self._begun_anew(state, region)
        if self.scenario.away:
            found += self._owing(state)
        if self._old:
            found += [self.take_over(state, region) for region in range(self.regions) if self._is_old(state, region)]
        return found

    def _owing(self, state: State) -> list[State]:
        """What regions that do not answer, and drainers, lead to."""
        found: list[State] = []
        for index in (*range(self.worker, self._rest), *range(self.zombie, len(state))):
            found += self._aways(state, index)
        for index in range(self.drainer, self.zombie):
            if state[index]:
                found += [self._drained(state, index), *self._stopped(state, index)]
            else:
                found += [self._changed(state, index, begun) for _, begun in self._drains(state)]
        return found

    def _begun_anew(self, state: State, region: int) -> list[State]:
        """First steps of workers that begin anew behind a crash, and of zombies that wake."""
        found: list[State] = []
        for earlier in self._crashes(state, region):
            found += self.steps(self.crash(state, region, earlier), self.worker + region)
        if state[self._rest + 3]:
            for earlier in self._wakes(state, region):
                woken = self.wake(state, region, earlier)
                found += [woken] if state[self._rest + 2] else self._first_steps(state, woken)
        return found

    def _first_steps(self, before: State, woken: State) -> list[State]:
        """What a zombie that has just woken does first."""
        old, new = before[self.zombie :], woken[self.zombie :]
        index = next((at for at, zombie in enumerate(old) if new[at] != zombie), len(old))
        return self.steps(woken, self.zombie + index)

    def named(self, state: State, after: State) -> tuple[Move, ...]:
        """The moves from a state to one of its `nexts`."""
        for move, then in self.moves(state):
            if then == after:
                return (move,)
        for move, then in self.moves(state):
            if move[0] in {"crash", "zombie"}:
                for step, end in self.moves(then):
                    if step[0] == "step" and end == after:
                        return (move, step)
        raise ValueError("no move leads there")

    # -- faults ----------------------------------------------------------------------------------------------------

    def crash(self, state: State, region: int, position: int) -> State:
        """A worker dies and another one begins at an earlier record, or at the same one anew."""
        changed = list(state)
        changed[self.worker + region] = position * NODES
        changed[self._rest + 2] -= 1
        return tuple(changed)

    def _is_old(self, state: State, region: int) -> bool:
        """Whether a region's worker does not know the region that joins."""
        return state[self.worker + region] >= _ZOMBIES * NODES

    def take_over(self, state: State, region: int) -> State:
        """An old worker is gone, and one that knows all members reads from the first record."""
        changed = list(state)
        changed[self.worker + region] = 0
        return tuple(changed)

    def wake(self, state: State, region: int, position: int) -> State:
        """A second worker of a shard turns out to be alive."""
        changed = list(state[: self.zombie])
        changed[self._rest + 3] -= 1
        mesh = region + state[self.worker + region] // NODES // _ZOMBIES
        zombies = sorted((*state[self.zombie :], (mesh * _ZOMBIES + position) * NODES))
        return (*changed, *zombies)

    # -- workers ---------------------------------------------------------------------------------------------------

    def steps(self, state: State, index: int) -> list[State]:
        """One request of a worker: nothing if it has nothing to do, two ends if it matters how far it has read.

        Records that ask for nothing are passed on the way. What no region answers takes no step of its own, but is done
        right before the next request that one answers. Nothing is missed by that: a wait just ends; a removal that a
        worker finds ahead was there before and stays, and one that it had not read yet is not found; and a worker that
        dies behind an entry of the log has done more than one that died before it.
        """
        worker = state[index]
        node = worker % NODES
        mesh = self.mesh(state, index)
        region = mesh % self.regions
        if not node:
            worker = self._begin(state[region], mesh, worker)
            node = worker % NODES
            if not node:
                return [] if worker == state[index] else [self._replaced(state, index, worker)]
        where = self.tree.asked[node][0]
        if where < 0:
            return self._unplaced(state, index, worker, region)
        return [self._asked(state, index, worker, where)]

    def _begin(self, place: int, mesh: int, worker: int) -> int:
        """The next record that asks for anything; the end of the stream when none does."""
        stand = worker // NODES
        position = stand % _ZOMBIES
        key = place, mesh * _ZOMBIES + position
        begun = self._begun.get(key)
        if begun is None:
            begun = self._begun[key] = self._passed(place, mesh, position)
        return (stand - position) * NODES + begun

    def _passed(self, place: int, mesh: int, position: int) -> int:
        for record in self.met.places[place].stream[position:]:
            node = self.tree.root(mesh, record)
            if self.tree.asked[node][0] != DONE:
                return position * NODES + node
            position += 1
        return position * NODES

    def _asked(self, state: State, index: int, worker: int, where: int) -> State:
        """Ask the region that a worker's node names."""
        step = self._steps.get((worker, state[where]))
        if step is None:
            node = worker % NODES
            if where < self.regions:
                place, response = self.met.answer(state[where], node, self.tree.asked[node][1])
            else:
                place, response = self._owe(state, index, node), self._done
            step = place, self._behind(worker, self._child(node, response))
            self._steps[worker, state[where]] = step
        changed = list(state)
        changed[where], changed[index] = step
        if len(changed) > self._one_zombie:
            changed[self.zombie :] = sorted(changed[self.zombie :])
        return tuple(changed)

    def _behind(self, worker: int, node: int) -> int:
        """A worker that has come to another node, or, at none, to the next record."""
        return worker - worker % NODES + (node or NODES)

    def _child(self, node: int, response: int) -> int:
        """The node behind an answer, 0 when the record is done then."""
        child = self.tree.child(node, response)
        return 0 if self.tree.asked[child][0] == DONE else child

    def _replaced(self, state: State, index: int, worker: int) -> State:
        changed = list(state)
        changed[index] = worker
        if len(changed) > self._one_zombie:
            changed[self.zombie :] = sorted(changed[self.zombie :])
        return tuple(changed)

    def _unplaced(self, state: State, index: int, worker: int, region: int) -> list[State]:
        ends = []
        for state_then, node in self.answered(state, worker % NODES, region):
            worker_then = self._behind(worker, node)
            where = self.tree.asked[node][0]
            if not node:
                ends.append(self._replaced(state_then, index, worker_then))
            elif where < 0:
                ends += self._unplaced(state_then, index, worker_then, region)
            else:
                ends.append(self._asked(state_then, index, worker_then, where))
        return ends

    def answered(self, state: State, node: int, region: int) -> Iterator[tuple[State, int]]:
        """What no region answers, with every answer that it may have: what comes of it, and the next node (0: none)."""
        match self.tree.request(node):
            case LogConflict() as entry:
                log = state[self._rest + 1] | 1 << self.met.loser(state, entry)
                state = (*state[: self._rest + 1], log, *state[self._rest + 2 :])
                yield state, self._child(node, self._done)
            case LookAhead(_, after):
                remover = ahead(self.met.places[state[region]].stream, after)
                for read in dict.fromkeys((remover, Remover.UNKNOWN)):
                    yield state, self._child(node, self.tree.response(FoundAhead(read)))
            case _:
                yield state, self._child(node, self._done)

    # -- regions that do not answer, and drainers ------------------------------------------------------------------

    def _pair(self, home: int, other: RegionId) -> int:
        return home * self.regions + REGIONS.index(other)

    def _owe(self, state: State, index: int, node: int) -> int:
        """The owed table after a worker has written a row."""
        row = self.tree.request(node)
        assert isinstance(row, Owe)
        return self.rows.put(state[self.owed], self._pair(self.mesh(state, index) % self.regions, row.region), row)

    def _aways(self, state: State, index: int) -> list[State]:
        """A worker asks a region that is not its own, and gets no answer."""
        worker = state[index]
        node = worker % NODES
        if not node:
            return []  # a record asks its home region first
        home = self.mesh(state, index) % self.regions
        ends, left = [], [(state, node)]
        while left:
            state_then, node = left.pop()
            where = self.tree.asked[node][0] if node else DONE
            if where == NOWHERE:
                left += self.answered(state_then, node, home)
            elif where in self.scenario.away and where != home:
                silent = self._behind(worker, self._child(node, self._silence))
                ends.append(self._replaced(state_then, index, silent))
                if self.scenario.unheard:
                    place, _ = self.met.answer(state_then[where], node, self.tree.asked[node][1])
                    if place != state_then[where]:
                        ends.append((*ends[-1][:where], place, *ends[-1][where + 1 :]))
        return ends

    def _changed(self, state: State, index: int, drainer: int) -> State:
        """The state with another value for a drainer; which of several drainers has it makes no difference."""
        changed = list(state)
        changed[index] = drainer
        changed[self.drainer : self.zombie] = sorted(changed[self.drainer : self.zombie])
        return tuple(changed)

    def _drains(self, state: State) -> Iterator[tuple[int, int]]:
        """Rows that a drainer may begin with: between which regions, and the drainer then."""
        for pair, row in enumerate(self.rows.tables[state[self.owed]]):
            if row is not None:
                root = self.tree.root(pair // self.regions, Owed(row.region, KEY, row.kept))
                yield pair, (pair * _ROWS + self.rows.row(row)) * NODES + root

    def _stopped(self, state: State, index: int) -> list[State]:
        """A drainer stops; the row that it read stays, and is begun anew."""
        if self.scenario.stops:
            return [self._changed(state, index, 0)]
        if not state[self._rest + 2]:
            return []
        crashed = self._changed(state, index, 0)
        return [(*crashed[: self._rest + 2], crashed[self._rest + 2] - 1, *crashed[self._rest + 3 :])]

    def _drained(self, state: State, index: int) -> State:
        """One request of a drainer."""
        drainer = state[index]
        node = drainer % NODES
        pair, row = divmod(drainer // NODES, _ROWS)
        where, request = self.tree.asked[node]
        changed = list(state)
        if where == self.owed:
            changed[where] = self.rows.settled(state[where], pair, self.rows.rows[row])
            drainer = 0
        else:
            changed[where], response = self.met.answer(state[where], node, request)
            drainer += self._child(node, response) - node
        return self._changed(tuple(changed), index, drainer)

    # -- users -----------------------------------------------------------------------------------------------------

    def user(self, state: State, region: int) -> State:
        """The next write of a region's user."""
        changed = list(state)
        changed[region], changed[self._rest], changed[self._user + region] = self.users.write(
            state, region, state[self._rest], state[self._user + region]
        )
        return tuple(changed)

    # -- tombstones that expire ------------------------------------------------------------------------------------

    def _expiries(self, state: State) -> Iterator[tuple[Move, State]]:
        safe = self.scenario.expiry == "safe"
        if safe and (len(state) > self.zombie or not self._is_idle(state) or any(state[self.drainer : self.zombie])):
            return
        for region in range(self.regions):
            place = self.place(state, region)
            deleted = place.slot.row.deleted
            if (
                safe
                and deleted is not None
                and not (self._all_later(state, deleted) and self._all_below(state, deleted))
            ):
                continue
            if place.slot.row != NO_ROW:
                changed = list(state)
                changed[region] = self.met.number(place._replace(slot=StampedSlot(place.slot.item, NO_ROW)))
                if safe:  # nothing older than the tombstone can be replayed any more
                    changed[self._rest + 2] = changed[self._rest + 3] = 0
                yield ("expire", region, 0), tuple(changed)

    def _all_later(self, state: State, deleted: Version) -> bool:
        """Whether no clock is so far behind that a user could still write below this version."""
        return all(
            op.second * 1_000_000 > deleted.micros
            for region, mine in enumerate(self.scenario.ops)
            for op in mine[state[self._user + region] // SNAPSHOTS :]
        )

    def _all_below(self, state: State, deleted: Version) -> bool:
        """Whether nothing is owed that is as new as this delete: then no region can have missed it."""
        if not self.scenario.away:
            return True
        return all(row is None or row.decided < deleted.text for row in self.rows.tables[state[self.owed]])

    # -- looking in ------------------------------------------------------------------------------------------------

    def is_quiescent(self, state: State) -> bool:
        """Whether nothing is left to do; zombies that are left may be dead."""
        if state[self._user : self.worker] != self.users.ends or not self._is_idle(state):
            return False
        return not any(state[self.owed : self.zombie])

    def _is_idle(self, state: State) -> bool:
        lengths = self.met.lengths
        for place, worker in zip(state[: self.regions], state[self.worker : self._rest], strict=True):
            if worker != lengths[place] * NODES:
                return False
        return True

    def place(self, state: State, region: int) -> Place:
        """What a region is like."""
        return self.met.places[state[region]]

    def truth(self, state: State) -> dict[int, Truth]:
        """What really happened."""
        return self.users.truths[state[self._rest]]

    def log(self, state: State) -> int:
        """The writes that the conflict log names as lost, a bit each."""
        return state[self._rest + 1]

    def at(self, state: State, index: int) -> tuple[int, int, int]:
        """A worker's region, position, and node of the tree (0: it stands before a record)."""
        worker = state[index]
        if self.drainer <= index < self.zombie:
            return self.mesh(state, index), 0, worker % NODES
        if index < self.zombie:
            return index - self.worker, worker // NODES % _ZOMBIES, worker % NODES
        return self.mesh(state, index) % self.regions, worker // NODES % _ZOMBIES, worker % NODES

    def mesh(self, state: State, index: int) -> int:
        """Which mesh a worker knows: that of its region, or, behind all of these, of its region before one joined."""
        if self.drainer <= index < self.zombie:
            return state[index] // NODES // _ROWS // self.regions
        return state[index] // NODES // _ZOMBIES + (index - self.worker if index < self.zombie else 0)

    def next_op(self, state: State, region: int) -> Op:
        """What the user of a region does next."""
        return self.users.next_op(region, state[self._user + region])
