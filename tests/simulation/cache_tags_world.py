"""Every interleaving of writes, a replica, the daemon and readers around one list that is cached under a tag.

The list holds the item while that has the tag. Scripts run on a real server, one call a step; the readers' steps and
the daemon's plan are the production ones. What a script does depends on entry, tag, arguments and time: each look of a
reader is a call of its own, so that no two of them give the same epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

import redis

from replicator.cache.codecs import Codec
from replicator.cache.policy import seen
from replicator.cache.reading import Fill, Load, Loaded, Look, Pause, ReadPlan, Request, reading
from replicator.cache.scripts import FILL, LOOK_TAGGED
from replicator.domain.cache_keys import CacheRule, CacheVerb, plan_cache
from replicator.domain.coalescing import coalesce, plan_run
from replicator.domain.identifiers import RegionId
from replicator.domain.key_templates import KeyTemplate
from replicator.domain.records import ChangeRecord
from tests.simulation.cache_world import RULE
from tests.simulation.ordered_world import GENERATION, History

KEY, TAG = "list", "tag:A"
_LIFE_MS = 1_000_000
_CODEC = Codec(lambda value: value, lambda payload: payload)
Images = Callable[[ChangeRecord], ChangeRecord]


class Reader(NamedTuple):
    """A reader between its steps."""

    token: str
    answers: tuple[Any, ...] = ()
    done: bool = False


class State(NamedTuple):
    """A moment in a run; counts are records."""

    written: int
    replica: int
    done: int
    entry: bytes | None
    tag: bytes | None
    readers: tuple[Reader, ...]
    replays_left: int
    evictions_left: int


@dataclass(frozen=True, slots=True)
class TagScenario:
    """What is written (`A`, `B`: the item with that tag, `D`: its delete), who reads, and what may go wrong."""

    kinds: str
    readers: int = 2
    replays: int = 1
    evictions: int = 1
    consistent_reads: bool = True
    after_replica: bool = True
    tag_after_load: bool = False
    """A reader stores the epoch that stands when it fills: the mistake of libraries that tag behind their set."""


@dataclass
class TagExplorer:
    """Search over all states; mutants: `look` alters the script, `as_seen` what the planner sees of records."""

    client: redis.Redis
    scenario: TagScenario
    look: str = LOOK_TAGGED
    as_seen: Images = lambda record: record
    _known: dict[Any, tuple[bytes | None, bytes | None, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Plan every batch that may be acted on at once."""
        self._records = History(self.scenario.kinds, None).records
        self._total = len(self._records)
        template = KeyTemplate("tag:{at}")
        self._rule = CacheRule("main", RegionId("eu"), template, CacheVerb.INVALIDATE, timedelta(hours=1))
        self._lists = [b"", *(self._list(record) for record in self._records)]
        self._dropped = {
            (first, until): self._drops([self.as_seen(record) for record in self._records[first:until]])
            for first in range(self._total)
            for until in range(first + 1, self._total + 1)
        }

    def _list(self, record: ChangeRecord) -> bytes:
        if record.new is None or self._rule.key.key(record.new) != TAG:
            return b""
        return str(record.number).encode()

    def _drops(self, records: Sequence[ChangeRecord]) -> bool:
        (run,) = coalesce(records)
        change = plan_run(RULE, run, GENERATION)
        assert change is not None
        return any(action.key == TAG for action in plan_cache(self._rule, run.records, change).actions)

    def run(self) -> tuple[int, str | None]:
        """States seen, and what stays stale for good (None: nothing ever does)."""
        scenario = self.scenario
        readers = tuple(Reader(str(number)) for number in range(scenario.readers))
        start = State(0, 0, 0, None, None, readers, scenario.replays, scenario.evictions)
        known, todo = {start}, [start]
        while todo:
            state = todo.pop()
            if stale := self._stale(state):
                return len(known), stale
            for after in self._moves(state):
                if after not in known:
                    known.add(after)
                    todo.append(after)
        return len(known), None

    def _stale(self, state: State) -> str | None:
        """What a further read would be given wrongly when all is acted on; readers may have died on their way."""
        if (state.written, state.replica, state.done) != (self._total,) * 3 or state.entry is None:
            return None
        found = seen(self._call(state, self.look, (KEY, TAG), "late", 1000, _LIFE_MS)[2])
        payload = found.entry.partition(b"|")[2]
        if found.sight.value == "hit" and payload != self._lists[self._total]:
            return f"a reader is given {payload!r}, the list is {self._lists[self._total]!r}"
        return None

    def _call(
        self, state: State, script: str, keys: tuple[str, ...], *arguments: Any
    ) -> tuple[bytes | None, bytes | None, Any]:
        asked = (state.entry, state.tag, script, arguments)
        if asked not in self._known:
            with self.client.pipeline(transaction=False) as pipe:
                pipe.delete(KEY, TAG)
                for key, value in ((KEY, state.entry), (TAG, state.tag)):
                    if value is not None:
                        pipe.set(key, value, px=_LIFE_MS)
                pipe.eval(script, len(keys), *keys, *arguments)
                pipe.get(KEY)
                pipe.get(TAG)
                *_, answer, entry, tag = pipe.execute()
            self._known[asked] = entry, tag, answer
        return self._known[asked]

    def _moves(self, state: State) -> Iterator[State]:
        scenario = self.scenario
        if state.written < self._total:
            yield state._replace(written=state.written + 1)
        if state.replica < state.written:
            yield state._replace(replica=state.replica + 1)
        limit = state.replica if scenario.after_replica else state.written
        for until in range(state.done + 1, limit + 1):
            yield self._acted(state, state.done, until)._replace(done=until)
        if state.replays_left:
            replayed = state._replace(replays_left=state.replays_left - 1)
            for first in range(state.done):
                for until in range(first + 1, state.done + 1):
                    yield self._acted(replayed, first, until)
        if state.evictions_left:
            yield state._replace(entry=None, evictions_left=state.evictions_left - 1)
            yield state._replace(tag=None, evictions_left=state.evictions_left - 1)
        for index, reader in enumerate(state.readers):
            for after, moved in self._steps(state, reader):
                yield after._replace(readers=(*state.readers[:index], moved, *state.readers[index + 1 :]))

    def _acted(self, state: State, first: int, until: int) -> State:
        return state._replace(tag=None) if self._dropped[first, until] else state

    def _steps(self, state: State, reader: Reader) -> Iterator[tuple[State, Reader]]:
        if reader.done:
            return
        match self._request(reader):
            case Look(_, token, lease_ms, tag_ms):
                looks = f"{token}-{len(reader.answers)}"
                entry, tag, reply = self._call(state, self.look, (KEY, TAG), looks, lease_ms, tag_ms)
                yield self._answered(state._replace(entry=entry, tag=tag), reader, seen(reply))
            case Load():
                oldest = state.replica if self.scenario.consistent_reads else max(state.replica - 1, 0)
                for number in range(oldest, state.replica + 1):
                    yield self._answered(state, reader, Loaded(self._lists[number]))
            case Fill(_, lease, content, life_ms):
                if self.scenario.tag_after_load:
                    content = b"G:" + (state.tag or b"") + b"|" + content.partition(b"|")[2]
                entry, tag, reply = self._call(state, FILL, (KEY,), lease, content, life_ms or 1)
                yield self._answered(state._replace(entry=entry, tag=tag), reader, bool(reply))
            case Pause():
                yield self._answered(state, reader, None)

    def _request(self, reader: Reader) -> Request:
        steps = reading(ReadPlan(KEY, reader.token, _CODEC, _LIFE_MS, 0, _LIFE_MS, _LIFE_MS, 0.001, tags=(TAG,)))
        request = next(steps)
        for answer in reader.answers:
            request = steps.send(answer)
        return request

    def _answered(self, state: State, reader: Reader, answer: Any) -> tuple[State, Reader]:
        moved = reader._replace(answers=(*reader.answers, answer))
        try:
            self._request(moved)
        except StopIteration:
            moved = Reader(reader.token, done=True)
        return state, moved
