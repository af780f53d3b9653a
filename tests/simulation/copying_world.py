"""Every interleaving of users, workers, damage and a copier around mode `ordered` and its copying.

One key, one source, one replica. A step is one request of a production generator, answered by the memory region. What a
worker or copier knows is where it began and the answers it got; generators are rebuilt from these. Everything that
states are made of is interned, so a state is a tuple of small integers, and what a step leads to is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from replicator.domain.coalescing import coalesce, plan_run
from replicator.domain.conflicts import LogConflict
from replicator.domain.copying import looks, ordered
from replicator.domain.copying.looks import Candidate, Difference, On, Side, first_look, judge
from replicator.domain.copying.ordered import Extra, Mended, base_version
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.image import Image, stamped
from replicator.domain.modes.ordered import OrderedPolicy, replicate_ordered
from replicator.domain.modes.requests import Done, Found, Response
from replicator.domain.rules import Rule
from replicator.domain.values import replace
from replicator.domain.versions import ordered_version
from replicator.laboratory.memory import Slot, answer
from tests.simulation.ordered_world import GENERATION, KEY, Answer, History, Violation, content, written
from tests.simulation.uncollected import uncollected

OLDER = ordered_version(0, GENERATION - 1, 7)
FOREIGN = Image(b'{"pk":{"S":"k"},"foreign":{"BOOL":true}}')
DAMAGED = Image(b'{"pk":{"S":"k"},"damaged":{"BOOL":true}}')

RULE = Rule(RuleName("orders"), RegionId("us"), TableName("orders"), targets=())


# -- scenarios -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scenario:
    """What users write, how source and replica begin, what is done to them, and how much may go wrong."""

    kinds: str
    job: str = "repair"
    """`seed`: the table is scanned, and every item brought; `repair`: what two looks agree on is mended."""
    imported: bool = False
    """The source holds an item from before its stream."""
    replica: str = "ours"
    """What the replica holds at the start: what it should (`ours`), nothing (`absent`), a copy of an older stream
    (`older`), or another program's item (`foreign`)."""
    lost: int | None = None
    """The record that no worker gets; the copier begins behind that."""
    damage: str = ""
    """What another program does to the replica at some moment before the copier begins: `gone`, `changed` under its
    version, `replaced`, or an `extra` item, without a version or with one (`stamped`)."""
    crashes: int = 0
    zombies: int = 0
    stops: int = 0
    """How often the copier may die; another one begins anew."""
    doubles: int = 0
    """How often another copier may begin although the one before still lives."""
    waits: bool = False
    """Between its looks, and before it brings what it scanned, the copier waits until the worker is behind the look."""
    monotone: bool = False
    """Going back to an older content counts as a violation, even if only for a moment."""
    honest: bool = False
    """Naming a difference counts as a violation: there is none but what is in flight."""
    policy: OrderedPolicy = field(default_factory=OrderedPolicy)
    extra: Extra = Extra.DELETE

    def __str__(self) -> str:
        words = [self.job, self.kinds or "-", "imported" * self.imported, self.replica, self.damage]
        words += ["" if self.lost is None else f"lost={self.lost + 1}"]
        words += [f"{name}={count}" * bool(count) for name, count in self._faults().items()]
        words += ["waits" * self.waits, "monotone" * self.monotone, "honest" * self.honest]
        words += [self.policy.insert_guard.value, self.policy.unstamped.value]
        return "copying " + " ".join(filter(None, words))

    def _faults(self) -> dict[str, int]:
        return {"crash": self.crashes, "zombie": self.zombies, "stop": self.stops, "double": self.doubles}


Steps = Generator[Any, Response, Any]


@dataclass(frozen=True, slots=True)
class Variant:
    """The production code, or one with a rule taken out."""

    world: Answer = answer
    second_look: Callable[..., Steps] = looks.second_look
    repair: Callable[..., Steps] = ordered.repair_ordered
    base: str = base_version(0, GENERATION)
    fenced: bool = True
    fences_first: bool = True
    looks_twice: bool = True


PRODUCTION = Variant()


# -- states --------------------------------------------------------------------------------------------------------


class Worker(NamedTuple):
    """Where a worker is: before the record at `position`, with the answers it got about it."""

    position: int = 0
    answers: tuple[Response, ...] = ()


IDLE, LOOKING, WAITING, ACTING, ENDED, LEFT = range(6)
"""A copier has not begun; has read the source, not the target; waits behind its look; looks again or writes; is done;
is done and has left what the policy leaves."""


class Copier(NamedTuple):
    """A copier: what it read first, when (how many writes there were), and the answers it got since."""

    phase: int = IDLE
    at: int = 0
    candidate: Candidate | None = None
    answers: tuple[Response, ...] = ()


class State(NamedTuple):
    """A moment in a run; slots, workers and copiers by number.

    A zombie is a worker from which another one has taken over: as it was then, mid-record. What left the stream is read
    by no worker that begins later, but a zombie may still hold it.
    """

    writes: int
    slot: int
    worker: int
    copier: int
    zombies: tuple[int, ...]
    doubles: tuple[int, ...]
    damaged: bool
    left: tuple[int, int, int, int]
    """Crashes, zombies, stops and doubles that may still happen."""
    newest: int


@dataclass(frozen=True, slots=True)
class Result:
    """What a search saw; without a violation it is complete."""

    states: int
    quiescent: int
    violation: str | None = None
    trace: tuple[str, ...] = ()


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


class Explorer:
    """Depth-first search over all states of one scenario, each visited once."""

    def __init__(self, scenario: Scenario, variant: Variant = PRODUCTION) -> None:
        self._scenario = scenario
        self._variant = variant
        self._history = History(scenario.kinds, written("P", 0, None) if scenario.imported else None)
        self._rule = replace(RULE, policy=scenario.policy)
        self._slots, self._workers, self._copiers = _Interned(), _Interned(), _Interned()
        self._order = {content(item): index for index, item in enumerate(self._history.items) if item is not None}
        self._changes = [plan_run(self._rule, coalesce([record])[0], GENERATION) for record in self._history.records]
        self._worker_steps: dict[tuple[int, int], tuple[int, int, str]] = {}
        self._copier_steps: dict[tuple[int, int, int], tuple[int, int, str]] = {}
        self._end = self._workers.number(Worker(len(self._history.records)))
        budget = (scenario.crashes, scenario.zombies, scenario.stops, scenario.doubles)
        self._start = State(
            0,
            self._slots.number(Slot(self._first_item())),
            self._workers.number(Worker()),
            self._copiers.number(Copier()),
            (),
            (),
            not scenario.damage,
            budget,
            -1,
        )

    def _first_item(self) -> Image | None:
        imported = self._history.items[0]
        match self._scenario.replica:
            case "ours" if imported is not None:
                return Image(stamped(imported, base_version(0, GENERATION)))
            case "older":
                return Image(stamped(DAMAGED, OLDER))
            case "foreign":
                return FOREIGN
            case _:
                return None

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

    # -- everything that can happen --------------------------------------------------------------------------------

    def _moves(self, state: State) -> Iterator[tuple[str, State]]:
        scenario = self._scenario
        if state.writes < len(scenario.kinds):
            yield f"user {scenario.kinds[state.writes]}", state._replace(writes=state.writes + 1)
        if not state.damaged and self._phase(state.copier) == IDLE:
            yield f"damage {scenario.damage}", self._damaged(state)
        yield from self._worker_moves(state)
        yield from self._copier_moves(state)

    def _worker_moves(self, state: State) -> Iterator[tuple[str, State]]:
        told, after = self._worker_step(state, state.worker, lost=self._scenario.lost)
        if after is not None:
            number, slot = after
            yield f"worker {told}", self._shown(state, slot)._replace(worker=number)
        for index, zombie in enumerate(state.zombies):
            others = state.zombies[:index] + state.zombies[index + 1 :]
            yield "zombie dies", state._replace(zombies=others)
            told, after = self._worker_step(state, zombie, lost=None)
            if after is not None:
                number, slot = after
                yield f"zombie {told}", self._shown(state, slot)._replace(zombies=tuple(sorted((*others, number))))
        crashes, zombies, stops, doubles = state.left
        worker: Worker = self._workers.values[state.worker]
        lost = self._scenario.lost
        first = lost + 1 if lost is not None and worker.position > lost else 0
        for position in range(first, worker.position + 1) if crashes or zombies else ():
            begun = state._replace(worker=self._workers.number(Worker(position)))
            if crashes and begun != state:
                yield (
                    f"worker crashes, replays from {position}",
                    self._disturbed(begun._replace(left=(crashes - 1, zombies, stops, doubles))),
                )
            if zombies:
                two = tuple(sorted((*state.zombies, state.worker)))
                yield (
                    f"worker is taken over from, replays from {position}",
                    self._disturbed(begun._replace(zombies=two, left=(crashes, zombies - 1, stops, doubles))),
                )

    def _copier_moves(self, state: State) -> Iterator[tuple[str, State]]:
        if self._may_act(state, state.copier, alone=not state.doubles):
            told, number, slot = self._copier_step(state, state.copier)
            yield f"copier {told}", self._shown(state, slot)._replace(copier=number)
        for index, double in enumerate(state.doubles):
            others = state.doubles[:index] + state.doubles[index + 1 :]
            yield "double dies", state._replace(doubles=others)
            if self._may_act(state, double, alone=True):
                told, number, slot = self._copier_step(state, double)
                yield f"double {told}", self._shown(state, slot)._replace(doubles=tuple(sorted((*others, number))))
        crashes, zombies, stops, doubles = state.left
        if self._phase(state.copier) not in {LOOKING, WAITING, ACTING}:
            return
        idle = self._copiers.number(Copier())
        if stops:
            yield "copier dies", state._replace(copier=idle, left=(crashes, zombies, stops - 1, doubles))
        if doubles:
            two = tuple(sorted((*state.doubles, state.copier)))
            yield (
                "copier is doubled",
                state._replace(copier=idle, doubles=two, left=(crashes, zombies, stops, doubles - 1)),
            )

    def _phase(self, copier: int) -> int:
        known: Copier = self._copiers.values[copier]
        return known.phase

    # -- workers ---------------------------------------------------------------------------------------------------

    def _worker_step(self, state: State, number: int, *, lost: int | None) -> tuple[str, tuple[int, int] | None]:
        worker: Worker = self._workers.values[number]
        if worker.position >= self._history.lengths[state.writes]:
            return "", None
        if worker.position == lost:
            return f"loses {lost + 1}", (self._workers.number(Worker(worker.position + 1)), state.slot)
        step = self._worker_steps.get((number, state.slot))
        if step is None:
            step = self._worker_steps[number, state.slot] = self._worked(worker, state.slot)
        return step[2], step[:2]

    def _worked(self, worker: Worker, slot: int) -> tuple[int, int, str]:
        change = self._changes[worker.position]
        behind = Worker(worker.position + 1)
        if change is None:
            return self._workers.number(behind), slot, "skips"

        def steps() -> Steps:
            return replicate_ordered(change, self._rule.policy)

        request, _ = _replayed(steps(), worker.answers)
        after, response = self._asked(slot, request)
        answers = (*worker.answers, response)
        request_next, _ = _replayed(steps(), answers)
        moved = behind if request_next is None else Worker(worker.position, answers)
        told = f"{worker.position + 1} {_named(request)} -> {type(response).__name__}"
        return self._workers.number(moved), after, told

    def _asked(self, slot: int, request: Any) -> tuple[int, Response]:
        if isinstance(request, LogConflict):
            return slot, Done()
        after, response = self._variant.world(self._slots.values[slot], request)
        return self._slots.number(after), response

    # -- copiers ---------------------------------------------------------------------------------------------------

    def _may_act(self, state: State, number: int, *, alone: bool) -> bool:
        """Whether a copier has anything to do, and may do it now."""
        copier: Copier = self._copiers.values[number]
        scenario = self._scenario
        worker: Worker = self._workers.values[state.worker]
        if copier.phase == IDLE:
            return state.damaged and (scenario.lost is None or worker.position > scenario.lost)
        if copier.phase == WAITING and scenario.waits and worker.position < self._history.lengths[copier.at]:
            return False
        first = copier.phase == LOOKING
        if scenario.job == "repair" and self._variant.fenced and (self._variant.fences_first or not first):
            return alone and not state.zombies and copier.phase not in {ENDED, LEFT}
        return copier.phase in {LOOKING, WAITING, ACTING}

    def _disturbed(self, state: State) -> State:
        """A lease was taken over from a silent worker: no look from before that counts."""
        if self._scenario.job != "repair" or not self._variant.fenced:
            return state
        doubles = tuple(sorted(map(self._waiting, state.doubles)))
        return state._replace(copier=self._waiting(state.copier), doubles=doubles)

    def _waiting(self, number: int) -> int:
        copier: Copier = self._copiers.values[number]
        if copier.phase != ACTING:
            return number
        return self._copiers.number(copier._replace(phase=WAITING, answers=()))

    def _copier_step(self, state: State, number: int) -> tuple[str, int, int]:
        step = self._copier_steps.get((number, state.slot, state.writes))
        if step is None:
            copier: Copier = self._copiers.values[number]
            scan = self._scenario.job == "seed"
            told, moved, slot = (self._seeding if scan else self._repairing)(copier, state.slot, state.writes)
            step = self._copier_steps[number, state.slot, state.writes] = (self._copiers.number(moved), slot, told)
        return step[2], step[0], step[1]

    def _seeding(self, copier: Copier, slot: int, writes: int) -> tuple[str, Copier, int]:
        if copier.phase == IDLE:
            found = self._history.items[writes] is not None
            return "scans", Copier(WAITING if found else ENDED, writes), slot
        image = self._history.items[copier.at]
        assert image is not None

        def steps() -> Steps:
            return ordered.seed_ordered(KEY, image, self._variant.base, self._rule.policy)

        request, _ = _replayed(steps(), copier.answers)
        after, response = self._asked(slot, request)
        answers = (*copier.answers, response)
        following, _ = _replayed(steps(), answers)
        moved = Copier(ENDED) if following is None else Copier(ACTING, copier.at, None, answers)
        return f"{_named(request)} -> {type(response).__name__}", moved, after

    def _repairing(self, copier: Copier, slot: int, writes: int) -> tuple[str, Copier, int]:
        if copier.phase == IDLE:
            return "looks at the source", Copier(LOOKING, writes), slot
        if copier.phase == LOOKING:
            return self._first_look(copier, slot, writes)
        assert copier.candidate is not None
        steps = self._looks_and_repairs(copier.candidate)
        request, _ = _replayed(steps, copier.answers)
        if isinstance(request, On) and request.side is Side.SOURCE:
            response: Response = Found(item=self._history.items[writes])
            after, at = slot, writes
        else:
            after, response = self._asked(slot, request.request if isinstance(request, On) else request)
            at = copier.at
        answers = (*copier.answers, response)
        following, ended = _replayed(self._looks_and_repairs(copier.candidate), answers)
        told = f"{_named(request)} -> {type(response).__name__}"
        if following is not None:
            return told, Copier(ACTING, at, copier.candidate, answers), after
        if isinstance(ended, Candidate):
            return f"{told}: once more", Copier(WAITING, at, ended), after
        return f"{told}: {ended.name}", Copier(LEFT if ended is Mended.LEFT else ENDED), after

    def _first_look(self, copier: Copier, slot: int, writes: int) -> tuple[str, Copier, int]:
        standing: Slot = self._slots.values[slot]
        source = self._history.items[copier.at]
        candidate = first_look(self._rule, KEY, source, standing.item, 0.0)
        if candidate is None:
            return "looks at the target: the same", Copier(ENDED), slot
        if self._variant.looks_twice:
            return "looks at the target: differs", Copier(WAITING, writes, candidate), slot
        seen = (Found(item=standing.item), Found(tombstone=standing.tombstone), Found(item=source))
        following, _ = _replayed(self._looks_and_repairs(candidate), seen)
        phase = LEFT if following is None else ACTING
        return "looks at the target: differs", Copier(phase, copier.at, candidate, seen), slot

    def _looks_and_repairs(self, candidate: Candidate) -> Steps:
        """As the engine does it: look again, judge, repair; what changed meanwhile is looked at anew."""
        seen = yield from self._variant.second_look(KEY)
        verdict = judge(self._rule, candidate, seen, 0.0, strict=self._scenario.honest)
        if not isinstance(verdict, Difference):
            return verdict
        if self._scenario.honest:
            raise Violation(f"{verdict.kind} was named, and nothing is lost")
        ended = yield from self._variant.repair(verdict, self._variant.base, self._rule.policy, self._scenario.extra)
        if ended is Mended.CHANGED:
            return looks.first_look(self._rule, KEY, seen.source, seen.target, 0.0)
        return ended

    # -- what others do to the replica -----------------------------------------------------------------------------

    def _damaged(self, state: State) -> State:
        standing: Slot = self._slots.values[state.slot]
        worker: Worker = self._workers.values[state.worker]
        item = self._after_damage(standing.item, worker.position)
        return state._replace(damaged=True, slot=self._slots.number(replace(standing, item=item)))

    def _after_damage(self, item: Image | None, done: int) -> Image | None:
        match self._scenario.damage:
            case "gone":
                return None
            case "changed":
                return item if item is None or item.stamp is None else Image(stamped(DAMAGED, item.stamp))
            case "replaced":
                return item if item is None else FOREIGN
            case "extra":
                return FOREIGN if item is None else item
            case _:
                # A copy of what the replica held once.
                puts = [record.number for record in self._history.records[:done] if record.new is not None]
                version = ordered_version(0, GENERATION, puts[-1]) if puts else OLDER
                return Image(stamped(DAMAGED, version)) if item is None else item

    # -- checks ----------------------------------------------------------------------------------------------------

    def _shown(self, state: State, slot: int) -> State:
        """The state with another content at the replica; readers must not see it go back."""
        if not self._scenario.monotone or slot == state.slot:
            return state._replace(slot=slot)
        standing: Slot = self._slots.values[slot]
        index = self._order.get(content(standing.item), -1)
        if -1 < index < state.newest:
            raise Violation(f"write {index} was shown after write {state.newest}")
        return state._replace(slot=slot, newest=max(state.newest, index))

    def _check_end(self, state: State) -> bool:
        """Whether nothing is left to do; then the replica must hold what the source does."""
        done = self._phase(state.copier) in {ENDED, LEFT} and state.worker == self._end and state.damaged
        quiet = all(zombie == self._end for zombie in state.zombies) and all(
            self._phase(double) in {ENDED, LEFT} for double in state.doubles
        )
        if not done or not quiet or state.writes < len(self._scenario.kinds):
            return False
        standing: Slot = self._slots.values[state.slot]
        source = self._history.items[-1]
        if content(source) != content(standing.item) and not self._may_stay(state, standing.item):
            raise Violation(f"source holds {content(source)!r}, replica {content(standing.item)!r}")
        return True

    def _may_stay(self, state: State, item: Image | None) -> bool:
        """Whether the replica holds what this job leaves: items that the source never had, or what a policy leaves."""
        if self._scenario.job == "seed":
            return self._history.items[-1] is None and item in {FOREIGN, self._first_item()}
        return self._phase(state.copier) == LEFT


def _replayed(steps: Steps, answers: tuple[Response, ...]) -> tuple[Any, Any]:
    """What is asked next behind these answers; None, and how it ended, when nothing is."""
    try:
        request = next(steps)
        for response in answers:
            request = steps.send(response)
    except StopIteration as end:
        return None, end.value
    return request, None


def _named(request: Any) -> str:
    asked = request.request if isinstance(request, On) else request
    where = f" {request.side.value}" if isinstance(request, On) else ""
    return f"{type(asked).__name__}{where}"
