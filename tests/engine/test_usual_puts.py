"""The short way of a usual change asks, and makes of every answer, what the general way does."""

from __future__ import annotations

import asyncio
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
from replicator.domain.modes.requests import Done, Found, GetItem, GetTombstone, Refused, Request, Response
from replicator.domain.records import ChangeRecord, Event, ItemKey
from replicator.domain.rules import KinesisSource, Rule, TtlDeletes
from replicator.domain.shards.leases import StreamRef
from replicator.domain.transforms import Transform
from replicator.domain.values import replace
from replicator.domain.versions import ordered_version
from replicator.engine.applying.cache_batcher import CacheFunnel
from replicator.engine.applying.context import Tally, TargetContext, TargetPorts, Written
from replicator.engine.applying.look_ahead import ReadAhead
from replicator.engine.applying.ordered_driver import OrderedDriver
from replicator.engine.limits import Limits
from replicator.laboratory.memory import MemoryConflictLog, OpenFence
from replicator.ports.events import Place
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
def _runs(draw: st.DrawFn) -> Run:
    """One to three records of a key."""
    records = []
    for number in range(draw(st.integers(1, 3))):
        old, new = draw(st.tuples(_images, _images).filter(any))
        event = Event.REMOVE if new is None else Event.INSERT if old is None else Event.MODIFY
        by_ttl = new is None and draw(st.booleans())
        records.append(ChangeRecord(event, KEY, old, new, SequenceNumber(str(7 + number)), 1.0, by_ttl))
    return Run(KEY, tuple(records))


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


async def _made(
    of: Rule, run: Run, answers: Sequence[Response | ReplicatorError], aside: _Aside | None, *, short: bool
) -> Any:
    region = _Scripted(answers)
    place = of.targets[0]
    context = TargetContext(
        of,
        Place(StreamRef(US, of.table, "arn", GENERATION), ShardId("s"), place),
        TargetPorts(region, dict.fromkeys([each.cache for each in place.caches], _NoCache()), MemoryConflictLog()),
        ReadAhead(),
        Limits(),
        LoopClock(),
        Recorder(),
        OpenFence(),
        asyncio.Event(),
        aside=aside,  # type: ignore[arg-type]
    )
    driver, tally = OrderedDriver(context), Tally()
    if not short:
        driver._usual._is_possible = False
    elif driver._usual.of(run) is not None:
        _SHORT.append(run)
    try:
        came: Any = await driver.apply(run, tally)
    except ReplicatorError as error:
        came = type(error)
    if isinstance(came, Written):
        requests = [
            (each.cache, tuple(each.actions), each.keyless, each.too_large, each.rule) for each in came.requests
        ]
        came = (came.unit, came.version, came.effect, came.adopted, requests)
    return came, region.asked, tally.parked, tally.skipped, tally.ties, tally.conflicts, aside and aside.taken


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
