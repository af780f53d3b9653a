"""Every interleaving of users in all regions, workers and copiers around the modes of a mesh and their copying.

One key, two or three regions. A step is one request of a production generator, answered by the memory region; what it
changes becomes a record of that region's stream. Places and actors are interned, and what a step leads to is computed
once, so a state is a tuple of small integers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from replicator.domain.conflicts import ConflictKind, LogConflict
from replicator.domain.copying import active_active, versioned
from replicator.domain.copying.meshes import MeshCandidate, MeshDifference, MeshMended, Missing
from replicator.domain.identifiers import RegionId
from replicator.domain.image import Image
from replicator.domain.modes.active_active.mesh import ActivePolicy, Mesh
from replicator.domain.modes.active_active.replicate import replicate_active
from replicator.domain.modes.requests import At, Done, Found, FoundAhead, GetItem, LookAhead, Remover
from replicator.domain.modes.versioned.ranks import rank_of
from replicator.domain.modes.versioned.replicate import VersionedMesh, replicate_versioned
from replicator.domain.records import ChangeRecord, change_record
from replicator.domain.stamps import NO_PARENT, NO_ROW, Stamp, StampKind, content_of, seed_version
from replicator.domain.values import replace
from replicator.laboratory.memory import Slot, answer
from replicator.laboratory.memory.stamped import StampedSlot, answer_stamped
from tests.simulation import active_places, versioned_machine
from tests.simulation.active_places import KEY, ahead
from tests.simulation.active_scenario import GENERATION, REGIONS
from tests.simulation.uncollected import uncollected
from tests.simulation.versioned_machine import VERSION

Steps = Generator[Any, Any, Any]
LONGEST_STREAM = 30
DETECTED = 3_000_000
"""When a copier looks, in microseconds: later than every write by its region's clock."""


FROM_BEFORE = 90
"""Contents from before the start have this number, or the next."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What users write in each region, what each holds at the start, what is lost, and how much may go wrong."""

    mode: str
    """`active` or `versioned`."""
    ops: tuple[tuple[str, ...], ...]
    """`P1`, `U1`, `D2`: a letter and a second; in mode `versioned` a version, `D`, or `X` for an image without one."""
    starts: tuple[str, ...] = ("", "")
    """Of each region: nothing, or an item from before the stream: `a` and `b` are two contents; in mode `versioned`
    followed by the version. `=` is an item that was seeded everywhere."""
    job: str = "seed"
    """`seed`: every region is scanned by a copier; `repair`: one copier looks at all regions and mends."""
    lost: tuple[int, int] | None = None
    """The record of a region that no worker gets; the copier begins behind that."""
    missing: Missing = Missing.KEEP
    crashes: int = 0
    zombies: int = 0
    stops: int = 0
    """How often a copier may die; another one begins anew."""
    doubles: int = 0
    """How many copiers more there are of the first region, at the same time."""
    waits: bool = False
    """Between its looks a copier waits until all workers are behind the first one."""
    fenced: bool = False
    """No copier looks or writes while a worker lives from which another one has taken over."""

    def __str__(self) -> str:
        writes = " | ".join(" ".join(mine) or "-" for mine in self.ops)
        starts = ",".join(start or "-" for start in self.starts)
        faults = {"crash": self.crashes, "zombie": self.zombies, "stop": self.stops, "double": self.doubles}
        words = [f"copying {self.mode} {self.job}", writes, f"starts={starts}"]
        words += ["" if self.lost is None else f"lost={self.lost[0]}:{self.lost[1] + 1}", self.missing.value]
        words += [f"{name}={count}" * bool(count) for name, count in faults.items()]
        return " ".join(filter(None, [*words, "waits" * self.waits, "fenced" * self.fenced]))


class Passed(NamedTuple):
    """A copier waits until every worker is behind what it has looked at."""


class Place(NamedTuple):
    """One region: what stands under its key, and the stream of everything that was written there."""

    slot: Any
    stream: tuple[ChangeRecord, ...] = ()


class Actor(NamedTuple):
    """A worker (`kind` w) on a region's stream, or a copier (c): what it has in hand and the answers it got about it.

    `at`: how long every stream was when a copier began to wait.
    """

    kind: str
    region: int
    position: int = 0
    record: ChangeRecord | None = None
    answers: tuple[Any, ...] = ()
    at: tuple[int, ...] = ()
    ended: bool = False


class State(NamedTuple):
    """A moment in a run: places, writes done, workers, copiers and zombies by number; faults left; what was logged."""

    places: tuple[int, ...]
    users: tuple[int, ...]
    workers: tuple[int, ...]
    copiers: tuple[int, ...]
    zombies: tuple[int, ...]
    left: tuple[int, int, int]
    logged: frozenset[tuple[str, str]]


class Violation(Exception):
    """A guarantee does not hold."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a search saw; without a violation it is complete."""

    states: int
    quiescent: int
    violation: str | None = None
    trace: tuple[str, ...] = ()


# -- the modes -----------------------------------------------------------------------------------------------------


class Mode(Protocol):
    """A mode of a mesh, as a world of one key needs it."""

    def start(self, text: str, region: int) -> Any: ...
    def written(self, op: str, number: int, before: Image | None) -> Image | None: ...
    def with_item(self, slot: Any, item: Image | None) -> Any: ...
    def answer(self, slot: Any, request: Any, nonce: str) -> tuple[Any, Any]: ...
    def work(self, home: int, record: ChangeRecord) -> Steps: ...
    def seed(self, home: int) -> Steps: ...
    def repair(self, missing: Missing) -> Steps: ...
    def content(self, item: Image | None) -> str | None: ...
    def should_win(self, items: list[Image]) -> Image: ...


def _scanned(region: RegionId, steps: Callable[[Image], Steps]) -> Steps:
    """Read the item as a scan does, then bring it."""
    found = yield At(region, GetItem(KEY))
    assert isinstance(found, Found)
    if found.item is not None:
        yield from steps(found.item)


def _looking_until_mended(
    look: Callable[[], Steps],
    first: Callable[[Any], MeshCandidate | None],
    judge: Callable[[MeshCandidate, Any], Any],
    repair: Callable[[Any], Steps],
) -> Steps:
    """As the engine does it: look, wait, look again, repair; what changed meanwhile is looked at anew."""
    candidate = first((yield from look()))
    while candidate is not None:
        yield Passed()
        seen = yield from look()
        verdict = judge(candidate, seen)
        if isinstance(verdict, MeshCandidate):
            candidate = replace(verdict, looks=1)  # without a bound
            continue
        if not isinstance(verdict, MeshDifference):
            return
        ended = yield from repair(verdict.seen)
        candidate = first(seen) if ended is MeshMended.CHANGED else None


class Active:
    """Mode `active-active`."""

    def __init__(self, regions: int) -> None:
        names = REGIONS[:regions]
        self._meshes = [
            Mesh(home, tuple(name for name in names if name != home), GENERATION, ActivePolicy(waits=0))
            for home in names
        ]

    def start(self, text: str, region: int) -> StampedSlot:
        if not text:
            return StampedSlot()
        number = 0 if text == "=" else FROM_BEFORE + "ab".index(text)
        stamp = None
        if text == "=":
            content = content_of(active_places.written(0, None))
            stamp = Stamp(seed_version(REGIONS[0]), StampKind.VALUE, content, NO_PARENT).sealed(f"start--{region}")
        return StampedSlot(active_places.written(number, stamp), NO_ROW)

    def written(self, op: str, number: int, before: Image | None) -> Image | None:
        if op[0] == "D":
            return None
        stamp = None if before is None or op[0] == "P" else before.stamp
        return active_places.written(number, stamp)

    def with_item(self, slot: StampedSlot, item: Image | None) -> StampedSlot:
        return slot._replace(item=item)

    def answer(self, slot: StampedSlot, request: Any, nonce: str) -> tuple[StampedSlot, Any]:
        return answer_stamped(slot, request, nonce)

    def work(self, home: int, record: ChangeRecord) -> Steps:
        return replicate_active(record, self._meshes[home])

    def seed(self, home: int) -> Steps:
        mesh = self._meshes[home]
        return _scanned(mesh.home, lambda image: active_active.seed_active(mesh, KEY, image))

    def repair(self, missing: Missing) -> Steps:
        mesh = self._meshes[0]

        def first(seen: active_active.Seen) -> MeshCandidate | None:
            items = {region: None if its.item is None else its.item.image for region, its in seen.items()}
            return active_active.first_look(mesh, KEY, items, 0.0)

        return _looking_until_mended(
            lambda: active_active.look_active(mesh, KEY),
            first,
            lambda candidate, seen: active_active.judge(candidate, seen, 0.0),
            lambda seen: active_active.repair_active(mesh, KEY, seen, DETECTED, missing),
        )

    def content(self, item: Image | None) -> str | None:
        return None if item is None else item.attributes["w"]["N"]

    def should_win(self, items: list[Image]) -> Image:
        return items[-1]


class Versioned:
    """Mode `versioned`."""

    def __init__(self, regions: int) -> None:
        names = REGIONS[:regions]
        self._meshes = [VersionedMesh(home, tuple(name for name in names if name != home), VERSION) for home in names]

    def start(self, text: str, region: int) -> Slot:
        if not text:
            return Slot()
        number, version = (0, "1") if text == "=" else (14 + "ab".index(text[0]), text[1:])
        return Slot(versioned_machine.image(number, version, rising=True))

    def written(self, op: str, number: int, before: Image | None) -> Image | None:
        return versioned_machine.written(op, number, before, rising=True)

    def with_item(self, slot: Slot, item: Image | None) -> Slot:
        return replace(slot, item=item)

    def answer(self, slot: Slot, request: Any, nonce: str) -> tuple[Slot, Any]:
        return answer(slot, request, nonce)

    def work(self, home: int, record: ChangeRecord) -> Steps:
        return replicate_versioned(record, self._meshes[home])

    def seed(self, home: int) -> Steps:
        mesh = self._meshes[home]
        return _scanned(mesh.home, lambda image: versioned.seed_versioned(mesh, KEY, image))

    def repair(self, missing: Missing) -> Steps:
        mesh = self._meshes[0]

        def first(seen: versioned.Seen) -> MeshCandidate | None:
            return versioned.first_look(mesh, KEY, {region: its.item for region, its in seen.items()}, 0.0)

        return _looking_until_mended(
            lambda: versioned.look_versioned(mesh, KEY),
            first,
            lambda candidate, seen: versioned.judge(mesh, candidate, seen, 0.0),
            lambda seen: versioned.repair_versioned(mesh, KEY, seen, missing),
        )

    def content(self, item: Image | None) -> str | None:
        return None if item is None else item.attributes["write"]["N"]

    def should_win(self, items: list[Image]) -> Image:
        return max(items, key=lambda item: rank_of(VERSION, item))


# -- the search ----------------------------------------------------------------------------------------------------


class _Interned:
    """Values by number."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def number(self, value: Any) -> int:
        number = self._numbers.setdefault(value, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number


class MeshExplorer:
    """Depth-first search over all states of one scenario, each visited once."""

    def __init__(self, scenario: Scenario, mode: Mode | None = None) -> None:
        self._scenario = scenario
        count = len(scenario.ops)
        self._regions = REGIONS[:count]
        self._mode: Mode = mode or (Active(count) if scenario.mode == "active" else Versioned(count))
        self._places, self._actors = _Interned(), _Interned()
        self._asked: dict[int, tuple[Any, Any]] = {}
        self._steps: dict[tuple[int, int], tuple[int, int, str]] = {}
        self._numbers = [
            range(first, first + len(mine))
            for first, mine in zip(
                [1 + sum(map(len, scenario.ops[:region])) for region in range(count)], scenario.ops, strict=True
            )
        ]
        slots = [self._mode.start(text, region) for region, text in enumerate(scenario.starts)]
        self._first = [slot.item for slot in slots]
        copiers = [Actor("c", region) for region in range(count if scenario.job == "seed" else 1)]
        copiers += [Actor("c", 0)] * scenario.doubles
        self._start = State(
            tuple(self._places.number(Place(slot)) for slot in slots),
            (0,) * count,
            tuple(self._actors.number(Actor("w", region)) for region in range(count)),
            tuple(map(self._actors.number, copiers)),
            (),
            (scenario.crashes, scenario.zombies, scenario.stops),
            frozenset(),
        )

    @uncollected()
    def run(self, limit: int | None = None) -> Result:
        """Search until everything was seen, or a violation is found."""
        seen = {self._start}
        quiescent = 0
        path: list[tuple[str, Iterator[tuple[str, State]]]] = [("start", self._moves(self._start))]
        try:
            while path:
                for told, state in path[-1][1]:
                    known = len(seen)
                    seen.add(state)
                    if len(seen) == known:
                        continue
                    path.append((told, self._moves(state)))
                    quiescent += self._check_end(state)
                    if limit is not None and len(seen) > limit:
                        return Result(len(seen), quiescent, "INCOMPLETE")
                    break
                else:
                    path.pop()
        except Violation as violation:
            return Result(len(seen), quiescent, str(violation), tuple(told for told, _ in path))
        return Result(len(seen), quiescent)

    # -- everything that can happen --------------------------------------------------------------------------------

    def _moves(self, state: State) -> Iterator[tuple[str, State]]:
        for region, mine in enumerate(self._scenario.ops):
            if state.users[region] < len(mine):
                yield f"user {region} {mine[state.users[region]]}", self._user(state, region)
        for region, number in enumerate(state.workers):
            for told, moved, after in self._worker_steps(state, number):
                yield f"worker {told}", after._replace(workers=_with(state.workers, region, moved))
            yield from self._faults(state, region)
        for index, number in enumerate(state.zombies):
            others = state.zombies[:index] + state.zombies[index + 1 :]
            if self._scenario.fenced:
                yield "zombie dies", state._replace(zombies=others)
            for told, moved, after in self._worker_steps(state, number):
                yield f"zombie {told}", after._replace(zombies=tuple(sorted((*others, moved))))
        yield from self._copier_moves(state)

    def _copier_moves(self, state: State) -> Iterator[tuple[str, State]]:
        crashes, zombies, stops = state.left
        for index, number in enumerate(state.copiers):
            copier: Actor = self._actors.values[number]
            if copier.ended or not self._may_act(state, copier):
                continue
            for told, moved, after in self._taken(state, number):
                yield f"copier {told}", after._replace(copiers=self._sorted(_with(state.copiers, index, moved)))
            if stops and copier.answers:
                anew = self._actors.number(Actor("c", copier.region))
                copiers = self._sorted(_with(state.copiers, index, anew))
                yield "copier dies", state._replace(copiers=copiers, left=(crashes, zombies, stops - 1))

    @staticmethod
    def _sorted(copiers: tuple[int, ...]) -> tuple[int, ...]:
        """Copiers have no names: one order for all."""
        return tuple(sorted(copiers))

    def _may_act(self, state: State, copier: Actor) -> bool:
        lost = self._scenario.lost
        if lost is not None and not copier.answers:
            worker: Actor = self._actors.values[state.workers[lost[0]]]
            if worker.position <= lost[1]:
                return False
        if self._scenario.fenced and state.zombies:
            return False
        if copier.at and self._scenario.waits:
            positions = [self._actors.values[number].position for number in state.workers]
            return all(position >= length for position, length in zip(positions, copier.at, strict=True))
        return True

    def _faults(self, state: State, region: int) -> Iterator[tuple[str, State]]:
        crashes, zombies, stops = state.left
        worker: Actor = self._actors.values[state.workers[region]]
        if not (crashes or zombies) or (not worker.position and worker.record is None):
            return
        lost = self._scenario.lost
        first = lost[1] + 1 if lost is not None and lost[0] == region and worker.position > lost[1] else 0
        for position in range(first, worker.position + 1):
            begun = state._replace(
                workers=_with(state.workers, region, self._actors.number(Actor("w", region, position)))
            )
            if crashes and begun != state:
                yield (
                    f"worker {region} crashes, replays from {position}",
                    begun._replace(left=(crashes - 1, zombies, stops)),
                )
            if zombies:
                two = tuple(sorted((*state.zombies, state.workers[region])))
                yield (
                    f"worker {region} is taken over from, replays from {position}",
                    self._disturbed(begun._replace(zombies=two, left=(crashes, zombies - 1, stops))),
                )

    def _disturbed(self, state: State) -> State:
        if not self._scenario.fenced:
            return state
        anew = [
            self._actors.number(actor if actor.ended else Actor("c", actor.region)) for actor in self._copiers(state)
        ]
        return state._replace(copiers=self._sorted(tuple(anew)))

    def _copiers(self, state: State) -> list[Actor]:
        return [self._actors.values[number] for number in state.copiers]

    # -- users -----------------------------------------------------------------------------------------------------

    def _user(self, state: State, region: int) -> State:
        done = state.users[region]
        op, number = self._scenario.ops[region][done], self._numbers[region][done]
        place: Place = self._places.values[state.places[region]]
        new = self._mode.written(op, number, place.slot.item)
        after = self._emitted(place, self._mode.with_item(place.slot, new), op)
        return state._replace(
            users=_with(state.users, region, done + 1), places=_with(state.places, region, self._places.number(after))
        )

    def _emitted(self, place: Place, slot: Any, op: str = "") -> Place:
        old, new = place.slot.item, slot.item
        if old == new:
            return place._replace(slot=slot)
        if len(place.stream) >= LONGEST_STREAM:
            raise Violation("ECHO: writes without end")
        second = float(op[1:]) if op[1:].isdecimal() and op[0] in "PUD" else 99.0
        record = change_record(
            event="REMOVE" if new is None else "INSERT" if old is None else "MODIFY",
            key=KEY.wire,
            old=None if old is None else old.wire,
            new=None if new is None else new.wire,
            sequence=str(len(place.stream) + 1),
            created_at=second,
        )
        return Place(slot, (*place.stream, record))

    # -- workers and copiers ---------------------------------------------------------------------------------------

    def _worker_steps(self, state: State, number: int) -> Iterator[tuple[str, int, State]]:
        worker: Actor = self._actors.values[number]
        if worker.record is None:
            place: Place = self._places.values[state.places[worker.region]]
            if worker.position >= len(place.stream):
                return
            if self._scenario.lost == (worker.region, worker.position):
                behind = self._actors.number(worker._replace(position=worker.position + 1))
                yield f"{worker.region} loses {worker.position + 1}", behind, state
                return
            number = self._actors.number(worker._replace(record=place.stream[worker.position]))
        yield from self._taken(state, number)

    def _taken(self, state: State, number: int) -> Iterator[tuple[str, int, State]]:
        """One request that a region answers, with what is asked of no region on the way."""
        actor: Actor = self._actors.values[number]
        request, _ = self._request(number)
        match request:
            case None:
                yield "is done", self._behind(actor), state
            case At(region, asked):
                where = self._regions.index(region)
                step = self._steps.get((number, state.places[where]))
                if step is None:
                    step = self._steps[number, state.places[where]] = self._at(actor, asked, state.places[where])
                yield (
                    f"{actor.region} {step[2]}@{where}",
                    step[0],
                    state._replace(places=_with(state.places, where, step[1])),
                )
            case Passed():
                lengths = tuple(len(self._places.values[place].stream) for place in state.places)
                yield from self._taken_on(state, actor._replace(answers=(*actor.answers, Done()), at=lengths))
            case LogConflict():
                entry = (request.kind.value, str(self._mode.content(request.loser)))
                logged = state._replace(logged=state.logged | {entry})
                yield from self._taken_on(logged, actor._replace(answers=(*actor.answers, Done())))
            case LookAhead(_, after):
                place: Place = self._places.values[state.places[actor.region]]
                for found in dict.fromkeys((ahead(place.stream, after), Remover.UNKNOWN)):
                    answers = (*actor.answers, FoundAhead(found))
                    yield from self._taken_on(state, actor._replace(answers=answers))
            case _:
                yield from self._taken_on(state, actor._replace(answers=(*actor.answers, Done())))

    def _taken_on(self, state: State, actor: Actor) -> Iterator[tuple[str, int, State]]:
        number = self._actors.number(actor)
        if isinstance(self._request(number)[0], At) or actor.at:
            yield f"{actor.region} goes on", number, state
        else:
            yield from self._taken(state, number)

    def _at(self, actor: Actor, asked: Any, place_number: int) -> tuple[int, int, str]:
        place: Place = self._places.values[place_number]
        slot, response = self._mode.answer(place.slot, asked, f"{len(place.stream):08d}")
        after = self._places.number(self._emitted(place, slot))
        moved = actor._replace(answers=(*actor.answers, response))
        number = self._actors.number(moved)
        request, _ = self._request(number)
        told = f"{type(asked).__name__} -> {type(response).__name__}"
        return (self._behind(moved) if request is None else number), after, told

    def _behind(self, actor: Actor) -> int:
        if actor.kind == "c":
            return self._actors.number(Actor("c", actor.region, ended=True))
        return self._actors.number(Actor("w", actor.region, actor.position + 1))

    def _request(self, number: int) -> tuple[Any, Any]:
        asked = self._asked.get(number)
        if asked is None:
            actor: Actor = self._actors.values[number]
            asked = self._asked[number] = _replayed(self._begun(actor), actor.answers)
        return asked

    def _begun(self, actor: Actor) -> Steps:
        if actor.kind == "w":
            assert actor.record is not None
            return self._mode.work(actor.region, actor.record)
        return (
            self._mode.seed(actor.region) if self._scenario.job == "seed" else self._mode.repair(self._scenario.missing)
        )

    # -- checks ----------------------------------------------------------------------------------------------------

    def _check_end(self, state: State) -> bool:
        ends = tuple(map(len, self._scenario.ops))
        if state.users != ends or not all(copier.ended for copier in self._copiers(state)):
            return False
        for place, number in zip(state.places, state.workers, strict=True):
            worker: Actor = self._actors.values[number]
            if worker.record is not None or worker.position < len(self._places.values[place].stream):
                return False
        items = [self._places.values[place].slot.item for place in state.places]
        contents = [self._mode.content(item) for item in items]
        if len(set(contents)) > 1:
            raise Violation(f"DIVERGENCE: regions show {contents}")
        self._check_content(state, contents)
        return True

    def _check_content(self, state: State, contents: list[str | None]) -> None:
        """What is left is the greatest of what there was, and what was lost to it is logged."""
        words = [op for mine in self._scenario.ops for op in mine]
        starts = [item for item in self._first if item is not None]
        if self._scenario.job != "seed":
            return
        if not words and starts:
            winner = self._mode.should_win(starts)
            best = self._mode.content(winner)
            lost = {self._mode.content(item) for item in starts if item != winner}
            if contents[0] != best:
                raise Violation(f"WINNER: {contents[0]} is left, not {best}")
            named = {(ConflictKind.SEED.value, str(content)) for content in lost}
            if len(starts) < len(REGIONS[:3]):
                complete = state.logged == named
            else:
                # Of three regions one may lose first to another, and the same content win in the end; and a worker may
                # bring what a copier brought to one region on to the third: it logs what that replaces as a write.
                complete = {str(content) for content in lost} <= {content for _, content in state.logged}
                complete = complete and (bool(named) or not state.logged)
            if not complete:
                raise Violation(f"LOG: {sorted(state.logged)}, lost were {lost}")
        if not words or any(op[0] == "D" for op in words):
            return
        if contents[0] is None:
            raise Violation("LOST: nothing is left, and nothing was deleted")
        if self._scenario.mode == "active" and int(contents[0]) >= FROM_BEFORE:
            raise Violation(f"LATER: {contents[0]} from before the start won over a write")


def _with(values: tuple[Any, ...], index: int, value: Any) -> tuple[Any, ...]:
    return (*values[:index], value, *values[index + 1 :])


def _replayed(steps: Steps, answers: tuple[Any, ...]) -> tuple[Any, Any]:
    """What is asked next behind these answers; None, and how it ended, when nothing is."""
    try:
        request = next(steps)
        for response in answers:
            request = steps.send(response)
    except StopIteration as end:
        return None, end.value
    return request, None
