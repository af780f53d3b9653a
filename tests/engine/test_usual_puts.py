"""The short way of a usual change asks, and makes of every answer, what the general way does; so do chains of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.domain.cache_keys import CacheVerb
from replicator.domain.coalescing import Run
from replicator.domain.errors import AccessRefused, PoisonRecord, ReplicatorError, Unreachable
from replicator.domain.filters import Filter
from replicator.domain.identifiers import SequenceNumber, ShardId
from replicator.domain.image import Image
from replicator.domain.modes.ordered import InsertGuard, OrderedPolicy
from replicator.domain.modes.requests import (
    Done,
    Found,
    GetItem,
    GetTombstone,
    GuardedPut,
    Put,
    Refused,
    Request,
    Response,
)
from replicator.domain.records import ChangeRecord, Event, ItemKey
from replicator.domain.rules import KinesisSource, Rule, TtlDeletes
from replicator.domain.shards.leases import StreamRef
from replicator.domain.transforms import Transform
from replicator.domain.values import replace
from replicator.domain.versions import ordered_version
from replicator.engine.applying.cache_batcher import CacheFunnel
from replicator.engine.applying.context import Tally, TargetContext, TargetPorts, Written
from replicator.engine.applying.kinds import driver_of
from replicator.engine.applying.look_ahead import ReadAhead
from replicator.engine.applying.ordered_driver import OrderedDriver
from replicator.engine.limits import Limits
from replicator.laboratory.memory import MemoryConflictLog, OpenFence
from replicator.ports.events import Place
from replicator.ports.targets import Following
from tests.engine.world import EU, US, LoopClock, Recorder, cache_rule, rule, target

GENERATION = 1_700_000_000_000
KEY = ItemKey((("pk", "S", "a"),))
NEWER = ordered_version(0, GENERATION, 10**30)

_images = st.sampled_from(
    [
        None,
        Image(b'{"pk":{"S":"a"},"n":{"N":"1"}}'),
        Image(b'{"pk":{"S":"a"}}'),
        Image(b'{"pk":{"S":"a"},"_rep":{"S":"%b"}}' % NEWER.encode()),
        Image(b'{"pk":{"S":"a"},"aws:rep:x":{"S":"y"}}'),
        Image(b'{"pk":{"S":"a"},"t":{"S":"\\u005frep"}}'),
        Image(b'{"pk":{"S":"a"},"t":{"S":"%b"}}' % (b"x" * 409_600)),
    ]
)


@st.composite
def _runs(draw: st.DrawFn, key: ItemKey = KEY) -> Run:
    """One to three records of a key."""
    records = []
    for number in range(draw(st.integers(1, 3))):
        old, new = draw(st.tuples(_images, _images).filter(any))
        event = Event.REMOVE if new is None else Event.INSERT if old is None else Event.MODIFY
        by_ttl = new is None and draw(st.booleans())
        records.append(ChangeRecord(event, key, old, new, SequenceNumber(str(7 + number)), 1.0, by_ttl))
    return Run(key, tuple(records))


@st.composite
def _rules(draw: st.DrawFn) -> Rule:
    """Plain ones mostly."""
    verbs = draw(st.lists(st.sampled_from([CacheVerb.INVALIDATE, CacheVerb.INVALIDATE, CacheVerb.REFRESH]), max_size=2))
    template = draw(st.sampled_from(["order:{pk}", "order:{pk}", "of:{n}"]))
    caches = [cache_rule(f"cache-{place}", EU, verb, template) for place, verb in enumerate(verbs)]
    place = target("orders", EU, *caches)
    match draw(st.sampled_from(["plain", "plain", "plain", "filter", "transform", "kinesis", "ttl", "probe"])):
        case "filter":
            return rule("orders", place, filter=Filter(exists=("n",)))
        case "transform":
            return rule("orders", replace(place, transform=Transform(drop=frozenset({"n"}))))
        case "kinesis":
            return rule("orders", place, stream=KinesisSource("s", in_microseconds=False))
        case "ttl":
            return rule("orders", place, ttl_deletes=TtlDeletes.SKIP)
        case "probe":
            return rule("orders", place, policy=OrderedPolicy(insert_guard=InsertGuard.PROBE))
        case _:
            return rule("orders", place)


_answers = st.lists(
    st.sampled_from(
        [
            Done(),
            Refused(),
            Refused(item=Image(b'{"pk":{"S":"a"}}')),
            Refused(item=Image(b'{"pk":{"S":"a"},"_rep":{"S":"%b"}}' % NEWER.encode())),
            Refused(by_tombstone=True),
            PoisonRecord("no"),
            AccessRefused("no"),
            Unreachable("no"),
        ]
    ),
    min_size=12,
    max_size=12,
)


@dataclass
class _Scripted:
    """A region that answers as it is told, and remembers what it was asked."""

    answers: Sequence[Response | ReplicatorError]
    asked: list[Request] = field(default_factory=list)

    async def execute(self, request: Request, fence: Any) -> Response:
        fence.check()
        self.asked.append(request)
        if isinstance(request, GetTombstone | GetItem):
            return Found()
        answer = self.answers[len(self.asked) % len(self.answers)]
        if isinstance(answer, ReplicatorError):
            raise answer
        return answer


@dataclass
class _Aside:
    """Where refusals go, and whether something of the key went there before."""

    owed: bool
    taken: list[Any] = field(default_factory=list)

    def owes(self, key: ItemKey) -> str | None:
        return ordered_version(0, GENERATION, 5) if self.owed else None

    async def change(self, unit: Run, change: Any, error: ReplicatorError) -> None:
        self.taken.append((unit, change, type(error)))


def _context(of: Rule, region: _Scripted, aside: _Aside | None) -> TargetContext:
    place = of.targets[0]
    return TargetContext(
        of,
        Place(StreamRef(US, of.table, "arn", GENERATION), ShardId("s"), place),
        TargetPorts(
            region,
            dict.fromkeys([each.cache for each in place.caches], _NoCache()),
            MemoryConflictLog(),
            source=None if of.stream is None or of.stream.in_microseconds else region,
        ),
        ReadAhead(),
        Limits(),
        LoopClock(),
        Recorder(),
        OpenFence(),
        asyncio.Event(),
        aside=aside,  # type: ignore[arg-type]
    )


async def _made(
    of: Rule, run: Run, answers: Sequence[Response | ReplicatorError], aside: _Aside | None, *, short: bool
) -> Any:
    region = _Scripted(answers)
    driver, tally = OrderedDriver(_context(of, region, aside)), Tally()
    if not short:
        driver._usual._is_possible = False
    elif driver._usual.of(run) is not None:
        _SHORT.append(run)
    try:
        came: Any = await driver.apply(run, tally)
    except ReplicatorError as error:
        came = type(error)
    return _shown(came), region.asked, tally.parked, tally.skipped, tally.ties, tally.conflicts, aside and aside.taken


def _shown(came: Any) -> Any:
    """What came of a unit, to be compared."""
    if not isinstance(came, Written):
        return came
    requests = [(each.cache, tuple(each.actions), each.keyless, each.too_large, each.rule) for each in came.requests]
    return came.unit, came.version, came.effect, came.adopted, requests


class _NoCache(CacheFunnel):
    """Takes everything."""

    def __init__(self) -> None:
        return

    async def carry_out(self, requests: Any, fence: Any) -> None:
        del requests, fence


_SHORT: list[Run] = []


@given(of=_rules(), run=_runs(), answers=_answers, aside=st.sampled_from([None, False, True]))
@settings(max_examples=400, deadline=None)
def _both_ways(of: Rule, run: Run, answers: Sequence[Any], aside: bool | None) -> None:
    async def compare() -> None:
        found = [
            await _made(of, run, answers, None if aside is None else _Aside(aside), short=short)
            for short in (True, False)
        ]
        assert found[0] == found[1]

    asyncio.run(compare())


def test_the_short_way_asks_and_makes_what_the_general_one_does() -> None:
    _SHORT.clear()
    _both_ways()
    assert len(_SHORT) > 20, "the short way was gone often enough to say something"


# -- chains ------------------------------------------------------------------------------------------------------------


@dataclass
class _Chained(_Scripted):
    """The same, with chains; `ends`: whether one ends, by how many requests were made."""

    ends: Sequence[bool] = ()
    followed: int = 0

    async def execute_chain(self, first: Put | GuardedPut, fence: Any, following: Following) -> Response:
        response = await self.execute(first, fence)
        while isinstance(response, Done) and not self.ends[len(self.asked) % len(self.ends)]:
            then = following()
            if then is None:
                break
            self.followed += 1
            response = await self.execute(then, fence)
        return response


class _Hand:
    """What a worker has in hand, and what came of all before it."""

    def __init__(self, units: Sequence[Run]) -> None:
        self.left = deque(units)
        self.unit: Run | None = None
        self.came: list[Any] = []

    def taken(self, written: Written) -> Run | None:
        self.came.append(_shown(written))
        self.unit = None
        return self.left[0] if self.left else None

    def begin(self) -> None:
        self.unit = self.left.popleft()


async def _worked(of: Rule, units: Sequence[Run], region: _Scripted, aside: _Aside | None, *, chained: bool) -> Any:
    """What becomes of units that one worker applies, each of them once."""
    driver, tally = driver_of(_context(of, region, aside)), Tally()
    hand = _Hand(units)
    while hand.left:
        hand.begin()
        assert hand.unit is not None
        try:
            begun: Any
            if chained:
                assert driver.chain is not None, "this region takes chains"
                begun = driver.chain(hand.unit, tally, hand)
            else:
                begun = driver.apply(hand.unit, tally)
            came = begun if isinstance(begun, bool) else await begun
        except ReplicatorError as error:
            came = type(error)
        if hand.unit is not None:
            hand.came.append((hand.unit, _shown(came)) if not isinstance(came, Written) else _shown(came))
    return hand.came, region.asked, tally.parked, tally.skipped, tally.ties, tally.conflicts, aside and aside.taken


def _changed(key: ItemKey) -> Run:
    """An item that was there, and is there still."""
    old, new = Image(b'{"pk":{"S":"a"},"n":{"N":"1"}}'), Image(b'{"pk":{"S":"a"},"n":{"N":"2"}}')
    return Run(key, (ChangeRecord(Event.MODIFY, key, old, new, SequenceNumber("7"), 1.0),))


_FOLLOWED: list[int] = []
_keys = [ItemKey((("pk", "S", name),)) for name in ("a", "b", "replicator-canary#orders#us", "c", "d")]


@given(
    of=_rules(),
    units=st.tuples(*(st.just(_changed(key)) | _runs(key) for key in _keys)),
    answers=st.lists(st.just(Done()) | st.just(Done()) | _answers.map(lambda found: found[0]), min_size=7, max_size=7),
    ends=st.lists(st.sampled_from([False, False, True]), min_size=3, max_size=3),
    aside=st.sampled_from([None, None, False, True]),
)
@settings(max_examples=200, deadline=None)
def _chained_and_one_by_one(
    of: Rule, units: Sequence[Run], answers: Sequence[Any], ends: Sequence[bool], aside: bool | None
) -> None:
    async def compare() -> None:
        chained = _Chained(answers, ends=ends)
        asides = [None if aside is None else _Aside(aside) for _ in range(2)]
        one_by_one = await _worked(of, units, _Scripted(answers), asides[0], chained=False)
        assert await _worked(of, units, chained, asides[1], chained=True) == one_by_one
        _FOLLOWED.append(chained.followed)

    asyncio.run(compare())


def test_a_chain_asks_and_makes_what_its_changes_do_one_by_one() -> None:
    _FOLLOWED.clear()
    _chained_and_one_by_one()
    assert sum(_FOLLOWED) > 20, "chains were long enough to say something"
