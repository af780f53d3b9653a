"""The short way of a usual put in a mesh asks, and makes of every answer, what the steps of its mode do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.domain.cache_keys import CacheVerb
from replicator.domain.coalescing import Run
from replicator.domain.errors import PoisonRecord, ReplicatorError, Throttled, Unreachable
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, ShardId
from replicator.domain.image import Image
from replicator.domain.modes.active_active.mesh import ActivePolicy, Guard
from replicator.domain.modes.requests import Done, Found, FoundRow, GetItem, GetSideRow, Refused, Request, Response
from replicator.domain.records import ChangeRecord, Event, ItemKey
from replicator.domain.rules import ActivePlan, Rule, Target
from replicator.domain.shards.leases import StreamRef
from replicator.domain.stamps import (
    NO_PARENT,
    NO_ROW,
    SideRow,
    Stamp,
    StampKind,
    Tombstone,
    Version,
    content_of,
    write_sequence,
)
from replicator.engine.applying import mesh_records
from replicator.engine.applying.cache_batcher import CacheFunnel
from replicator.engine.applying.context import Tally, TargetContext, TargetPorts, Written
from replicator.engine.applying.look_ahead import ReadAhead
from replicator.engine.applying.mesh_driver import MeshDriver
from replicator.engine.limits import Limits
from replicator.laboratory.memory import MemoryConflictLog, OpenFence
from replicator.ports.events import Place
from tests.engine.world import AP, EU, ORDERS, US, LoopClock, Recorder, cache_rule

GENERATION = 1_700_000_000_000
KEY = ItemKey((("pk", "S", "a"),))
SEQUENCE = 7
OURS = write_sequence(GENERATION, SEQUENCE)

OLD, NEW, OTHER = (b'{"pk":{"S":"a"},"n":{"N":"%d"}' % number for number in range(3))
VERSIONS = [
    *(Version(micros, 0, region, 1) for micros in (1_000_000, 9_000_000) for region in ("us", "eu")),
    Version(5_000_000, 0, "us", OURS),
    Version(5_000_000, 1, "us", OURS - 1),
]
STAMPS = [
    b',"_rep":{"S":"%b"}' % Stamp(version, kind, content_of(Image(of + b"}")), NO_PARENT).sealed("nonce---").encode()
    for version in VERSIONS
    for kind in StampKind
    for of in (OLD, NEW)
]
FITTING = STAMPS[0]
"""A stamp of before, as `OLD` was given it; a user's update left it where it was."""
assert content_of(Image(OLD + b"}")).encode() in FITTING

_stamps = st.sampled_from([b"", FITTING, FITTING, *STAMPS, b',"_rep":{"S":"no stamp"}'])
_rows = st.sampled_from(
    [
        *[NO_ROW] * 5,
        SideRow(Tombstone(VERSIONS[0], NO_PARENT, "x" * 16)),
        SideRow(Tombstone(VERSIONS[3], NO_PARENT, "x" * 16)),
        SideRow(floor=VERSIONS[5]),
        SideRow(floor=VERSIONS[4]),
        SideRow(Tombstone(VERSIONS[1], NO_PARENT, "x" * 16), removed_at=OURS - 1, removed=VERSIONS[1]),
    ]
)


@st.composite
def _items(draw: st.DrawFn, usual: Image | None) -> Image | None:
    """What most likely is there, or nothing, or an item with some content and some stamp."""
    if draw(st.integers(0, 3)):
        return usual
    if draw(st.booleans()):
        return None
    return Image(draw(st.sampled_from([OLD, NEW, OTHER])) + draw(_stamps) + b"}")


@dataclass
class _Case:
    """A record, what each region says at its first looks, and how writes are answered one after another."""

    record: ChangeRecord
    looks: dict[RegionId, list[Image | None]]
    rows: dict[RegionId, SideRow]
    answers: Sequence[Response | ReplicatorError]
    guard: Guard
    others: tuple[RegionId, ...]
    cached: bool


@st.composite
def _cases(draw: st.DrawFn) -> _Case:
    stamp = draw(_stamps)
    old = None if not draw(st.integers(0, 5)) else Image(OLD + stamp + b"}")
    kept = draw(st.sampled_from([stamp, stamp, b"", draw(_stamps)]))
    new = Image(draw(st.sampled_from([NEW, NEW, OLD])) + kept + b"}")
    refusals = [Refused(), Refused(new), Refused(Image(OTHER + draw(_stamps) + b"}"))]
    errors = [Unreachable("no"), Throttled("no"), PoisonRecord("no")]
    possible: list[Response | ReplicatorError] = [*[Done()] * 8, *refusals, *errors]
    answers = draw(st.lists(st.sampled_from(possible), min_size=9, max_size=9))
    event = Event.INSERT if old is None else Event.MODIFY
    others = draw(st.sampled_from([(EU,), (EU, AP)]))
    return _Case(
        ChangeRecord(event, KEY, old, new, SequenceNumber(str(SEQUENCE)), 5.0),
        {US: [draw(_items(new)), draw(_items(new))], **{each: [draw(_items(old)) for _ in "12"] for each in others}},
        {US: draw(_rows), **{each: draw(_rows) for each in others}},
        answers,
        draw(st.sampled_from([Guard.READ, Guard.READ, Guard.READ, Guard.OPTIMISTIC])),
        others,
        draw(st.booleans()),
    )


@dataclass
class _Scripted:
    """All regions, which answer as the case says; what was asked is remembered, and so is what failed."""

    case: _Case
    asked: list[tuple[RegionId, Request]] = field(default_factory=list)
    looked: dict[RegionId, int] = field(default_factory=dict)
    written: int = 0

    async def execute_at(self, region: RegionId, request: Request) -> Response:
        self.asked.append((region, request))
        assert len(self.asked) < 60, "it comes to an end"
        if isinstance(request, GetItem):
            place = self.looked[region] = self.looked.get(region, 0) + 1
            looks = self.case.looks[region]
            return Found(looks[min(place, len(looks)) - 1])
        if isinstance(request, GetSideRow):
            return FoundRow(self.case.rows[region])
        self.written += 1
        answer = self.case.answers[self.written - 1] if self.written <= len(self.case.answers) else Done()
        if isinstance(answer, ReplicatorError):
            raise answer
        return answer


@dataclass
class _At:
    script: _Scripted
    region: RegionId

    async def execute(self, request: Request, fence: Any) -> Response:
        fence.check()
        return await self.script.execute_at(self.region, request)


class _Cache(CacheFunnel):
    """Takes everything, and remembers behind how many requests."""

    def __init__(self, script: _Scripted) -> None:
        self._script = script
        self.taken: list[Any] = []

    async def carry_out(self, requests: Any, fence: Any) -> None:
        del fence
        self.taken.append((len(self._script.asked), [tuple(each.actions) for each in requests]))


async def _made(case: _Case) -> Any:
    """What came of two tries, the second of which goes on where the first one failed."""
    script = _Scripted(case)
    caches = (cache_rule("c", US, CacheVerb.INVALIDATE, "order:{pk}"),) if case.cached else ()
    mesh = ActivePlan(case.others, ActivePolicy(guard=case.guard, waits=0))
    rule = Rule(RuleName("orders"), US, ORDERS, (Target(RuleName("orders"), US, ORDERS, caches),), mesh=mesh)
    cache = _Cache(script)
    context = TargetContext(
        rule,
        Place(StreamRef(US, ORDERS, "arn", GENERATION), ShardId("s"), rule.targets[0]),
        TargetPorts(
            _At(script, US), {"c": cache}, MemoryConflictLog(), {each: _At(script, each) for each in case.others}
        ),
        ReadAhead(),
        Limits(),
        LoopClock(),
        Recorder(),
        OpenFence(),
        asyncio.Event(),
    )
    driver = MeshDriver(context, mesh)
    came: list[Any] = []
    for _ in range(2):
        tally = Tally()
        try:
            begun = driver.apply(Run(KEY, (case.record,)), tally)
            took = begun if isinstance(begun, bool | Written) else await begun
            came.append([each.actions for each in took.requests] if isinstance(took, Written) else took)
        except ReplicatorError as error:
            came.append(type(error))
        came.append((tally, sorted(driver._suspects), dict(context.unfinished)))
        if came[0] is True:
            break
    return came, script.asked, cache.taken


_SHORT: list[int] = []


@given(case=_cases())
@settings(max_examples=400, deadline=None)
def _both_ways(case: _Case) -> None:
    short = asyncio.run(_made(case))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mesh_records, "is_usual", lambda *_: False)
        long = asyncio.run(_made(case))
    assert short == long
    _SHORT.append(len(short[1]))


def test_the_short_way_asks_and_makes_what_the_steps_of_the_mode_do() -> None:
    _SHORT.clear()
    _both_ways()
    assert len(set(_SHORT)) > 4, "there were many courses"
