"""Every interleaving of writes, a replica, the daemon and readers of the reader library around one entry.

Scripts run on a real server, one call a step; the readers' steps and the daemon's plan are the production ones. A
generator cannot be copied: a reader's state is the answers that it got, and its steps are rebuilt from them. What a
script does depends on the entry and its arguments alone, so each pair is asked once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import redis

from replicator.adapters.redis.scripts import APPLY, APPLY_HASH, REFILL, THROUGH, THROUGH_HASH
from replicator.cache.codecs import Codec
from replicator.cache.policy import seen
from replicator.cache.reading import Fill, Load, Loaded, Look, Pause, ReadPlan, Request, Seen, Sight, reading
from replicator.cache.scripts import FILL, FILL_HASH, LOOK, LOOK_HASH
from replicator.domain.cache_keys import CacheAction, Refill, Refresh
from replicator.domain.cache_values import Shape, hash_payload
from replicator.domain.values import replace
from tests.simulation.cache_world import CacheExplorer, CacheScenario, moves_around

_LIFE_MS = 1_000_000
_CODEC = Codec(lambda value: value, lambda payload: payload)
_HASH = Shape("hash")
Change = Callable[[Request], Request]


class Reader(NamedTuple):
    """A reader between its steps."""

    token: str
    renews: bool = False
    answers: tuple[Any, ...] = ()
    done: bool = False
    looked_twice: bool = False
    """A LOOK of this read, sent twice, has run a second time."""


class State(NamedTuple):
    """A moment in a run."""

    written: int
    replica: int
    done: int
    entry: bytes | None
    readers: tuple[Reader, ...]
    replays_left: int
    evictions_left: int


@dataclass
class Server:
    """What scripts do to one entry."""

    client: Any
    hashed: bool = False
    known: dict[Any, tuple[bytes | None, Any]] = field(default_factory=dict)

    def call(
        self, entry: bytes | None, script: str, key: str, *arguments: Any, again: bool = False
    ) -> tuple[bytes | None, Any]:
        """The entry afterwards, and the answer; `again`: a run of its own for a call that was sent twice."""
        asked = (entry, script, key, arguments, again)
        if asked not in self.known:
            with self.client.pipeline(transaction=False) as pipe:
                pipe.delete(key)
                if entry is not None and self.hashed and entry.startswith(b"V:"):
                    version, _, payload = entry[2:].partition(b"|")
                    pipe.hset(key, mapping={"": version, **_HASH.decode(payload)})
                elif entry is not None:
                    pipe.set(key, entry, px=_LIFE_MS)
                pipe.eval(script, 1, key, *arguments)
                if self.hashed:
                    *_, answer = pipe.execute()
                    after = self._found(key)
                else:
                    pipe.get(key)
                    *_, answer, after = pipe.execute()
            self.known[asked] = (after, answer)
        return self.known[asked]

    def _found(self, key: str) -> bytes | None:
        if self.client.type(key) != b"hash":
            found: bytes | None = self.client.get(key)
            return found
        fields = self.client.hgetall(key)
        version = fields.pop(b"")
        return b"V:%b|%b" % (version, hash_payload({name.decode(): text.decode() for name, text in fields.items()}))


class ReaderExplorer:
    """Search over all states; mutants: `change` alters what readers ask, `look` and `fill` the scripts."""

    def __init__(
        self,
        client: redis.Redis,
        scenario: CacheScenario,
        *,
        versioned: bool = True,
        change: Change = lambda request: request,
        look: str = LOOK,
        fill: str = FILL,
    ) -> None:
        self._hashed = scenario.shape.is_hash
        self._codec = replace(_CODEC, hashed=self._hashed)
        if self._hashed and (look, fill) == (LOOK, FILL):
            look, fill = LOOK_HASH, FILL_HASH
        self._server = Server(client, self._hashed)
        self._scenario = scenario
        self._versioned = versioned
        self._change = change
        self._look = look
        self._fill = fill
        plain = CacheExplorer(scenario)
        self._actions = plain._actions
        self._values = plain._values
        self._total = plain._total

    def run(self) -> tuple[int, str | None]:
        """States seen, and what stays stale for good (None: nothing ever does)."""
        scenario = self._scenario
        readers = tuple(Reader(str(number)) for number in range(scenario.readers))
        start = State(0, 0, 0, None, readers, scenario.replays, scenario.evictions)
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
        """What a further read would be given wrongly when all actions are done; readers may have died on their way."""
        if (state.written, state.replica, state.done) != (self._total,) * 3 or state.entry is None:
            return None
        late = LOOK_HASH if self._hashed else LOOK
        found = seen(self._server.call(state.entry, late, self._scenario.key, "late", 1000, 0)[1])
        wanted = self._values[self._total]
        wanted_payload = None if wanted is None else wanted.partition(b"|")[2]
        match found.sight.value:
            case "hit" if not self._same(found.entry.partition(b"|")[2], wanted_payload):
                return f"a reader is given {found.entry!r}, the replica holds {wanted!r}"
            case "absent" if wanted is not None:
                return f"a reader is given nothing, the replica holds {wanted!r}"
        return None

    def _same(self, payload: bytes, wanted: bytes | None) -> bool:
        if not self._hashed or wanted is None:
            return payload == wanted
        return bool(_HASH.decode(payload) == _HASH.decode(wanted))

    def _moves(self, state: State) -> Iterator[State]:
        yield from moves_around(state, self._scenario, self._total, self._acted)
        for index, reader in enumerate(state.readers):
            for after, moved in self._steps(state, reader):
                yield after._replace(readers=(*state.readers[:index], moved, *state.readers[index + 1 :]))

    def _acted(self, state: State, first: int, until: int) -> State:
        for action in self._actions[first, until]:
            state = self._after(state, action)
        return state

    def _after(self, state: State, action: CacheAction) -> State:
        """What an action leaves; the daemon fills what it found absent as a reader does, from its lease on."""
        if isinstance(action, Refill):
            return self._leased(state, REFILL, action.key, f"d{len(state.readers)}", _LIFE_MS, int(action.through))
        if not isinstance(action, Refresh):
            return state._replace(entry=None)
        arguments: tuple[Any, ...] = (action.version, action.payload or b"", _LIFE_MS)
        if not action.through:
            script = APPLY_HASH if self._hashed else APPLY
            return state._replace(entry=self._server.call(state.entry, script, action.key, *arguments)[0])
        script = THROUGH_HASH if self._hashed else THROUGH
        return self._leased(state, script, action.key, *arguments, f"d{len(state.readers)}", _LIFE_MS)

    def _leased(self, state: State, script: str, key: str, *arguments: Any) -> State:
        """What a script leaves that gives leases, each to a reader that may die on its way."""
        token = f"d{len(state.readers)}"
        entry, answer = self._server.call(state.entry, script, key, *arguments)
        found = [Seen(Sight.LEASE, b"", lease.decode()) for lease in answer[3][1::2]]
        fills = tuple(Reader(token, answers=(each,), looked_twice=True) for each in found)
        return state._replace(entry=entry, readers=state.readers + fills)

    def _steps(self, state: State, reader: Reader) -> Iterator[tuple[State, Reader]]:
        if reader.done:
            return
        if reader.answers and not reader.looked_twice:
            plan = self._plan(reader)
            entry, _ = self._server.call(
                state.entry, self._look, plan.key, plan.token, plan.lease_ms, plan.early_ms, again=True
            )
            yield state._replace(entry=entry), reader._replace(looked_twice=True)
        if not reader.answers and not reader.renews and not self._hashed:
            yield state, reader._replace(renews=True)  # this reader happens to renew early
        request = self._change(self._request(reader))
        match request:
            case Look(key, token, lease_ms, early_ms):
                entry, reply = self._server.call(state.entry, self._look, key, token, lease_ms, early_ms)
                yield self._answered(state._replace(entry=entry), reader, seen(reply))
            case Load():
                oldest = state.replica if self._scenario.consistent_reads else max(state.replica - 1, 0)
                for number in range(oldest, state.replica + 1):
                    yield self._answered(state, reader, self._loaded(number))
            case Fill(key, lease, content, life_ms):
                entry, reply = self._server.call(state.entry, self._fill, key, lease, content, life_ms or 1)
                yield self._answered(state._replace(entry=entry), reader, bool(reply))
            case Pause():
                yield self._answered(state, reader, None)

    def _loaded(self, number: int) -> Loaded | None:
        value = self._values[number]
        if value is None:
            return None
        version, _, payload = value[2:].partition(b"|")
        return Loaded(payload, version.decode() if self._versioned else "")

    def _request(self, reader: Reader) -> Request:
        steps = reading(self._plan(reader))
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

    def _plan(self, reader: Reader) -> ReadPlan:
        early_ms = 2 * _LIFE_MS if reader.renews else 0
        return ReadPlan(self._scenario.key, reader.token, self._codec, _LIFE_MS, _LIFE_MS, _LIFE_MS, early_ms, 0.001)
