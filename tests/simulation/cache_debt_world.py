"""Every interleaving of writes, a replica, readers, a cache that fails at any step, its debt, and two that settle it.

Entries are changed by the memory cache's own functions, actions come from the production planner. An action fails with
or without its effect; its row is there before the position moves; a crash may come in between. Both that settle may die
at any step, which is a takeover: what they hold is only what they read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from replicator.domain.cache_keys import Invalidate
from replicator.laboratory.memory import acted
from tests.simulation.cache_world import CacheExplorer, CacheScenario, Reader, moves_around

SETTLERS = 2


class Settling(NamedTuple):
    """One that settles: the row as it read it (its token and what it is about), and whether its first step is done."""

    token: int = 0
    owed: int = 0
    begun: bool = False


class DebtState(NamedTuple):
    """A moment in a run; `row`: token and last record of what is owed, tokens rise; `failures_left`: of the cache."""

    written: int
    replica: int
    done: int
    entry: bytes | None
    readers: tuple[Reader, ...]
    replays_left: int
    evictions_left: int
    tokens: int
    row: tuple[int, int] | None
    rows: int
    failures_left: int
    settling: tuple[Settling, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """What keeps debts right; a mutant breaks one of them."""

    notes: bool = True
    """The row is durable before the position moves."""
    compares: bool = True
    """A row goes only as it was read."""
    drops_first: bool = True
    """The entry is dropped before the row goes."""
    by_drop: bool = True
    """An entry is dropped, whatever was owed; else the value that was owed is set."""
    after_replica: bool = True
    """A row is written when the replica holds the change; else as soon as the source does."""


class DebtExplorer(CacheExplorer):
    """Search over all states of one scenario under some rules."""

    def __init__(self, scenario: CacheScenario, rules: Rules = Rules(), failures: int = 2) -> None:
        super().__init__(scenario)
        self._rules = rules
        self._failures = failures

    def run(self) -> tuple[int, str | None]:
        """States seen, and what stays stale for good (None: nothing ever does)."""
        scenario = self._scenario
        start = DebtState(
            0, 0, 0, None, (Reader(),) * scenario.readers, scenario.replays, scenario.evictions, 0, None, 0,
            self._failures, (Settling(),) * SETTLERS,
        )  # fmt: skip
        seen, todo = {start}, [start]
        while todo:
            state = todo.pop()
            stale = None if state.row is not None else self._stale(state)
            if stale is not None and state.settling == (Settling(),) * SETTLERS:
                return len(seen), stale
            for after in self._moves(state):
                if after not in seen:
                    seen.add(after)
                    todo.append(after)
        return len(seen), None

    def _moves(self, state: Any) -> Iterator[Any]:
        yield from moves_around(state, self._scenario, self._total, self._acted)
        for index, reader in enumerate(state.readers):
            for after, moved in self._reads(state, reader):
                others = (*state.readers[:index], *state.readers[index + 1 :])
                yield after._replace(readers=tuple(sorted((*others, moved), key=repr)))
        if state.failures_left:
            yield from self._fails(state._replace(failures_left=state.failures_left - 1))
        for index, settling in enumerate(state.settling):
            for after, now in self._settles(state, settling):
                beside = (*state.settling[:index], *state.settling[index + 1 :])
                yield after._replace(settling=tuple(sorted((*beside, now))))

    def _fails(self, state: DebtState) -> Iterator[DebtState]:
        """An action gets no answer: a row, and the position moves, or a crash comes before."""
        limit = state.replica if self._rules.after_replica else state.written
        for until in range(state.done + 1, limit + 1):
            owed = state._replace(row=(state.rows + 1, until), rows=state.rows + 1) if self._rules.notes else state
            yield owed._replace(done=until)
            yield owed
            yield self._acted(owed, state.done, until)._replace(done=until)

    def _settles(self, state: DebtState, settling: Settling) -> Iterator[tuple[DebtState, Settling]]:
        if settling == Settling():
            if state.row is not None:
                yield state, Settling(*state.row)
            return
        yield state, Settling()  # it dies; what is left is another one's
        first, second = self._dropped, self._gone
        if not self._rules.drops_first:
            first, second = second, first
        if settling.begun:
            yield second(state, settling), Settling()
        else:
            yield first(state, settling), settling._replace(begun=True)

    def _gone(self, state: DebtState, settling: Settling) -> DebtState:
        if state.row is None or (self._rules.compares and state.row[0] != settling.token):
            return state
        return state._replace(row=None)

    def _dropped(self, state: DebtState, settling: Settling) -> DebtState:
        if self._rules.by_drop:
            return state._replace(entry=acted(state.entry, Invalidate(self._scenario.key)))
        return state._replace(entry=self._values[settling.owed])
