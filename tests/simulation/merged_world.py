"""Every interleaving of two sources that one table is made of, each with a worker that crashes and one that is dead.

Both sources hold an item under the same key, and the table's keys are made by the production mapping. A step is one
request of `replicate_ordered`, mapped as in production and answered by the memory region.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from replicator.domain.coalescing import coalesce, plan_run
from replicator.domain.conflicts import LogConflict
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.key_mapping import key_mapping
from replicator.domain.modes.ordered import Change, replicate_ordered
from replicator.domain.modes.requests import Done, Found, GuardedPut, Request, Response
from replicator.domain.records import ItemKey
from replicator.domain.rules import Rule
from replicator.domain.transforms import Transform
from replicator.engine.mapped_tables import mapped
from replicator.laboratory.memory import EMPTY, Slot, answer
from tests.simulation.ordered_world import GENERATION, KEY, History, Result, Violation, content
from tests.simulation.uncollected import uncollected

SideKey = Callable[[ItemKey], ItemKey]
"""Under which key the side row of an item of the table is, by the table's key."""


def by_the_tables_key(key: ItemKey) -> ItemKey:
    """As it is."""
    return key


def by_the_sources_key(key: ItemKey) -> ItemKey:
    """A mutant: both sources have one row, so that the delete of one is taken for the other's."""
    del key
    return KEY


ORDERS = {"pk": "orders#{pk}"}
INVOICES = {"pk": "invoices#{pk}"}


@dataclass(frozen=True, slots=True)
class Merge:
    """What users write to each source, and how much may go wrong in each."""

    kinds: tuple[str, str]
    crashes: int = 0
    zombies: int = 0
    keys: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None] = (ORDERS, INVOICES)
    side_key: SideKey = field(default=by_the_tables_key)


class At(NamedTuple):
    """A worker behind `position` records, with the answers that it got about the next one."""

    position: int = 0
    answers: tuple[Response, ...] = ()


class Side(NamedTuple):
    """One source with its worker and zombies."""

    writes: int = 0
    worker: At = At()
    zombies: tuple[At, ...] = ()
    crashes_left: int = 0
    zombies_left: int = 0


class State(NamedTuple):
    """A moment in a run: both sides, and the table with its side rows."""

    sides: tuple[Side, Side]
    table: frozenset[tuple[ItemKey, Slot]] = frozenset()


class Merging:
    """Depth-first search over all states, each visited once."""

    def __init__(self, merge: Merge) -> None:
        self._merge = merge
        self._histories = [History(kinds, None) for kinds in merge.kinds]
        self._transforms = [Transform(key=None if keys is None else key_mapping(keys)) for keys in merge.keys]
        # The generation of a stream is the time of its begin, so versions of two sources do not compare.
        self._changes: list[list[Change | None]] = [
            [
                plan_run(_RULE, run, GENERATION - n, transform)
                for record in history.records
                for run in coalesce([record])
            ]
            for n, (history, transform) in enumerate(zip(self._histories, self._transforms, strict=True))
        ]
        self._asked: dict[tuple[int, At], Request | None] = {}

    @uncollected()
    def run(self) -> Result:
        """Search until everything was seen, or a violation is found."""
        side = Side(crashes_left=self._merge.crashes, zombies_left=self._merge.zombies)
        start = State((side, side))
        seen, quiescent = {start}, 0
        path: list[tuple[str, Iterator[tuple[str, State]]]] = [("start", self._moves(start))]
        try:
            while path:
                for told, state in path[-1][1]:
                    if state not in seen:
                        seen.add(state)
                        path.append((told, self._moves(state)))
                        quiescent += self._check_end(state)
                        break
                else:
                    path.pop()
        except Violation as violation:
            return Result(len(seen), quiescent, str(violation), tuple(told for told, _ in path))
        return Result(len(seen), quiescent)

    def _moves(self, state: State) -> Iterator[tuple[str, State]]:
        for n, side in enumerate(state.sides):
            for told, after, table in self._moves_of(n, side, state):
                sides = (after, state.sides[1]) if n == 0 else (state.sides[0], after)
                yield f"{n}: {told}", State(sides, table)

    def _moves_of(
        self, n: int, side: Side, state: State
    ) -> Iterator[tuple[str, Side, frozenset[tuple[ItemKey, Slot]]]]:
        if side.writes < len(self._merge.kinds[n]):
            yield f"user {self._merge.kinds[n][side.writes]}", side._replace(writes=side.writes + 1), state.table
        for told, worker, table in self._step(n, side, side.worker, state):
            yield f"worker {told}", side._replace(worker=worker), table
        for index, zombie in enumerate(side.zombies):
            others = side.zombies[:index] + side.zombies[index + 1 :]
            yield "zombie dies", side._replace(zombies=others), state.table
            for told, after, table in self._step(n, side, zombie, state):
                yield f"zombie {told}", side._replace(zombies=(*others, after)), table
        if side.crashes_left and side.worker != At():
            yield "worker crashes", side._replace(worker=At(), crashes_left=side.crashes_left - 1), state.table
        if side.zombies_left and self._histories[n].lengths[side.writes]:
            yield "zombie wakes", side._replace(zombies=(At(),), zombies_left=side.zombies_left - 1), state.table

    def _step(
        self, n: int, side: Side, worker: At, state: State
    ) -> Iterator[tuple[str, At, frozenset[tuple[ItemKey, Slot]]]]:
        if worker.position >= self._histories[n].lengths[side.writes]:
            return
        request = self._request(n, worker)
        if request is None:
            yield "skips", At(worker.position + 1), state.table
            return
        table, response = self._answer(n, dict(state.table), request)
        after = At(worker.position, (*worker.answers, response))
        done = self._request(n, after) is None
        told = f"{type(request).__name__} -> {type(response).__name__}"
        yield told, (At(worker.position + 1) if done else after), table

    def _answer(
        self, n: int, table: dict[ItemKey, Slot], request: Request
    ) -> tuple[frozenset[tuple[ItemKey, Slot]], Response]:
        mapping = self._transforms[n].key
        there = request if mapping is None else mapped(request, mapping)
        if isinstance(there, Done | Found):
            return frozenset(table.items()), there
        key: ItemKey = there.put.key if isinstance(there, GuardedPut) else there.key
        row = _side(self._merge.side_key(key))
        before = Slot(table.get(key, EMPTY).item, table.get(row, EMPTY).tombstone)
        after, response = answer(before, there)
        table |= {key: Slot(after.item), row: Slot(None, after.tombstone)}
        return frozenset((key, slot) for key, slot in table.items() if slot != EMPTY), response

    def _request(self, n: int, worker: At) -> Request | None:
        if (n, worker) not in self._asked:
            self._asked[n, worker] = _next(self._changes[n][worker.position], worker.answers)
        return self._asked[n, worker]

    def _check_end(self, state: State) -> bool:
        """Whether nothing is left to do; then the table must hold both sources, each under its keys, and no more."""
        for history, side, kinds in zip(self._histories, state.sides, self._merge.kinds, strict=True):
            if side.writes < len(kinds) or side.worker != At(len(history.records)) or side.zombies:
                return False
        wanted = {}
        for history, transform in zip(self._histories, self._transforms, strict=True):
            item = history.items[-1]
            if item is not None:
                there = KEY if transform.key is None else transform.key.mapped(KEY)
                wanted[there] = content(transform.apply(KEY, item))
        held = {key: content(slot.item) for key, slot in state.table if slot.item is not None}
        if held != wanted:
            raise Violation(f"the sources make {wanted!r}, the table holds {held!r}")
        return True


_RULE = Rule(RuleName("orders"), RegionId("us"), TableName("orders"), targets=())


def _side(key: ItemKey) -> ItemKey:
    """A side row beside the items of the same search."""
    return ItemKey((*key.parts, ("side", "S", "")))


def _next(change: Change | None, answers: tuple[Response, ...]) -> Request | None:
    if change is None:
        return None
    steps = replicate_ordered(change, _RULE.policy)
    try:
        request = next(steps)
        for response in answers:
            request = steps.send(response)
    except StopIteration:
        return None
    assert not isinstance(request, LogConflict), "nothing here is foreign"
    return request
