"""Every interleaving of users, workers that crash and workers that should be dead, around mode `active-active`.

One key, two to five regions. A step is one request of the production generators, answered by the memory adapter, so
that whatever can happen between two requests does happen somewhere in the search. What really happened (which write
had seen which) is kept beside the state, where no worker can read it. Everything that states are made of is interned,
so a state is a tuple of small integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from replicator.domain.conflicts import LogConflict
from replicator.domain.identifiers import RegionId
from replicator.domain.image import Image, unreserved
from replicator.domain.modes.active_active import mesh as mesh_module
from replicator.domain.modes.active_active.mesh import Mesh
from replicator.domain.modes.requests import (
    At,
    DeleteMarked,
    Done,
    FoundAhead,
    GetItem,
    LookAhead,
    MeshRequest,
    StampRequest,
)
from replicator.domain.stamps import NO_ROW, Kind, Version, held, parse_stamp
from replicator.laboratory.memory.stamped import StampedSlot
from tests.simulation.active_places import (
    DAEMON,
    Place,
    ahead,
    content_number,
    emitted,
    pointer,
    start_places,
    start_second,
    written,
)
from tests.simulation.active_scenario import GENERATION, PRODUCTION, REGIONS, Op, Scenario, Variant
from tests.simulation.active_tree import DONE, Tree
from tests.simulation.active_truth import Judge, Truth

# A pure function, asked for the same few images all the time.
vars(mesh_module)["held"] = lru_cache(maxsize=1 << 16)(held)


class Violation(Exception):
    """A guarantee does not hold."""


# -- what states are made of ---------------------------------------------------------------------------------------


State = tuple[int, ...]
Move = tuple[str, int, int]
"""What happens (`user`, `step`, `crash`, `zombie`, `die`, `expire`), to whom, and with which position."""

_NODES = 1 << 32
_SNAPSHOTS = 1 << 16


def _start_kind(scenario: Scenario) -> str:
    """What write 0, which is there at the start, counts as."""
    if scenario.start is None:
        return "-"
    return "D" if scenario.start[0] == "tombstone" else "P"


class World:
    """All states of one scenario and the moves between them."""

    def __init__(self, scenario: Scenario, variant: Variant = PRODUCTION) -> None:
        self.scenario = scenario
        self._variant = variant
        self.regions = len(scenario.ops)
        names = REGIONS[: self.regions]
        self._index = {name: number for number, name in enumerate(names)}
        meshes = [
            Mesh(home, tuple(name for name in names if name != home), GENERATION, scenario.policy) for home in names
        ]
        firsts = [1 + sum(map(len, scenario.ops[:region])) for region in range(self.regions)]
        self._numbers = [range(first, first + len(mine)) for first, mine in zip(firsts, scenario.ops, strict=True)]
        kinds = dict(enumerate([_start_kind(scenario), *(op.kind for mine in scenario.ops for op in mine)]))
        homes = {number: region for region, numbers in enumerate(self._numbers) for number in numbers}
        self._judge = Judge(kinds, {0: 0 if scenario.start is None else scenario.start[1], **homes})
        self._tree = Tree(variant.mode, meshes)
        self._places: list[Place] = []
        self._place_ids: dict[Place, int] = {}
        self._truths: list[dict[int, Truth]] = []
        self._truth_ids: dict[tuple[tuple[int, Truth], ...], int] = {}
        self._snapshots: list[str | None] = []
        self._initial = [place.slot.item for place in start_places(scenario)]
        self._answered: dict[tuple[int, int], tuple[int, int]] = {}
        self._used: dict[tuple[int | None, ...], tuple[int, int, int]] = {}
        self._removed: dict[int, tuple[int, ...]] = {}
        self._done = self._tree.response(Done())
        # Layout of a state.
        count = self.regions
        self._user, self.worker, self._rest = count, 2 * count, 3 * count
        self.zombie = self._rest + 4
        self.start: State = (
            *map(self._place, start_places(scenario)),
            *((0,) * (2 * count)),
            self._truth({0: Truth(start_second(scenario), frozenset())}),
            0,
            scenario.crashes,
            scenario.zombies,
        )

    # -- interning -------------------------------------------------------------------------------------------------

    def _place(self, place: Place) -> int:
        number = self._place_ids.setdefault(place, len(self._places))
        if number == len(self._places):
            self._places.append(place)
        return number

    def _truth(self, truth: dict[int, Truth]) -> int:
        key = tuple(sorted(truth.items()))
        number = self._truth_ids.setdefault(key, len(self._truths))
        if number == len(self._truths):
            self._truths.append(truth)
        return number

    # -- moves -----------------------------------------------------------------------------------------------------

    def moves(self, state: State) -> Iterator[tuple[Move, State]]:  # noqa: C901 - the hot loop, in one piece
        """Everything that can happen next."""
        regions, rest, places = self.regions, self._rest, self._places
        for region in range(regions):
            if state[self._user + region] // _SNAPSHOTS < len(self.scenario.ops[region]):
                yield ("user", region, 0), self.user(state, region)
        for region in range(regions):
            worker = state[self.worker + region]
            position = worker // _NODES
            length = len(places[state[region]].stream)
            if position < length:
                index = self.worker + region
                yield ("step", index, 0), self.step(state, index)
            if state[rest + 2] and worker:
                for earlier in range(position + 1):
                    if earlier * _NODES != worker:
                        yield ("crash", region, earlier), self.crash(state, region, earlier)
            if state[rest + 3]:
                for earlier in range(min(position, length - 1) + 1):
                    yield ("zombie", region, earlier), self.wake(state, region, earlier)
        for index in range(self.zombie, len(state)):
            zombie = state[index]
            if zombie // _NODES % 256 < len(places[state[zombie // _NODES // 256]].stream):
                yield ("step", index, 0), self.step(state, index)
            yield ("die", index, 0), state[:index] + state[index + 1 :]
        if self.scenario.expiry:
            yield from self._expiries(state)

    def apply(self, state: State, move: Move) -> State:
        """Let one thing happen."""
        return dict(self.moves(state))[move]

    def crash(self, state: State, region: int, position: int) -> State:
        """A worker dies and another one begins at an earlier record, or at the same one anew."""
        changed = list(state)
        changed[self.worker + region] = position * _NODES
        changed[self._rest + 2] -= 1
        return tuple(changed)

    def wake(self, state: State, region: int, position: int) -> State:
        """A second worker of a shard turns out to be alive."""
        changed = list(state[: self.zombie])
        changed[self._rest + 3] -= 1
        zombies = sorted((*state[self.zombie :], (region * 256 + position) * _NODES))
        return (*changed, *zombies)

    def step(self, state: State, index: int) -> State:
        """One request of a worker; records that ask for nothing are passed on the way."""
        region, position, node = self.at(state, index)
        stream, asked = self._places[state[region]].stream, self._tree.asked
        if not node:
            node = self._tree.root(region, stream[position])
            while asked[node][0] == DONE:
                position += 1
                if position == len(stream):
                    return self._moved(state, index, region, position, 0)
                node = self._tree.root(region, stream[position])
        where, request = asked[node]
        while where < 0:
            state, node = self.unplaced(state, node, region)
            if asked[node][0] == DONE:
                return self._moved(state, index, region, position + 1, 0)
            where, request = asked[node]
        place, response = self._answer(state[where], node, request)
        if place != state[where]:
            state = (*state[:where], place, *state[where + 1 :])
        node = self._tree.child(node, response)
        if asked[node][0] == DONE:
            position, node = position + 1, 0
        return self._moved(state, index, region, position, node)

    def _moved(self, state: State, index: int, region: int, position: int, node: int) -> State:
        if index < self.zombie:
            return (*state[:index], position * _NODES + node, *state[index + 1 :])
        zombie = (region * 256 + position) * _NODES + node
        others = state[self.zombie : index] + state[index + 1 :]
        return (*state[: self.zombie], *(sorted((*others, zombie)) if others else (zombie,)))

    def unplaced(self, state: State, node: int, region: int) -> tuple[State, int]:
        """What no region answers takes no step of its own, but is done right before the next that one answers.

        Nothing is missed by that: a wait just ends; what a look ahead finds was there before and stays; and a worker
        that dies behind an entry of the log has done more than one that died before it.
        """
        match self._tree.request(node):
            case LogConflict() as entry:
                log = state[self._rest + 1] | 1 << self._loser(state, entry)
                state = (*state[: self._rest + 1], log, *state[self._rest + 2 :])
                return state, self._tree.child(node, self._done)
            case LookAhead(_, after):
                remover = ahead(self._places[state[region]].stream, after)
                return state, self._tree.child(node, self._tree.response(FoundAhead(remover)))
            case _:
                return state, self._tree.child(node, self._done)

    def _loser(self, state: State, entry: LogConflict) -> int:
        if entry.loser_version is None:
            assert entry.loser is not None
            return content_number(entry.loser)
        region, sequence = entry.loser_region, int(entry.loser_version[-40:])
        assert region is not None
        return self._resolved(state, -1 - (self._index[RegionId(region)] << 16 | sequence))

    def _resolved(self, state: State, origin: int) -> int:
        """The number of a write; what was there at the start is write 0."""
        while origin < 0:
            region, sequence = divmod(-1 - origin, 1 << 16)
            origin = self._places[state[region]].origins[sequence - 1] if sequence else 0
        return origin

    def _answer(self, place: int, node: int, request: int) -> tuple[int, int]:
        answered = self._answered.get((place, request))
        if answered is None:
            answered = self._answered[place, request] = self._carry_out(place, self._tree.request(node))
        return answered

    def _carry_out(self, number: int, request: MeshRequest | None) -> tuple[int, int]:
        place = self._places[number]
        assert isinstance(request, At)
        nonce = f"{len(place.stream):08d}" if self._variant.nonces else "--------"
        assert isinstance(request.request, GetItem | StampRequest)
        slot, response = self._variant.answer(place.slot, request.request, nonce)
        origin = 0
        if isinstance(request.request, DeleteMarked):
            origin = pointer(request.request.version)
        elif slot.item is not None:
            origin = content_number(slot.item)
        after = emitted(place, slot, DAEMON, origin)
        if len(after.stream) - after.users > self.scenario.bound:
            raise Violation(f"more than {self.scenario.bound} daemon writes in one region")
        return self._place(after), self._tree.response(response)

    # -- users -----------------------------------------------------------------------------------------------------

    def user(self, state: State, region: int) -> State:
        """The next write of a region's user."""
        place = self._places[state[region]]
        shown, mark = self._shown(state, place), self._mark(state, place.slot.item)
        removals = tuple(self._resolved(state, origin) for origin in self._removals(state[region]))
        key = (region, state[region], state[self._rest], state[self._user + region], shown, mark, *removals)
        used = self._used.get(key)
        if used is None:
            used = self._used[key] = self._use(state, region, shown, mark, removals)
        changed = list(state)
        changed[region], changed[self._rest], changed[self._user + region] = used
        return tuple(changed)

    def _removals(self, place: int) -> tuple[int, ...]:
        """The writes that removed the item in a region so far, as its stream tells of them."""
        known = self._removed.get(place)
        if known is None:
            its = self._places[place]
            gone = (origin for record, origin in zip(its.stream, its.origins, strict=True) if record.new is None)
            known = self._removed[place] = tuple(gone)
        return known

    def _use(
        self, state: State, region: int, shown: int | None, mark: int | None, removals: tuple[int, ...]
    ) -> tuple[int, int, int]:
        place, truth = self._places[state[region]], state[self._rest]
        index, snapshot = divmod(state[self._user + region], _SNAPSHOTS)
        op, number = self.scenario.ops[region][index], self._numbers[region][index]
        old = place.slot.item
        if op.kind == "R" and not snapshot:
            stamp = None if old is None else old.stamp
            return state[region], truth, index * _SNAPSHOTS + self._snapshot(stamp)
        after = (index + 1) * _SNAPSHOTS
        if old is None and op.kind in "DTN":
            return state[region], truth, after
        new = self._item(op.kind, number, old, region, snapshot)
        origin, seen_by_all = number, True
        if op.kind in "DT" and mark is not None:
            origin, seen_by_all = mark, False  # it is deleted already: this is no new write
        elif op.kind in "NI":
            assert new is not None
            origin, seen_by_all = content_number(new), False
        after_write = emitted(place, StampedSlot(new, place.slot.row), op.second, origin, by=op.kind)
        if seen_by_all:
            truth = self._witnessed(truth, number, op, {shown, mark} - {None}, (*self._numbers[region], *removals))
        return self._place(after_write), truth, after

    def _snapshot(self, stamp: str | None) -> int:
        if stamp not in self._snapshots:
            self._snapshots.append(stamp)
        return self._snapshots.index(stamp) + 1

    def _item(self, kind: str, number: int, old: Image | None, region: int, snapshot: int) -> Image | None:
        match kind:
            case "P":
                return written(number, None)
            case "U":
                return written(number, None if old is None else old.stamp)
            case "R":
                return written(number, self._snapshots[snapshot - 1])
            case "N":
                return None if old is None else unreserved(old)
            case "I":
                return self._initial[region]
            case _:
                return None

    def _mark(self, state: State, item: Image | None) -> int | None:
        """The delete that marked an item."""
        stamp = None if item is None or item.stamp is None else parse_stamp(item.stamp)
        if stamp is None or stamp.kind is not Kind.MARK:
            return None
        return self._resolved(state, pointer(stamp.version))

    def _shown(self, state: State, place: Place) -> int | None:
        """The write that a region shows: the one of its item, or the delete that removed it."""
        if place.slot.item is not None:
            return content_number(place.slot.item)
        return None if place.gone is None else self._resolved(state, place.gone)

    def _witnessed(self, truth: int, number: int, op: Op, parents: set[int | None], before: tuple[int, ...]) -> int:
        """What is known of all writes after one more; `before`: its region's own writes, and removals there.

        The order of its region counts before its clock: a write is no earlier than what was written in its region
        before it, nor than a delete that had taken effect there, even if a zombie brought an older image back since.
        """
        known = self._truths[truth]
        over = [known[parent] for parent in parents if parent is not None]
        seen = frozenset[int]().union(*(before.seen for before in over), {p for p in parents if p is not None})
        earlier = [known[other].moment for other in before if other in known]
        moment = max([0 if op.kind == "T" else op.second, *earlier, *(before.moment for before in over)])
        return self._truth({**known, number: Truth(moment, seen)})

    # -- looking in ------------------------------------------------------------------------------------------------

    def place(self, state: State, region: int) -> Place:
        """What a region is like."""
        return self._places[state[region]]

    def at(self, state: State, index: int) -> tuple[int, int, int]:
        """A worker's region, position, and node of the tree (0: it stands before a record)."""
        worker = state[index]
        if index < self.zombie:
            return index - self.worker, worker // _NODES, worker % _NODES
        return worker // _NODES // 256, worker // _NODES % 256, worker % _NODES

    def next_op(self, state: State, region: int) -> Op:
        """What the user of a region does next."""
        return self.scenario.ops[region][state[self._user + region] // _SNAPSHOTS]

    def logged(self, state: State) -> frozenset[int]:
        """Writes that the conflict log names as lost."""
        return frozenset(write for write in range(64) if state[self._rest + 1] >> write & 1)

    @property
    def tree(self) -> Tree:
        """What workers ask."""
        return self._tree

    # -- tombstones that expire ------------------------------------------------------------------------------------

    def _expiries(self, state: State) -> Iterator[tuple[Move, State]]:
        idle = len(state) == self.zombie and all(
            state[self.worker + region] == len(self._places[state[region]].stream) * _NODES
            for region in range(self.regions)
        )
        if self.scenario.expiry == "safe" and not idle:
            return
        for region in range(self.regions):
            place = self._places[state[region]]
            deleted = place.slot.row.deleted
            if self.scenario.expiry == "safe" and deleted is not None and not self._all_later(state, deleted):
                continue
            if place.slot.row != NO_ROW:
                changed = list(state)
                changed[region] = self._place(place._replace(slot=StampedSlot(place.slot.item, NO_ROW)))
                if self.scenario.expiry == "safe":  # nothing older than the tombstone can be replayed any more
                    changed[self._rest + 2] = changed[self._rest + 3] = 0
                yield ("expire", region, 0), tuple(changed)

    def _all_later(self, state: State, deleted: Version) -> bool:
        """Whether no clock is so far behind that a user could still write below this version."""
        return all(
            op.second * 1_000_000 > deleted.micros
            for region, mine in enumerate(self.scenario.ops)
            for op in mine[state[self._user + region] // _SNAPSHOTS :]
        )

    # -- the end ---------------------------------------------------------------------------------------------------

    def is_quiescent(self, state: State) -> bool:
        """Whether nothing is left to do."""
        if len(state) > self.zombie:
            return False
        for region in range(self.regions):
            if state[self._user + region] // _SNAPSHOTS < len(self.scenario.ops[region]):
                return False
            if state[self.worker + region] != len(self._places[state[region]].stream) * _NODES:
                return False
        return True

    def daemon_writes(self, state: State) -> int:
        """Items that daemons wrote, in all regions."""
        places = [self._places[number] for number in state[: self.regions]]
        return sum(len(place.stream) - place.users for place in places)

    def check(self, state: State) -> str | None:
        """What is wrong at a quiescent state: regions differ, a lesser write won, or a lost one was not logged."""
        places = [self._places[number] for number in state[: self.regions]]
        contents = [None if place.slot.item is None else content_number(place.slot.item) for place in places]
        if len(set(contents)) > 1:
            return f"DIVERGENCE: regions show {contents}"
        shown = {self._shown(state, place) for place in places}
        truth, final = self._truths[state[self._rest]], contents[0]
        wrong = None
        if "winner" in self.scenario.checks:
            wrong = self._judge.wrong_winner(truth, final)
        if wrong is None and "log" in self.scenario.checks:
            over = {final} if final is not None else {delete for delete in shown if delete is not None}
            wrong = self._judge.unlogged(truth, final, over, state[self._rest + 1])
        missing = self.scenario.logged - self.logged(state)
        if wrong is None and missing:
            wrong = f"UNLOGGED: writes {sorted(missing)}"
        return wrong

    def regressions(self, state: State) -> int:
        """How often a daemon's write showed users something older than what they saw before."""
        truth, count = self._truths[state[self._rest]], 0
        for number in state[: self.regions]:
            place, last = self._places[number], None
            for record, origin in zip(place.stream, place.origins, strict=True):
                new = self._resolved(state, origin)
                old = last if record.old is None else content_number(record.old)
                if record.created_at == DAEMON and old is not None and old != new:
                    back = truth[new].moment < truth[old].moment and old not in truth[new].seen
                    count += back or new in truth[old].seen
                last = new if record.new is None else None
        return count
