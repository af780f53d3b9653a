"""Every interleaving of users, workers that crash and workers that should be dead, around mode `active-active`.

One key, two to five regions. A step is one request of the production generators, answered by the memory adapter, so
that whatever can happen between two requests does happen somewhere in the search. What really happened (which write
had seen which) is kept beside the state, where no worker can read it.

Generators cannot be copied: a worker's state is its record and the answers it got so far, a node of a decision tree
that grows as it is met. Everything that states are made of is interned, so a state is a tuple of small integers.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import FrameType, GeneratorType
from typing import NamedTuple

from replicator.adapters.memory.stamped import StampedSlot, answer_stamped
from replicator.domain import mesh as mesh_module
from replicator.domain.active_active import Outcome, replicate_active
from replicator.domain.image import Image, stamped, unreserved
from replicator.domain.mesh import ActivePolicy, Mesh, Steps
from replicator.domain.records import ChangeRecord, RegionId, change_record, item_key
from replicator.domain.requests import (
    At,
    DeleteMarked,
    Done,
    FoundAhead,
    GetItem,
    LogConflict,
    LookAhead,
    MergeTombstone,
    MeshRequest,
    MeshResponse,
    NoteRemoval,
    RaiseFloor,
    Remover,
    Response,
    Restamp,
    SettleTombstone,
    StampedPut,
    StampRequest,
)
from replicator.domain.stamps import (
    NO_PARENT,
    NO_ROW,
    Kind,
    SideRow,
    Stamp,
    Tombstone,
    Version,
    content_of,
    held,
    parse_stamp,
    parse_version,
)

KEY = item_key(b'{"pk":{"S":"k"}}')
REGIONS = tuple(RegionId(name) for name in ("aa", "bb", "cc", "dd", "ee"))
LETTERS = "ABCDE"
GENERATION = 1_700_000_000_000
AHEAD_SECONDS = 2
DAEMON = 99.0
"""When the daemon writes, by a clock of its own that nothing depends on."""

Answer = Callable[[StampedSlot, GetItem | StampRequest, str], tuple[StampedSlot, Response]]
Mode = Callable[[ChangeRecord, Mesh], Steps[Outcome]]

# A pure function, asked for the same few images all the time.
vars(mesh_module)["held"] = lru_cache(maxsize=1 << 16)(held)


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
    (deleted in the future, in effect everywhere), followed by the region whose version it is: `("seed", 0)`.
    """

    ops: tuple[tuple[Op, ...], ...]
    start: tuple[str, int] | None = None
    crashes: int = 0
    zombies: int = 0
    policy: ActivePolicy = field(default_factory=lambda: ActivePolicy(waits=0))
    checks: frozenset[str] = frozenset({"winner", "log"})
    """Beyond convergence: `winner` (the greatest version won), `log` (every lost write was logged)."""
    logged: frozenset[int] = frozenset()
    """Writes that must be logged in any case, counted from 1 through all regions."""
    bound: int = 40
    """Daemon writes to items, beyond which they count as endless."""
    expiry: str = ""
    """Tombstones may expire: `` never, `safe` once nothing older can be replayed, `any` at any time."""

    def __str__(self) -> str:
        writes = " | ".join(
            f"{letter} {' '.join(f'{op.kind}{op.second}' for op in ops) or '-'}"
            for letter, ops in zip(LETTERS, self.ops, strict=False)
        )
        start = "absent" if self.start is None else f"{self.start[0]} {LETTERS[self.start[1]]}"
        return f"{writes}  start={start} crashes={self.crashes} zombies={self.zombies}"


def ops(text: str) -> tuple[tuple[Op, ...], ...]:
    """Writes as `A` and `B` separated by `|`, each a letter and a second: `P1 D2 | U1`."""
    return tuple(tuple(Op(word[0], int(word[1:])) for word in part.split()) for part in text.split("|"))


@dataclass(frozen=True, slots=True)
class Variant:
    """The world and the mode as they run; tests pass others to show what a rule is for."""

    answer: Answer = answer_stamped
    mode: Mode = replicate_active
    nonces: bool = True


PRODUCTION = Variant()


class Violation(Exception):
    """A guarantee does not hold."""


# -- what states are made of ---------------------------------------------------------------------------------------


class Place(NamedTuple):
    """One region. `origins`: which write each record of the stream stands for; `gone`: which one removed the item.

    A write is its number, or, when the daemon carried a delete out, where that delete stands (`_pointer`).
    """

    slot: StampedSlot
    stream: tuple[ChangeRecord, ...]
    origins: tuple[int, ...]
    users: int
    gone: int | None


class Truth(NamedTuple):
    """A user's write as it really was: when it counts as made, and which writes it had seen."""

    moment: int
    seen: frozenset[int]


class Node:
    """A record and the answers so far: what is asked next, None when the record is done."""

    __slots__ = ("children", "live", "parent", "request", "response", "root")

    def __init__(self, root: tuple[int, ChangeRecord], parent: Node | None, response: MeshResponse | None) -> None:
        self.root = root
        self.parent = parent
        self.response = response
        self.live: Steps[Outcome] | None = None
        self.request: MeshRequest | None = None
        self.children: dict[int, int] = {}


def _suspended(steps: Steps[Outcome] | None) -> tuple[object, ...] | None:
    """Everything that a suspended generator will ever know: where it stands, and all values it holds, by value.

    Generators that agree in this do the same from here on, so their nodes are one. None when a value is no value.
    """
    if steps is None:
        return ("done",)
    known: list[object] = []
    inner: object = steps
    while isinstance(inner, GeneratorType):
        frame = inner.gi_frame
        assert frame is not None
        known += [inner.gi_code, frame.f_lasti]
        deeper = inner.gi_yieldfrom
        known += [held for held in gc.get_referents(inner) if held is not deeper and not isinstance(held, FrameType)]
        inner = deeper
    moment = tuple(known)
    try:
        hash(moment)
    except TypeError:
        return None
    return moment


State = tuple[int, ...]
Move = tuple[str, int, int]
"""What happens (`user`, `step`, `crash`, `zombie`, `die`, `expire`), to whom, and with which position."""

_NODES = 1 << 32
_SNAPSHOTS = 1 << 16


def _pointer(version: Version) -> int:
    """A write by its place in a region's stream: a negative number."""
    return -1 - (REGIONS.index(RegionId(version.region)) << 16 | version.sequence % 10**40)


@lru_cache(maxsize=1 << 16)
def _content(image: Image) -> int:
    """Which write an item's content is of."""
    return int(image.attributes["w"]["N"])


def _written(number: int, stamp: str | None) -> Image:
    plain = Image(json.dumps({"pk": {"S": "k"}, "w": {"N": str(number)}}, separators=(",", ":")).encode())
    return plain if stamp is None else Image(stamped(plain, stamp))


def _short(version: Version | None) -> str:
    """A version for people: second, counter, region, sequence number."""
    if version is None:
        return "-"
    letter = LETTERS[REGIONS.index(RegionId(version.region))]
    return f"({version.micros // 1_000_000},{version.counter},{letter},{version.sequence % 10**40})"


def _told_version(request: object) -> str:
    match request:
        case StampedPut(stamp=stamp) | Restamp(stamp=stamp):
            return f" {stamp.kind.value}{_short(stamp.version)}"
        case MergeTombstone(tombstone=Tombstone(version)) | SettleTombstone(tombstone=Tombstone(version)):
            return f" {_short(version)}"
        case RaiseFloor(floor=version) | NoteRemoval(removed=version) | DeleteMarked(version=version):
            return f" {_short(version)}"
        case _:
            return ""


def _ahead(stream: Sequence[ChangeRecord], after: int) -> Remover:
    """Who first removed the item behind a record."""
    for record in stream[after % 10**40 :]:
        if record.new is None:
            assert record.old is not None
            stamp = None if record.old.stamp is None else parse_stamp(record.old.stamp)
            return Remover.DAEMON if stamp is not None and stamp.kind is Kind.MARK else Remover.USER
    return Remover.UNKNOWN


def _event(old: Image | None, new: Image | None) -> str:
    if new is None:
        return "REMOVE"
    return "INSERT" if old is None else "MODIFY"


class World:
    """All states of one scenario and the moves between them."""

    def __init__(self, scenario: Scenario, variant: Variant = PRODUCTION) -> None:
        self.scenario = scenario
        self._variant = variant
        self.regions = len(scenario.ops)
        names = REGIONS[: self.regions]
        self._index = {name: number for number, name in enumerate(names)}
        self._meshes = [
            Mesh(home, tuple(name for name in names if name != home), GENERATION, scenario.policy) for home in names
        ]
        firsts = [1 + sum(map(len, scenario.ops[:region])) for region in range(self.regions)]
        self._numbers = [range(first, first + len(mine)) for first, mine in zip(firsts, scenario.ops, strict=True)]
        self._home = {number: region for region, numbers in enumerate(self._numbers) for number in numbers}
        self._kinds = {
            number: op.kind
            for numbers, mine in zip(self._numbers, scenario.ops, strict=True)
            for number, op in zip(numbers, mine, strict=True)
        }
        self._places: list[Place] = []
        self._place_ids: dict[Place, int] = {}
        self._truths: list[dict[int, Truth]] = []
        self._truth_ids: dict[tuple[tuple[int, Truth], ...], int] = {}
        self._snapshots: list[str | None] = []
        self._initial: list[Image | None] = []
        self._responses: dict[MeshResponse, int] = {}
        self._response_list: list[MeshResponse] = []
        self._request_ids: dict[MeshRequest, int] = {}
        self._nodes: list[Node | None] = [None]
        self._moments: dict[tuple[object, ...], int] = {}
        self._asked: list[tuple[int, int]] = [(-1, -1)]
        """Per node: which region's place answers (-1: nobody does) and the request's number; (-2, -2): done."""
        self._roots: dict[tuple[int, ChangeRecord], int] = {}
        self._answered: dict[tuple[int, int], tuple[int, int]] = {}
        self._used: dict[tuple[int | None, ...], tuple[int, int, int]] = {}
        self._done = self._response(Done())
        # Layout of a state.
        count = self.regions
        self._user, self.worker, self._rest = count, 2 * count, 3 * count
        self.zombie = self._rest + 4
        self.start = self._first_state()

    # -- the start -------------------------------------------------------------------------------------------------

    def _first_state(self) -> State:
        truth = {0: Truth(-1, frozenset())}
        places = [Place(StampedSlot(), (), (), 0, None)] * self.regions
        if self.scenario.start is not None:
            kind, owner = self.scenario.start
            second = 0 if kind == "seed" else AHEAD_SECONDS
            version = Version(second * 1_000_000, 0, REGIONS[owner], 0)
            truth = {0: Truth(second, frozenset())}
            if kind == "tombstone":
                row = SideRow(Tombstone(version, NO_PARENT, content_of(_written(0, None))), None, 0, version)
                places = [Place(StampedSlot(None, row), (), (), 0, 0)] * self.regions
            else:
                stamp = Stamp(version, Kind.VALUE, content_of(_written(0, None)), NO_PARENT)
                items = [_written(0, stamp.sealed(f"start--{letter}")) for letter in LETTERS[: self.regions]]
                places = [Place(StampedSlot(item, NO_ROW), (), (), 0, None) for item in items]
            self._kinds[0], self._home[0] = ("D" if kind == "tombstone" else "P"), owner
        else:
            self._kinds[0], self._home[0] = "-", 0
        self._initial = [place.slot.item for place in places]
        return (
            *(self._place(place) for place in places),
            *((0,) * self.regions),
            *((0,) * self.regions),
            self._truth(truth),
            0,
            self.scenario.crashes,
            self.scenario.zombies,
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

    def _response(self, response: MeshResponse) -> int:
        number = self._responses.setdefault(response, len(self._response_list))
        if number == len(self._response_list):
            self._response_list.append(response)
        return number

    # -- the decision tree -----------------------------------------------------------------------------------------

    def _root(self, region: int, record: ChangeRecord) -> int:
        root = (region, record)
        number = self._roots.get(root)
        if number is None:
            node = Node(root, None, None)
            node.live = self._variant.mode(record, self._meshes[region])
            number = self._roots[root] = self._grown(node, next)
        return number

    def _grown(self, node: Node, advance: Callable[[Steps[Outcome]], MeshRequest]) -> int:
        """Add a node whose generator stands before its request."""
        assert node.live is not None
        try:
            node.request = advance(node.live)
        except StopIteration:
            node.live = None
        moment = _suspended(node.live)
        if moment is not None:
            number = self._moments.setdefault(moment, len(self._nodes))
            if number < len(self._nodes):
                return number
        self._nodes.append(node)
        self._asked.append(self._addressed(node))
        return len(self._nodes) - 1

    def _addressed(self, node: Node) -> tuple[int, int]:
        request = node.request
        if request is None:
            return -2, -2
        number = self._request_ids.setdefault(request, len(self._request_ids))
        if isinstance(request, At):
            return self._index[request.region], number
        return -1, number

    def _child(self, number: int, response: int) -> int:
        """The node behind an answer."""
        node = self._nodes[number]
        assert node is not None
        child = node.children.get(response)
        if child is None:
            answer = self._response_list[response]
            steps = node.live or self._replayed(node)
            node.live = None
            grown = Node(node.root, node, answer)
            grown.live = steps
            child = node.children[response] = self._grown(grown, lambda live: live.send(answer))
        return child

    def _replayed(self, node: Node) -> Steps[Outcome]:
        """The generator once more, up to this node."""
        answers: list[MeshResponse] = []
        while node.parent is not None:
            assert node.response is not None
            answers.append(node.response)
            node = node.parent
        region, record = node.root
        steps = self._variant.mode(record, self._meshes[region])
        next(steps)
        for answer in reversed(answers):
            steps.send(answer)
        return steps

    # -- moves -----------------------------------------------------------------------------------------------------

    def moves(self, state: State) -> Iterator[tuple[Move, State]]:
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
        worker = state[index]
        if index < self.zombie:
            region, position, node = index - self.worker, worker // _NODES, worker % _NODES
        else:
            region, position, node = worker // _NODES // 256, worker // _NODES % 256, worker % _NODES
        stream = self._places[state[region]].stream
        if not node:
            node = self._root(region, stream[position])
            while self._asked[node][0] == -2:
                position += 1
                if position == len(stream):
                    return self._moved(state, index, region, position, 0)
                node = self._root(region, stream[position])
        where, request = self._asked[node]
        while where < 0:
            state, node = self._unplaced(state, node, region)
            if self._asked[node][0] == -2:
                return self._moved(state, index, region, position + 1, 0)
            where, request = self._asked[node]
        place, response = self._answer(state[where], node, request)
        if place != state[where]:
            state = (*state[:where], place, *state[where + 1 :])
        node = self._child(node, response)
        if self._asked[node][0] == -2:
            position, node = position + 1, 0
        return self._moved(state, index, region, position, node)

    def _moved(self, state: State, index: int, region: int, position: int, node: int) -> State:
        if index < self.zombie:
            return (*state[:index], position * _NODES + node, *state[index + 1 :])
        zombie = (region * 256 + position) * _NODES + node
        others = state[self.zombie : index] + state[index + 1 :]
        return (*state[: self.zombie], *(sorted((*others, zombie)) if others else (zombie,)))

    def _unplaced(self, state: State, node: int, region: int) -> tuple[State, int]:
        """What no region answers takes no step of its own, but is done right before the next that one answers.

        Nothing is missed by that: a wait just ends; what a look ahead finds was there before and stays; and a worker
        that dies behind an entry of the log has done more than one that died before it.
        """
        known = self._nodes[node]
        assert known is not None
        match known.request:
            case LogConflict() as entry:
                log = state[self._rest + 1] | 1 << self._loser(state, entry)
                state = (*state[: self._rest + 1], log, *state[self._rest + 2 :])
                return state, self._child(node, self._done)
            case LookAhead(_, after):
                remover = _ahead(self._places[state[region]].stream, after)
                return state, self._child(node, self._response(FoundAhead(remover)))
            case _:
                return state, self._child(node, self._done)

    def _loser(self, state: State, entry: LogConflict) -> int:
        if entry.loser_version is None:
            assert entry.loser is not None
            return _content(entry.loser)
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
            known = self._nodes[node]
            assert known is not None
            answered = self._answered[place, request] = self._carry_out(place, known.request)
        return answered

    def _carry_out(self, number: int, request: MeshRequest | None) -> tuple[int, int]:
        place = self._places[number]
        assert isinstance(request, At)
        nonce = f"{len(place.stream):08d}" if self._variant.nonces else "--------"
        assert isinstance(request.request, GetItem | StampRequest)
        slot, response = self._variant.answer(place.slot, request.request, nonce)
        origin = 0
        if isinstance(request.request, DeleteMarked):
            origin = _pointer(request.request.version)
        elif slot.item is not None:
            origin = _content(slot.item)
        after = self._emitted(place, slot, DAEMON, origin)
        if len(after.stream) - after.users > self.scenario.bound:
            raise Violation(f"more than {self.scenario.bound} daemon writes in one region")
        return self._place(after), self._response(response)

    def _emitted(self, place: Place, slot: StampedSlot, second: float, origin: int, *, by: str = "") -> Place:
        """The place after a physical write; a write that changes nothing leaves no record."""
        old, new = place.slot.item, slot.item
        if old == new:
            return place._replace(slot=slot)
        record = change_record(
            event=_event(old, new),
            key=KEY.wire,
            old=None if old is None else old.wire,
            new=None if new is None else new.wire,
            sequence=str(len(place.stream) + 1),
            created_at=second,
            by_ttl=by == "T",
        )
        return Place(
            slot=slot,
            stream=(*place.stream, record),
            origins=(*place.origins, origin),
            users=place.users + bool(by),
            gone=origin if new is None else None,
        )

    # -- users -----------------------------------------------------------------------------------------------------

    def user(self, state: State, region: int) -> State:
        """The next write of a region's user."""
        place = self._places[state[region]]
        shown, mark = self._shown(state, place), self._mark(state, place.slot.item)
        key = (region, state[region], state[self._rest], state[self._user + region], shown, mark)
        used = self._used.get(key)
        if used is None:
            used = self._used[key] = self._use(state, region, shown, mark)
        changed = list(state)
        changed[region], changed[self._rest], changed[self._user + region] = used
        return tuple(changed)

    def _use(self, state: State, region: int, shown: int | None, mark: int | None) -> tuple[int, int, int]:
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
            origin, seen_by_all = _content(new), False
        emitted = self._emitted(place, StampedSlot(new, place.slot.row), op.second, origin, by=op.kind)
        if seen_by_all:
            truth = self._witnessed(truth, region, number, op, {shown, mark} - {None})
        return self._place(emitted), truth, after

    def _snapshot(self, stamp: str | None) -> int:
        if stamp not in self._snapshots:
            self._snapshots.append(stamp)
        return self._snapshots.index(stamp) + 1

    def _item(self, kind: str, number: int, old: Image | None, region: int, snapshot: int) -> Image | None:
        match kind:
            case "P":
                return _written(number, None)
            case "U":
                return _written(number, None if old is None else old.stamp)
            case "R":
                return _written(number, self._snapshots[snapshot - 1])
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
        return self._resolved(state, _pointer(stamp.version))

    def _shown(self, state: State, place: Place) -> int | None:
        """The write that a region shows: the one of its item, or the delete that removed it."""
        if place.slot.item is not None:
            return _content(place.slot.item)
        return None if place.gone is None else self._resolved(state, place.gone)

    def _witnessed(self, truth: int, region: int, number: int, op: Op, parents: set[int | None]) -> int:
        """What is known of all writes after one more; the order of its region counts before its clock."""
        known = self._truths[truth]
        over = [known[parent] for parent in parents if parent is not None]
        seen = frozenset[int]().union(*(before.seen for before in over), {p for p in parents if p is not None})
        earlier = [known[other].moment for other in self._numbers[region] if other in known]
        moment = max([0 if op.kind == "T" else op.second, *earlier, *(before.moment for before in over)])
        return self._truth({**known, number: Truth(moment, seen)})

    # -- in words --------------------------------------------------------------------------------------------------

    def described(self, state: State, move: Move) -> str:
        """A move for people."""
        kind, whom, position = move
        match kind:
            case "user":
                op = self.scenario.ops[whom][state[self._user + whom] // _SNAPSHOTS]
                return f"user {LETTERS[whom]} {op.kind}{op.second}"
            case "step":
                return self._told_step(state, whom)
            case "die":
                return f"zombie of {LETTERS[state[whom] // _NODES // 256]} dies"
            case "crash":
                return f"worker {LETTERS[whom]} crashes, replays from {position + 1}"
            case _:
                return f"{kind} {LETTERS[whom]} {position + 1}"

    def _told_step(self, state: State, index: int) -> str:
        who, region, position, node = self._at(state, index)
        stream = self._places[state[region]].stream
        while not node or self._asked[node][0] == -2:
            if node:
                position += 1
            if position == len(stream):
                return f"{who} passes {LETTERS[region]}{position}"
            node = self._root(region, stream[position])
        words = [who, f"{LETTERS[region]}{position + 1}"]
        while self._asked[node][0] == -1:
            words.append(f"{self._told_request(node)},")
            state, node = self._unplaced(state, node, region)
        return " ".join([*words, self._told_request(node)])

    def _told_request(self, node: int) -> str:
        known = self._nodes[node]
        assert known is not None
        match known.request:
            case None:
                return "done"
            case LogConflict(kind=kind, winner_version=winner, loser_version=loser):
                lost = "an unversioned write" if loser is None else _short(parse_version(loser))
                return f"logs {kind}: {_short(parse_version(winner))} beat {lost}"
            case At(region, request):
                return f"{type(request).__name__}@{LETTERS[self._index[region]]}{_told_version(request)}"
            case request:
                return type(request).__name__

    def _at(self, state: State, index: int) -> tuple[str, int, int, int]:
        """Who a worker is, of which region, at which record and node."""
        worker = state[index]
        if index >= self.zombie:
            region = worker // _NODES // 256
            return f"zombie {LETTERS[region]}", region, worker // _NODES % 256, worker % _NODES
        region = index - self.worker
        return f"worker {LETTERS[region]}", region, worker // _NODES, worker % _NODES

    def shown(self, state: State, region: int) -> str:
        """What a region holds, for people."""
        slot = self._places[state[region]].slot
        item, row = held(slot.item), slot.row
        text = "-"
        if item is not None:
            stamp = "" if item.stamp is None else f"{{{item.stamp.kind.value}{_short(item.stamp.version)}}}"
            text = f"c{_content(item.image)}{stamp}{'' if item.intact else '*'}"
        if row != NO_ROW:
            removed = f" ls={row.removed_at % 10**40} lv={_short(row.removed)}" if row.removed_at is not None else ""
            text += f" row[v={_short(row.deleted)} f={_short(row.floor)}{removed}]"
        return text

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
            if place.slot.row != NO_ROW:
                changed = list(state)
                changed[region] = self._place(place._replace(slot=StampedSlot(place.slot.item, NO_ROW)))
                if self.scenario.expiry == "safe":  # nothing older than the tombstone can be replayed any more
                    changed[self._rest + 2] = changed[self._rest + 3] = 0
                yield ("expire", region, 0), tuple(changed)

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
        contents = [None if place.slot.item is None else _content(place.slot.item) for place in places]
        if len(set(contents)) > 1:
            return f"DIVERGENCE: regions show {contents}"
        shown = {self._shown(state, place) for place in places}
        truth, final = self._truths[state[self._rest]], contents[0]
        wrong = None
        if "winner" in self.scenario.checks:
            wrong = self._wrong_winner(truth, final)
        if wrong is None and "log" in self.scenario.checks:
            over = {final} if final is not None else {delete for delete in shown if delete is not None}
            wrong = self._unlogged(truth, final, over, state[self._rest + 1])
        for write in self.scenario.logged:
            if wrong is None and not state[self._rest + 1] >> write & 1:
                wrong = f"UNLOGGED: write {write}"
        return wrong

    def regressions(self, state: State) -> int:
        """How often a daemon's write showed users something older than what they saw before."""
        truth, count = self._truths[state[self._rest]], 0
        for number in state[: self.regions]:
            place, last = self._places[number], None
            for record, origin in zip(place.stream, place.origins, strict=True):
                new = self._resolved(state, origin)
                old = last if record.old is None else _content(record.old)
                if record.created_at == DAEMON and old is not None and old != new:
                    back = truth[new].moment < truth[old].moment and old not in truth[new].seen
                    count += back or new in truth[old].seen
                last = new if record.new is None else None
        return count

    def _is_delete(self, write: int) -> bool:
        return self._kinds[write] in "DT"

    def _wrong_winner(self, truth: dict[int, Truth], final: int | None) -> str | None:
        writes = [write for write in truth if write]
        if final is not None:
            for write in writes:
                if final in truth[write].seen:
                    return f"CAUSAL: write {final} won although write {write} overwrote it"
                later = truth[write].moment > truth[final].moment
                if write not in {final, *truth[final].seen} and later:
                    return f"LATER: write {final} won although write {write} was later"
            return None
        for delete in filter(self._is_delete, truth):
            beaten = truth[delete]
            if all(
                write in {delete, *beaten.seen}
                or (delete not in truth[write].seen and truth[write].moment <= beaten.moment)
                or self._is_delete(write)
                for write in writes
            ):
                return None
        if all(map(self._is_delete, writes)):
            return None
        return "RESURRECTION OR LOSS: nothing is left although no delete was the last write"

    def _unlogged(self, truth: dict[int, Truth], final: int | None, over: set[int], log: int) -> str | None:
        kept = over.union(*(truth[write].seen for write in over))
        lost = [write for write in truth if write and write not in kept]
        for write in lost:
            if any(write in truth[other].seen for other in lost):
                continue  # a later writer of the same branch owns it
            if self._is_delete(write) and (final is None or self._needs_no_entry(truth, write, kept)):
                continue
            if not log >> write & 1:
                return f"UNLOGGED: write {write} ({self._kinds[write]}) was lost"
        return None

    def _needs_no_entry(self, truth: dict[int, Truth], delete: int, kept: set[int]) -> bool:
        """Whether a lost delete was merged with a concurrent one, or superseded in its own region."""
        mine = truth[delete]
        for other, its in truth.items():
            if other in {0, delete}:
                continue
            concurrent = self._is_delete(other) and other not in mine.seen and delete not in its.seen
            if concurrent and (other in kept or its.moment >= mine.moment):
                return True
            if self._home[other] == self._home[delete] and other > delete:
                return True
        return False
