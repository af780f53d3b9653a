"""A batch that an event source mapping keeps: what of it counts as durable at one target."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from replicator.domain.errors import Unreachable
from replicator.domain.identifiers import RuleName, SequenceNumber, ShardId
from replicator.domain.records import StreamRecord, UnreadRecord
from replicator.domain.rules import OnRefusal, Rule, Target
from replicator.engine.applying.cache_batcher import CacheFunnel
from replicator.engine.applying.context import TargetPorts
from replicator.engine.applying.event_funnel import EventFunnel
from replicator.engine.batches import BatchPorts, BatchTarget, bring_batch
from replicator.engine.limits import Limits
from replicator.engine.membership.session import DriveFence
from replicator.laboratory.memory import Fault, Faults
from replicator.ports.events import Place
from tests.engine.world import EU, US, LoopClock, Recorder, World, key_of, rule, slow, target

LEASE = 10.0
LONG = 10_000.0


@dataclass
class Bench:
    """One target of a function over a world."""

    world: World = field(default_factory=World)
    refused: OnRefusal = OnRefusal.PARK
    observer: Recorder = field(default_factory=Recorder)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    started_at: float | None = None
    to: Target = field(default_factory=lambda: target("orders", EU))

    def __post_init__(self) -> None:
        self.fence = DriveFence(self.rule.name, LoopClock(), LEASE)
        self.fence.extend(LoopClock().monotonic() + LONG)

    @property
    def rule(self) -> Rule:
        return rule("orders", self.to, refused=self.refused)

    async def bring(self, records: Sequence[StreamRecord] | None = None, seconds: float = LONG) -> int:
        world = self.world
        ports = TargetPorts(
            None if self.to.table is None else world.region,
            {name: CacheFunnel(cache) for name, cache in world.caches.items()},
            world.conflicts,
            parking=world.parking(self.rule.targets[0], LoopClock(), self.observer)
            if self.refused is OnRefusal.PARK
            else None,
            events=None if self.to.sink is None else EventFunnel(world.sink),
        )
        (place,) = self.rule.targets
        wanted = BatchTarget(self.rule, Place(world.ref, ShardId("lambda"), place), ports, self.fence, self.started_at)
        shared = BatchPorts(Limits(), LoopClock(), self.observer, "a function")
        page = list(world.records()) if records is None else records
        return await bring_batch(page, wanted, shared, self.stop, asyncio.get_running_loop().time() + seconds)


async def test_everything_that_is_durable_counts() -> None:
    bench = Bench()
    bench.world.write("abc")
    bench.world.put("a", 1)
    bench.world.delete("b")
    assert await bench.bring() == 5
    assert bench.world.same()


async def test_a_batch_that_comes_again_changes_nothing_and_counts_as_done() -> None:
    bench = Bench()
    bench.world.write("abc")
    page: list[StreamRecord] = list(bench.world.records())
    bench.world.put("a", 1)
    assert await bench.bring() == 4
    assert await bench.bring(page) == 3
    assert bench.world.same()


async def test_events_count_as_far_as_the_sink_took_them_and_come_again_in_order() -> None:
    bench = Bench(to=Target(RuleName("orders"), US, None, sink="sqs:orders"))
    world = bench.world
    for value in range(4):
        world.write("ab", value)
    world.sink.entries.script(None, None, None, *[Fault.BEFORE] * 100)
    done = await bench.bring(seconds=20)
    assert done in {2, 3}
    world.sink.entries = Faults()
    assert await bench.bring(list(world.records())[done:]) == 8 - done
    seen = dict.fromkeys(int(event.id.rpartition("/")[2]) for event in world.sink.taken)
    assert [number for number in seen if number % 2] == [1, 3, 5, 7]
    assert [number for number in seen if not number % 2] == [2, 4, 6, 8]


async def test_a_refused_record_is_parked_and_counts_as_done() -> None:
    bench = Bench()
    bench.world.write("abc")
    bench.world.region.poison(key_of("b"), "it is too large")
    assert await bench.bring() == 3
    assert set(bench.world.holds()) == set("ac")
    assert [row.by for row in bench.world.owed.rows.values()] == ["a function"]


async def test_a_row_that_another_process_parked_is_settled_by_the_change_that_is_taken() -> None:
    bench = Bench()
    bench.world.write("ab")
    bench.world.region.poison(key_of("b"), "it is too large")
    await bench.bring()
    bench.world.region.cure(key_of("b"))
    bench.world.put("b", 2)
    other = Bench(bench.world)
    assert await other.bring(list(bench.world.records())[2:]) == 1
    assert bench.world.owed.rows == {}


async def test_a_refused_record_that_is_not_parked_ends_what_counts_though_others_behind_it_are_done() -> None:
    bench = Bench(refused=OnRefusal.STOP)
    bench.world.write("abcd")
    bench.world.region.poison(key_of("c"), "it is too large")
    assert await bench.bring(seconds=60) == 2
    assert set(bench.world.holds()) == {"a", "b", "d"}


async def test_a_record_that_cannot_be_read_ends_what_counts_at_a_target_that_parks_nothing() -> None:
    bench = Bench(refused=OnRefusal.STOP)
    bench.world.write("ab")
    first, second = bench.world.records()
    unread = UnreadRecord(SequenceNumber("1500"), b"{}", "It has no key.")
    assert await bench.bring([first, unread, second]) == 1
    assert set(bench.world.holds()) == {"a"}


async def test_nothing_is_begun_when_the_time_is_over() -> None:
    bench = Bench()
    bench.world.write("ab")
    bench.stop.set()
    assert await bench.bring() == 0
    assert bench.world.region.sent == []


async def test_what_does_not_answer_until_the_invocation_ends_is_not_counted() -> None:
    bench = Bench()
    bench.world.write("ab")
    bench.world.region.faults.outage = Unreachable
    assert await bench.bring(seconds=30) == 0
    bench.world.region.faults.outage = None
    assert await bench.bring() == 2


async def test_nothing_is_sent_once_the_rule_is_not_known_to_be_driven_by_functions() -> None:
    bench = Bench()
    bench.world.write([f"k{number:03}" for number in range(300)])
    slow(bench.world.region.faults, 1.0)
    asyncio.get_running_loop().call_later(1.5, bench.fence.revoke)
    done = await bench.bring()
    sent = len(bench.world.region.sent)
    assert 0 < done < 300
    assert done <= sent < 300
    assert await bench.bring() == 0
    assert len(bench.world.region.sent) == sent


async def test_a_fence_that_is_not_set_anew_falls_before_the_other_side_may_begin() -> None:
    bench = Bench()
    bench.world.write("a")
    bench.fence.extend(LoopClock().monotonic())
    await asyncio.sleep(0.85 * LEASE)
    assert await bench.bring() == 0
    assert bench.world.region.sent == []


async def test_records_from_before_the_targets_start_are_passed_over() -> None:
    bench = Bench()
    bench.world.put("a", 1)
    await asyncio.sleep(100)
    bench.started_at = bench.world.now()
    bench.world.put("b", 1)
    assert await bench.bring() == 2
    assert set(bench.world.holds()) == {"b"}
