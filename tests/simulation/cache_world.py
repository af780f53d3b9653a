"""Every interleaving of writes, a replica, readers and the daemon around one cache entry.

The daemon's actions come from the production planner, entries are changed by the memory cache's own functions. Time has
no clock here: an eviction or an expiry is a step that may happen at any moment, a replay too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from replicator.domain.cache_keys import CacheAction, CacheRule, CacheVerb, Refill, Refresh, plan_cache, plan_refill
from replicator.domain.cache_values import Shape
from replicator.domain.coalescing import coalesce, plan_run
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.key_templates import KeyTemplate
from replicator.domain.rules import Rule
from replicator.domain.versions import ordered_version
from replicator.laboratory.memory import acted, filled, leased, value_entry
from tests.simulation.ordered_world import GENERATION, History

WHOLE = Shape()
RULE = Rule(RuleName("orders"), RegionId("us"), TableName("orders"), targets=())


@dataclass(frozen=True, slots=True)
class CacheScenario:
    """What users write, who reads, and what may go wrong."""

    kinds: str
    verb: CacheVerb
    readers: int = 2
    replays: int = 1
    evictions: int = 1
    template: str = "order:{pk}"
    key: str = "order:k"
    """The entry that is watched."""
    leases: bool = True
    """Readers fill under a lease; otherwise they simply set what they read."""
    consistent_reads: bool = True
    shape: Shape = WHOLE
    """What entries hold."""
    refills: bool = False
    """The daemon acts as in a mesh: it drops entries, and fills them as a reader does."""
    sets_absent: bool = False
    """A `write_through` sets what is absent at once, in place of filling it under a lease."""
    after_replica: bool = True
    """The daemon acts once the replica holds the write; otherwise as soon as the source does."""


class Reader(NamedTuple):
    """A reader between its steps; `token` None: it has not looked yet; `seen`: the replica's state that it read."""

    token: str | None = None
    seen: int | None = None
    done: bool = False

    @property
    def is_daemon(self) -> bool:
        """Whether it is the daemon that fills what was absent; it may die on its way."""
        return self.token is not None and self.token.startswith("d")


class CacheState(NamedTuple):
    """A moment in a run; counts are records."""

    written: int
    replica: int
    done: int
    entry: bytes | None
    readers: tuple[Reader, ...]
    replays_left: int
    evictions_left: int
    tokens: int


class CacheExplorer:
    """Search over all states of one scenario."""

    def __init__(self, scenario: CacheScenario) -> None:
        self._scenario = scenario
        self._history = History(scenario.kinds, None)
        self._total = len(self._history.records)
        self._rule = CacheRule(
            "main",
            RegionId("eu"),
            KeyTemplate(scenario.template),
            scenario.verb,
            timedelta(hours=1),
            shape=scenario.shape,
        )
        self._actions = {
            (first, until): self._plan(first, until)
            for first in range(self._total)
            for until in range(first + 1, self._total + 1)
        }
        self._values = [None, *(self._value(number) for number in range(self._total))]

    def _plan(self, first: int, until: int) -> tuple[CacheAction, ...]:
        records = self._history.records[first:until]
        if self._scenario.refills:
            planned = [action for record in records for action in plan_refill(self._rule, record).actions]
            return tuple(action for action in planned if action.key == self._scenario.key)
        (run,) = coalesce(records)
        change = plan_run(RULE, run, GENERATION)
        assert change is not None
        actions = plan_cache(self._rule, run.records, change).actions
        return tuple(action for action in actions if action.key == self._scenario.key)

    def _value(self, number: int) -> bytes | None:
        """What a reader would cache of the replica behind a record; None when no item has that key."""
        record = self._history.records[number]
        if record.new is None or self._rule.key.key(record.new) != self._scenario.key:
            return None
        return value_entry(ordered_version(RULE.epoch, GENERATION, record.number), self._rule.payload(record.new))

    def run(self) -> tuple[int, str | None]:
        """States seen, and what stays stale for good (None: nothing ever does)."""
        scenario = self._scenario
        start = CacheState(0, 0, 0, None, (Reader(),) * scenario.readers, scenario.replays, scenario.evictions, 0)
        seen = {start}
        todo = [start]
        while todo:
            state = todo.pop()
            stale = self._stale(state)
            if stale is not None:
                return len(seen), stale
            for after in self._moves(state):
                if after not in seen:
                    seen.add(after)
                    todo.append(after)
        return len(seen), None

    def _stale(self, state: Any) -> str | None:
        """What is wrong with the entry when nothing is left to do."""
        quiet = (state.written, state.replica, state.done) == (self._total,) * 3
        idle = all(reader.done or reader == Reader() or reader.is_daemon for reader in state.readers)
        if not (quiet and idle) or state.entry is None or state.entry.startswith(b"L:"):
            return None
        wanted = self._values[self._total]
        current = state.entry.startswith(b"T:") if wanted is None else state.entry == wanted
        return None if current else f"the cache keeps {state.entry!r}, the replica holds {wanted!r}"

    def _moves(self, state: Any) -> Iterator[Any]:
        yield from moves_around(state, self._scenario, self._total, self._acted)
        for index, reader in enumerate(state.readers):
            for after, moved in self._reads(state, reader):
                others = (*state.readers[:index], *state.readers[index + 1 :])
                yield after._replace(readers=tuple(sorted((*others, moved), key=repr)))

    def _acted(self, state: Any, first: int, until: int) -> Any:
        for action in self._actions[first, until]:
            entry = acted(state.entry, action)
            refills = isinstance(action, Refill) and (action.through or state.entry is not None)
            if refills or (state.entry is None and isinstance(action, Refresh) and action.through):
                if self._scenario.sets_absent and isinstance(action, Refresh):
                    marker = b"T:" + action.version.encode()
                    entry = value_entry(action.version, action.payload) if action.payload else marker
                else:
                    token = f"d{state.tokens}"
                    entry, _ = leased(None, token)
                    readers = tuple(sorted((*state.readers, Reader(token)), key=repr))
                    state = state._replace(readers=readers, tokens=state.tokens + 1)
            state = state._replace(entry=entry)
        return state

    def _reads(self, state: Any, reader: Reader) -> Iterator[tuple[Any, Reader]]:
        """A reader looks, then reads the replica, then fills."""
        finished = Reader(done=True)
        if reader.done:
            return
        if reader.token is None:
            token = str(state.tokens)
            entry, ours = leased(state.entry, token) if self._scenario.leases else (state.entry, state.entry is None)
            if ours:
                yield state._replace(entry=entry, tokens=state.tokens + 1), Reader(token)
            else:
                yield state, finished
        elif reader.seen is None:
            oldest = state.replica if self._scenario.consistent_reads else max(state.replica - 1, 0)
            for seen in range(oldest, state.replica + 1):
                yield state, Reader(reader.token, seen)
        else:
            value = self._values[reader.seen]
            if value is None and reader.is_daemon:
                yield state._replace(entry=filled(state.entry, reader.token, b"T:")), finished
            elif value is None:
                yield state, finished
            elif self._scenario.leases:
                yield state._replace(entry=filled(state.entry, reader.token, value)), finished
            else:
                yield state._replace(entry=value), finished


def moves_around(
    state: Any, scenario: CacheScenario, total: int, acted: Callable[[Any, int, int], Any]
) -> Iterator[Any]:
    """What may happen beside the readers: writes, the replica, actions and their replays (`acted`), evictions."""
    if state.written < total:
        yield state._replace(written=state.written + 1)
    if state.replica < state.written:
        yield state._replace(replica=state.replica + 1)
    limit = state.replica if scenario.after_replica else state.written
    for until in range(state.done + 1, limit + 1):
        yield acted(state, state.done, until)._replace(done=until)
    if state.replays_left:
        replayed = state._replace(replays_left=state.replays_left - 1)
        for first in range(state.done):
            for until in range(first + 1, state.done + 1):
                yield acted(replayed, first, until)
    if state.evictions_left and state.entry is not None:
        yield state._replace(entry=None, evictions_left=state.evictions_left - 1)
