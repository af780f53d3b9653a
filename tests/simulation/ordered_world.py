"""Every interleaving of users, a worker that crashes and workers that should be dead, around the production mode.

One key, one source, one replica. A step is one request of `replicate_ordered`, answered by the memory region, so that
whatever can happen between two requests does happen somewhere in the search. Generators cannot be copied: a worker's
state is the batch it took and the answers it got, and the generator is rebuilt by replaying them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from msgspec import structs

from replicator.domain.coalescing import (
    Run,
    as_the_source_says,
    behind,
    coalesce,
    goes_behind,
    is_guessed,
    plan_run,
)
from replicator.domain.conflicts import LogConflict
from replicator.domain.filters import Filter
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, TableName
from replicator.domain.image import Image, canonical, stamped
from replicator.domain.modes.ordered import Change, OrderedPolicy, Outcome, replicate_ordered
from replicator.domain.modes.requests import (
    AbsentOrStampBelow,
    Delete,
    Done,
    GuardedPut,
    Put,
    RaiseTombstone,
    Request,
    Response,
    StampBelow,
    UnstampedOrStampBelow,
)
from replicator.domain.records import ChangeRecord, change_record, item_key
from replicator.domain.rules import KinesisSource, Rule
from replicator.laboratory.memory import EMPTY, Slot, answer
from tests.simulation.uncollected import uncollected

KEY = item_key(b'{"pk":{"S":"k"}}')
GENERATION = 1_700_000_000_000
_MILLISECOND = 7_000_000

Answer = Callable[[Slot, Request], tuple[Slot, Response]]


# -- what users do -------------------------------------------------------------------------------------------------


def written(kind: str, number: int, before: Image | None) -> Image | None:
    """The item after a user's write: P puts it anew, H puts one that a filter hides, U updates, D deletes.

    A and B put it where its cache key has that letter; S puts the same every time.
    """
    match kind:
        case "P":
            attributes = {"pk": {"S": "k"}, "put": {"N": str(number)}, "seen": {"BOOL": True}}
        case "H":
            attributes = {"pk": {"S": "k"}, "put": {"N": str(number)}}
        case "S":
            attributes = {"pk": {"S": "k"}}
        case "A" | "B":
            attributes = {"pk": {"S": "k"}, "put": {"N": str(number)}, "at": {"S": kind}}
        case "U":
            kept = {"pk": {"S": "k"}, "seen": {"BOOL": True}} if before is None else before.attributes
            attributes = {**kept, "updated": {"N": str(number)}}
        case _:
            return None
    return Image(json.dumps(attributes, separators=(",", ":")).encode())


def _event(old: Image | None, new: Image | None) -> str:
    if new is None:
        return "REMOVE"
    return "INSERT" if old is None else "MODIFY"


class History:
    """What a sequence of writes leaves in the source: after every write the item, and the records so far."""

    def __init__(self, kinds: str, imported: Image | None, delivery: Delivery | None = None) -> None:
        self.records: list[ChangeRecord] = []
        self.items = [imported]
        self.lengths = [0]
        for number, kind in enumerate(kinds, start=1):
            old = self.items[-1]
            new = written(kind, number, old)
            if (old, new) != (None, None):
                self.records.append(
                    change_record(
                        event=_event(old, new),
                        key=KEY.wire,
                        old=None if old is None else old.wire,
                        new=None if new is None else new.wire,
                        sequence=str(number),
                        created_at=0.0,
                    )
                )
            self.items.append(new)
            self.lengths.append(len(self.records))
        if delivery is not None:
            self._deliver(delivery)

    def _deliver(self, delivery: Delivery) -> None:
        """Let records come in another order and more than once, each as soon as it was written and all before it came.

        Their places rise as they come, and only their times say how they were made.
        """
        order = [number for number in delivery.order if number < len(self.records)]
        made, self.records = self.records, []
        for place, number in enumerate(order, start=1):
            micros = 0 if delivery.by_place else _MILLISECOND if delivery.coarse else 1 + number
            sequence = SequenceNumber(str(place))
            self.records.append(structs.replace(made[number], sequence=sequence, micros=micros, event_id=str(number)))
        self.lengths = [
            next((place for place, number in enumerate(order) if number >= length), len(order))
            for length in self.lengths
        ]


# -- worlds that lack something ------------------------------------------------------------------------------------


def without_tombstones(slot: Slot, request: Request) -> tuple[Slot, Response]:
    """Remember no deletes: no tombstone is raised or checked."""
    match request:
        case RaiseTombstone():
            return slot, Done()
        case GuardedPut(put):
            return answer(slot, put)
        case _:
            return answer(slot, request)


def without_conditions(slot: Slot, request: Request) -> tuple[Slot, Response]:
    """Do what is asked, whatever stands there."""
    match request:
        case Put(_, image, version) | GuardedPut(Put(_, image, version)):
            return Slot(Image(stamped(image, version))), Done()
        case Delete():
            return EMPTY, Done()
        case _:
            return slot, Done()


@dataclass(frozen=True, slots=True)
class Delivery:
    """In which order records come, by their numbers from 0 on; one may come again.

    `by_place`: a mutant that takes the place of a record for its version, as a source that keeps the order allows.
    """

    order: tuple[int, ...]
    by_place: bool = False
    coarse: bool = False
    """All changes have the time of one millisecond."""
    looks: bool = True
    """A mutant does not look at the source, and goes by what a change replaced."""


# -- scenarios and states ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scenario:
    """What users write, and how much may go wrong."""

    kinds: str
    crashes: int = 0
    zombies: int = 0
    policy: OrderedPolicy = field(default_factory=OrderedPolicy)
    world: Answer = answer
    batches: bool = False
    """A worker may take several pending records at once and coalesce them."""
    filter: Filter = field(default_factory=Filter)
    imported: bool = False
    """Source and replica start with the same item, and the replica's has no stamp."""
    monotone: bool = True
    """Going back to an older image counts as a violation, even if only for a moment."""
    delivery: Delivery | None = None
    """How a source that keeps no order shows the records; None: in their order, once."""


class Worker(NamedTuple):
    """Where a worker is: behind `position` records, with `taken` more in hand, and the answers it got about them."""

    position: int = 0
    taken: int = 0
    answers: tuple[Response, ...] = ()
    behind: tuple[str, ...] = ()
    """Versions of its millisecond that it is to come behind."""
    asked: int = -1
    """After how many writes it asked the source which of its changes is the last one; -1: it did not."""


class State(NamedTuple):
    """A moment in a run."""

    writes: int
    replica: Slot
    newest: str
    """The greatest version that the replica ever showed."""
    worker: Worker
    zombies: tuple[Worker, ...]
    crashes_left: int
    zombies_left: int


class Violation(Exception):
    """An invariant does not hold."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a search saw; without a violation it is complete."""

    states: int
    quiescent: int
    violation: str | None = None
    trace: tuple[str, ...] = ()


@lru_cache(maxsize=4096)
def content(image: Image | None) -> bytes | None:
    """What an item holds besides its stamp."""
    return None if image is None else canonical(image)


# -- the search ----------------------------------------------------------------------------------------------------


class Explorer:
    """Depth-first search over all states of one scenario, each visited once."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        imported = written("P", 0, None) if scenario.imported else None
        self._history = History(scenario.kinds, imported, scenario.delivery)
        self._rule = Rule(
            RuleName("orders"),
            RegionId("us"),
            TableName("orders"),
            targets=(),
            policy=scenario.policy,
            filter=scenario.filter,
            stream=KinesisSource("changes", in_microseconds=not (scenario.delivery and scenario.delivery.coarse)),
        )
        self._start = State(0, Slot(imported), "", Worker(), (), scenario.crashes, scenario.zombies)
        self._runs: dict[Worker, Run] = {}
        delivery = scenario.delivery
        self._asks = delivery is not None and delivery.coarse and delivery.looks
        self._asked: dict[Worker, Request | Outcome | None] = {}

    @uncollected()
    def run(self) -> Result:
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
                    break
                else:
                    path.pop()
        except Violation as violation:
            return Result(len(seen), quiescent, str(violation), tuple(told for told, _ in path))
        return Result(len(seen), quiescent)

    def _moves(self, state: State) -> Iterator[tuple[str, State]]:
        """Everything that can happen next."""
        if state.writes < len(self._scenario.kinds):
            yield f"user {self._scenario.kinds[state.writes]}", state._replace(writes=state.writes + 1)
        for told, worker, after in self._steps(state, state.worker):
            yield f"worker {told}", after._replace(worker=worker)
        for index, zombie in enumerate(state.zombies):
            others = state.zombies[:index] + state.zombies[index + 1 :]
            yield f"zombie dies at {zombie.position}", state._replace(zombies=others)
            for told, worker, after in self._steps(state, zombie):
                yield f"zombie {told}", after._replace(zombies=_sorted((*others, worker)))
        if state.crashes_left and state.worker != Worker():
            for position in range(state.worker.position + 1):
                yield (
                    f"worker crashes, replays from {position}",
                    state._replace(worker=Worker(position), crashes_left=state.crashes_left - 1),
                )
        if state.zombies_left:
            last = min(state.worker.position, self._history.lengths[state.writes] - 1)
            for position in range(last + 1):
                yield (
                    f"zombie wakes at {position}",
                    state._replace(
                        zombies=_sorted((*state.zombies, Worker(position))), zombies_left=state.zombies_left - 1
                    ),
                )

    def _steps(self, state: State, worker: Worker) -> Iterator[tuple[str, Worker, State]]:
        """One request of a worker; an idle one first takes a batch."""
        if worker.taken:
            yield self._step(state, worker)
            return
        pending = self._history.lengths[state.writes] - worker.position
        for taken in range(1, (pending if self._scenario.batches else min(pending, 1)) + 1):
            yield self._step(state, Worker(worker.position, taken))

    def _step(self, state: State, worker: Worker) -> tuple[str, Worker, State]:
        if self._asks and worker.asked < 0 and is_guessed(self._run(worker)):
            return f"{worker.position}+{worker.taken} asks", worker._replace(asked=state.writes), state
        request = self._request(worker)
        done = Worker(worker.position + worker.taken)
        if request is None:
            return f"skips {worker.position}+{worker.taken}", done, state
        if isinstance(request, Outcome):
            return self._look(state, worker, request, done)
        after, response = self._answer(state, request)
        moved = worker._replace(answers=(*worker.answers, response))
        told = f"{worker.position}+{worker.taken} {type(request).__name__} -> {type(response).__name__}"
        return told, (done if self._request(moved) is None else moved), after

    def _look(self, state: State, worker: Worker, outcome: Outcome, done: Worker) -> tuple[str, Worker, State]:
        """It met another change of its millisecond: which is later, the source knows."""
        assert outcome.tied is not None, "else it is done"
        run, source = self._run(worker), self._history.items[state.writes]
        is_later = goes_behind(run, outcome, source) if self._asks else outcome.follows
        later = behind(run, outcome.tied) if is_later else None
        told = f"{worker.position}+{worker.taken} looks -> {'later' if later else 'older'}"
        if later is None:
            return told, done, state
        return told, worker._replace(answers=(), behind=(*worker.behind, outcome.tied)), state

    def _answer(self, state: State, request: Request) -> tuple[State, Response]:
        if isinstance(request, LogConflict):
            return state, Done()
        replica, response = self._scenario.world(state.replica, request)
        newest = state.newest
        if replica.item != state.replica.item:
            version = _version(request)
            if version < newest and self._scenario.monotone:
                raise Violation(f"{type(request).__name__} brought {version} after {newest} was visible")
            newest = max(newest, version)
        return state._replace(replica=replica, newest=newest), response

    def _request(self, worker: Worker) -> Request | Outcome | None:
        """What a worker asks next; None when it is done with its batch, an outcome when that is tied."""
        if worker not in self._asked:
            change = plan_run(self._rule, self._run(worker), GENERATION)
            self._asked[worker] = _replayed(change, worker.answers, self._rule)
        return self._asked[worker]

    def _run(self, worker: Worker) -> Run:
        where = worker._replace(answers=())
        if where not in self._runs:
            (run,) = coalesce(self._history.records[worker.position : worker.position + worker.taken])
            if worker.asked >= 0:
                run = as_the_source_says(run, self._history.items[worker.asked])
            for version in worker.behind:
                later = behind(run, version)
                assert later is not None, "a millisecond has places for them"
                run = later
            self._runs[where] = run
        return self._runs[where]

    def _check_end(self, state: State) -> bool:
        """Whether nothing is left to do; then the replica must be what the filter lets through of the source."""
        end = Worker(len(self._history.records))
        idle = state.worker == end and all(zombie == end for zombie in state.zombies)
        if state.writes < len(self._scenario.kinds) or not idle:
            return False
        source = self._history.items[-1]
        wanted = source if self._scenario.filter.matches(source) else None
        if content(wanted) != content(state.replica.item):
            raise Violation(f"source holds {content(wanted)!r}, replica {content(state.replica.item)!r}")
        return True


def _replayed(change: Change | None, answers: tuple[Response, ...], rule: Rule) -> Request | Outcome | None:
    if change is None:
        return None
    steps = replicate_ordered(change, rule.policy)
    try:
        request = next(steps)
        for response in answers:
            request = steps.send(response)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome if outcome.tied is not None else None
    return request


def _version(request: Request) -> str:
    match request:
        case GuardedPut(put):
            return put.version
        case Put(version=version):
            return version
        case Delete(when=StampBelow() | AbsentOrStampBelow() | UnstampedOrStampBelow() as when):
            return when.version
        case _:
            raise AssertionError(f"{request} changes no item")


def _sorted(zombies: tuple[Worker, ...]) -> tuple[Worker, ...]:
    """Zombies are interchangeable: one order for all of them."""
    return tuple(sorted(zombies, key=repr))
