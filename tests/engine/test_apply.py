"""One page of records at one target: order, bounds, retries, the contiguous frontier, and the caches behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from replicator.domain.cache_keys import CacheVerb
from replicator.domain.errors import AccessRefused, KeyThrottled, LeaseLost, ReplicatorError, Throttled, Unreachable
from replicator.domain.filters import Filter
from replicator.domain.identifiers import RuleName, ShardId
from replicator.domain.modes.ordered import Effect, OrderedPolicy, Unstamped
from replicator.domain.modes.requests import GuardedPut, Put
from replicator.domain.progress import HORIZON, Position
from replicator.domain.records import ChangeRecord
from replicator.domain.rules import Rule, Start, Target
from replicator.domain.versions import ordered_version
from replicator.engine.applying.applier import TargetApplier
from replicator.engine.applying.cache_batcher import CacheFunnel
from replicator.engine.applying.context import TargetContext, TargetPorts
from replicator.engine.applying.gate import Gate
from replicator.engine.applying.look_ahead import ReadAhead
from replicator.engine.limits import Limits
from replicator.engine.membership.session import Session, ShardFence
from replicator.engine.waiting import Stopped, found
from replicator.laboratory.memory import Fault, OpenFence, value_entry
from replicator.ports.events import Place
from replicator.ports.targets import Fence
from tests.engine.world import (
    EPOCH_SECONDS,
    EU,
    US,
    LoopClock,
    Recorder,
    World,
    cache_rule,
    hold,
    image,
    key_of,
    rule,
    slow,
    target,
    until,
)


@dataclass
class Bench:
    """One applier over a world, and what it told."""

    world: World
    place: Target = field(default_factory=lambda: target("orders", EU))
    rule: Rule | None = None
    limits: Limits = field(default_factory=Limits)
    fence: Fence = field(default_factory=OpenFence)
    started_at: float | None = None
    observer: Recorder = field(default_factory=Recorder)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    moved: list[str] = field(default_factory=list)
    ahead: ReadAhead = field(default_factory=ReadAhead)
    gate: Gate = field(default_factory=Gate)

    async def apply(self, position: Position = HORIZON, records: Sequence[ChangeRecord] | None = None) -> None:
        world = self.world
        applier = TargetApplier(
            TargetContext(
                self.rule or rule("orders", self.place),
                Place(world.ref, ShardId("s0"), self.place),
                TargetPorts(
                    None if self.place.table is None else world.regions[self.place.region],
                    {name: CacheFunnel(cache) for name, cache in world.caches.items()},
                    world.conflicts,
                    gate=self.gate,
                ),
                self.ahead,
                limits=self.limits,
                clock=LoopClock(),
                observer=self.observer,
                fence=self.fence,
                stop=self.stop,
            ),
            started_at=self.started_at,
        )
        page = world.records() if records is None else records
        await applier.apply(page, position, lambda place: self.moved.append(place.text))


def version(number: int) -> str:
    return ordered_version(0, World().ref.generation, number)


async def test_several_writes_of_one_key_in_a_page_become_one_request_with_the_last_image() -> None:
    world = World()
    for value in range(5):
        world.put("a", value)
    bench = Bench(world)
    await bench.apply()
    assert world.holds() == {"a": "4"}
    assert len(world.region.sent) == 1
    assert bench.moved[-1] == "5"
    assert [report.records for report in bench.observer.reports] == [5]
    assert [report.changes for report in bench.observer.reports] == [1]


async def test_never_more_requests_are_under_way_than_the_limit_allows() -> None:
    world = World()
    world.write([f"k{number}" for number in range(50)])
    latency = slow(world.region.faults, 0.1)
    await Bench(world, limits=Limits(concurrency=4)).apply()
    assert latency.most_under_way == 4
    assert world.same()


async def test_the_limit_is_used_to_the_full() -> None:
    world = World()
    world.write([f"k{number}" for number in range(50)])
    slow(world.region.faults, 1.0)
    began = asyncio.get_running_loop().time()
    await Bench(world, limits=Limits(concurrency=25)).apply()
    assert asyncio.get_running_loop().time() - began == pytest.approx(2.0)


async def test_a_refused_key_holds_the_frontier_while_the_other_keys_of_the_page_are_applied() -> None:
    world = World()
    world.write("abcde")
    world.region.poison(key_of("c"), "it is too large")
    bench = Bench(world)
    applying = asyncio.create_task(bench.apply())
    await until(lambda: set(world.holds()) == set("abde"))
    assert bench.moved[-1] == "2"
    assert bench.observer.blocked_keys == {"orders/eu on s0": "pk=c"}
    assert "it is too large" in bench.observer.of("blocked")[0][2]
    world.region.cure(key_of("c"))
    await applying
    assert world.same()
    assert bench.moved[-1] == "5"
    assert bench.observer.blocked_keys == {}


async def test_a_refused_record_is_superseded_by_a_later_one_of_its_key_that_was_read_ahead() -> None:
    world = World()
    world.write("abc")
    page = world.records()
    world.region.poison(key_of("b"), "it is too large")
    bench = Bench(world)
    applying = asyncio.create_task(bench.apply(records=page))
    await until(lambda: bench.observer.blocked_keys == {"orders/eu on s0": "pk=b"})
    world.delete("b")
    bench.ahead.add(world.records()[3:])
    await applying
    assert world.same()
    assert bench.moved[-1] == "3"
    assert bench.observer.blocked_keys == {}


async def test_a_refused_key_is_tried_again_seconds_apart() -> None:
    world = World()
    world.put("a", 1)
    world.region.poison(key_of("a"), "it is too large")
    bench = Bench(world)
    applying = asyncio.create_task(bench.apply())
    await asyncio.sleep(120)
    assert 5 <= len(world.region.sent) <= 30
    world.region.cure(key_of("a"))
    await applying


@pytest.mark.parametrize("outage", [Throttled, Unreachable, AccessRefused])
async def test_what_may_pass_is_retried_and_told_as_a_block_only_when_it_lasts(outage: type[Throttled]) -> None:
    world = World()
    world.put("a", 1)
    world.region.faults.outage = outage
    bench = Bench(world)
    applying = asyncio.create_task(bench.apply())
    await until(lambda: world.region.faults.struck == 2)
    assert bench.observer.blocked_keys == {}
    await until(lambda: world.region.faults.struck >= 3)
    assert bench.observer.blocked_keys == {"orders/eu on s0": "pk=a"}
    assert bench.moved == []
    world.region.faults.outage = None
    await applying
    assert bench.observer.blocked_keys == {}
    assert bench.observer.reports[0].retries == world.region.faults.struck
    assert world.same()


@pytest.mark.parametrize(
    ("outage", "least", "most"), [(KeyThrottled, 10, 20), (Throttled, 40, 80), (Unreachable, 40, 80)]
)
async def test_a_key_whose_partition_is_throttled_is_tried_ever_less_often_and_a_table_that_is_away_every_two_seconds(
    outage: type[ReplicatorError], least: int, most: int
) -> None:
    world = World()
    world.put("a", 1)
    world.region.faults.outage = outage
    bench = Bench(world, limits=Limits(backoff_seconds=8))
    applying = asyncio.create_task(bench.apply())
    await asyncio.sleep(100)
    before = world.region.faults.struck
    await asyncio.sleep(80)
    assert least <= world.region.faults.struck - before <= most
    world.region.faults.outage = None
    await applying


async def test_a_write_whose_answer_was_lost_is_sent_again_and_harms_nothing() -> None:
    world = World()
    world.put("a", 1)
    world.region.faults.script(Fault.AFTER)
    bench = Bench(world)
    await bench.apply()
    assert world.same()
    assert bench.observer.reports[0].effects == {Effect.STALE: 1}


async def test_what_a_target_has_already_is_not_applied_again() -> None:
    world = World()
    world.write("abcd")
    bench = Bench(world)
    await bench.apply(Position("2"))
    assert world.holds() == {"c": "0", "d": "0"}
    assert bench.moved[-1] == "4"


async def test_a_page_that_holds_nothing_new_is_not_told() -> None:
    world = World()
    world.write("ab")
    bench = Bench(world)
    await bench.apply(Position("2"))
    assert bench.observer.told == []
    assert bench.moved == []


async def test_records_that_the_rule_does_not_want_are_passed_by_the_frontier() -> None:
    world = World()
    world.write("ab")
    only_b = rule("orders", target("orders", EU), filter=Filter(key_prefix=(("pk", "b"),)))
    bench = Bench(world, rule=only_b)
    await bench.apply()
    assert world.holds() == {"b": "0"}
    assert bench.moved[-1] == "2"
    assert bench.observer.reports[0].skipped == 1


async def test_records_older_than_the_start_less_its_tolerance_are_skipped() -> None:
    world = World()
    for name in "abcde":
        world.put(name, 0)
        await asyncio.sleep(1)
    bench = Bench(world, rule=rule("orders", target("orders", EU), start=Start.LATEST), started_at=EPOCH_SECONDS + 4)
    await bench.apply()
    assert set(world.holds()) == {"c", "d", "e"}, "whole seconds: what may have been written at the start counts"
    assert bench.observer.reports[0].skipped == 2
    assert bench.moved[-1] == "5"


# -- the end -------------------------------------------------------------------------------------------------------


async def test_a_stop_begins_nothing_new_and_finishes_what_is_under_way() -> None:
    world = World()
    world.write([f"k{number}" for number in range(20)])
    slow(world.region.faults, 1.0)
    bench = Bench(world, limits=Limits(concurrency=2))
    applying = asyncio.create_task(bench.apply())
    await asyncio.sleep(1.5)
    bench.stop.set()
    with pytest.raises(Stopped):
        await applying
    assert asyncio.get_running_loop().time() == pytest.approx(2.0)
    assert len(world.region.sent) == 4
    assert bench.moved[-1] == "4"


async def test_keys_that_fail_do_not_take_the_place_of_others_in_the_page() -> None:
    world = World()
    world.write([f"k{number}" for number in range(20)])
    for number in range(5):
        world.region.poison(key_of(f"k{number}"), "it is too large")
    bench = Bench(world, limits=Limits(concurrency=2))
    applying = asyncio.create_task(bench.apply())
    await until(lambda: len(world.holds()) == 15)
    assert not applying.done()
    assert bench.ahead.urgent(), "what comes next may supersede what is refused"
    for number in range(5):
        world.region.cure(key_of(f"k{number}"))
    await applying
    assert world.same()
    assert bench.moved[-1] == "20"
    assert not bench.ahead.urgent()


async def test_an_entry_that_is_written_again_is_counted_once() -> None:
    world = World()
    world.regions[EU].write_foreign(key_of("a"), image("a", "foreign"))
    world.put("a", 1)
    fails = [2]

    async def fail(call: str) -> None:
        if world.conflicts._entries and fails[0]:
            fails[0] -= 1
            raise Unreachable(f"{call} got no answer.")

    world.region.faults.pause = fail
    bench = Bench(world, rule=rule("orders", target("orders", EU)))
    await bench.apply()
    (report,) = bench.observer.reports
    assert sum(report.conflicts.values()) == 1
    assert report.retries == 2


async def test_a_stop_gives_up_what_cannot_be_applied_without_passing_it() -> None:
    world = World()
    world.write("abc")
    world.region.poison(key_of("b"), "it is too large")
    bench = Bench(world)
    applying = asyncio.create_task(bench.apply())
    await asyncio.sleep(30)
    bench.stop.set()
    with pytest.raises(Stopped):
        await applying
    assert world.holds() == {"a": "0", "c": "0"}
    assert bench.moved == ["1"]


async def test_nothing_is_sent_behind_the_deadline_of_the_lease() -> None:
    world = World()
    world.write([f"k{number}" for number in range(10)])
    slow(world.region.faults, 1.0)
    clock = LoopClock()
    session = Session(World().process().worker._new_id(), clock, lease_seconds=5)
    session.extend(clock.monotonic())
    bench = Bench(world, limits=Limits(concurrency=1), fence=ShardFence(session))
    with pytest.raises(ExceptionGroup) as raised:
        await bench.apply()
    assert found(raised.value, LeaseLost)
    assert len(world.region.sent) == 3, "one a second, and the deadline lies four seconds behind the heartbeat"
    assert bench.moved == ["1", "2", "3"]


# -- items that another program wrote ------------------------------------------------------------------------------


async def test_an_item_that_is_overwritten_is_logged_first() -> None:
    world = World()
    world.put("a", 1)
    world.region.write_foreign(key_of("a"), image("a", "foreign"))
    world.conflicts.faults.outage = Unreachable
    bench = Bench(world)
    applying = asyncio.create_task(bench.apply())
    await asyncio.sleep(30)
    assert world.holds() == {"a": "foreign"}
    world.conflicts.faults.outage = None
    await applying
    assert world.same()
    (entry,) = world.conflicts.entries(RuleName("orders"))
    assert entry.conflict.loser == image("a", "foreign")
    assert bench.observer.reports[0].adopted == 1
    assert bench.observer.reports[0].conflicts == {("unversioned", "overwritten"): 1}


async def test_no_conflict_is_logged_behind_the_deadline_of_the_lease() -> None:
    world = World()
    world.put("a", 1)
    world.region.write_foreign(key_of("a"), image("a", "foreign"))

    class FallsLate:
        """Stands for the first request and has fallen after it."""

        checks = 0

        def check(self) -> None:
            self.checks += 1
            if self.checks > 1:
                raise LeaseLost("The deadline has passed.")

    with pytest.raises(ExceptionGroup):
        await Bench(world, fence=FallsLate()).apply()
    assert world.conflicts.entries(RuleName("orders")) == []


async def test_a_rule_that_forbids_to_adopt_stops_at_the_item_until_it_is_gone() -> None:
    world = World()
    world.put("a", 1)
    world.region.write_foreign(key_of("a"), image("a", "foreign"))
    strict = rule("orders", target("orders", EU), policy=OrderedPolicy(unstamped=Unstamped.STOP))
    bench = Bench(world, rule=strict)
    applying = asyncio.create_task(bench.apply())
    await until(lambda: bench.observer.blocked_keys == {"orders/eu on s0": "pk=a"})
    world.region.write_foreign(key_of("a"), None)
    await applying
    assert world.same()


# -- caches --------------------------------------------------------------------------------------------------------


async def test_the_cache_is_touched_only_when_the_write_is_durable() -> None:
    world = World()
    world.put("a", 1)
    world.caches["eu_main"].entries["order:a"] = b"V:old"
    gate = hold(world.region.faults, "GuardedPut")
    bench = Bench(world, target("orders", EU, cache_rule("eu_main", EU)))
    applying = asyncio.create_task(bench.apply())
    await asyncio.sleep(5)
    assert "order:a" in world.caches["eu_main"].entries
    gate.set()
    await applying
    assert world.caches["eu_main"].entries == {}
    assert bench.observer.reports[0].cache_actions == 1


async def test_the_frontier_waits_for_the_cache() -> None:
    world = World()
    world.write("ab")
    world.caches["eu_main"].faults.outage = Unreachable
    bench = Bench(world, target("orders", EU, cache_rule("eu_main", EU)))
    applying = asyncio.create_task(bench.apply())
    await until(lambda: world.same() and bool(bench.observer.blocked_keys))
    assert bench.moved == []
    world.caches["eu_main"].faults.outage = None
    await applying
    assert bench.moved[-1] == "2"


async def test_a_write_through_fills_what_is_absent_with_what_the_replica_holds() -> None:
    world = World()
    world.put("a", 1)
    world.put("b", 1)
    world.delete("b")
    bench = Bench(world, target("orders", EU, cache_rule("eu_main", EU, CacheVerb.WRITE_THROUGH)))
    await bench.apply()
    entries = world.caches["eu_main"].entries
    assert entries == {"order:a": value_entry(version(1), image("a", 1).wire), "order:b": b"T:"}
    world.caches["eu_main"].evict("order:a")
    world.put("a", 2)
    await bench.apply()
    first = world.records()[:1]
    world.caches["eu_main"].evict("order:a")
    await bench.apply(records=first)
    assert bench.observer.reports[-1].effects == {Effect.STALE: 1}
    assert entries["order:a"].startswith(b"V:" + version(4).encode()), "a repeated record stores no older item"


@pytest.mark.parametrize("verb", [CacheVerb.INVALIDATE, CacheVerb.REFRESH])
async def test_the_cache_action_follows_a_stale_answer_too(verb: CacheVerb) -> None:
    world = World()
    world.put("a", 1)
    bench = Bench(world, target("orders", EU, cache_rule("eu_main", EU, verb)))
    await bench.apply()
    world.caches["eu_main"].entries["order:a"] = value_entry(version(0), b"{}")
    await bench.apply()
    assert bench.observer.reports[-1].effects == {Effect.STALE: 1}
    entry = world.caches["eu_main"].entries.get("order:a")
    refreshed = value_entry(version(1), image("a", 1).wire)
    assert entry == (refreshed if verb is CacheVerb.REFRESH else None)


async def test_the_cache_action_follows_the_delete_of_what_is_not_there() -> None:
    world = World()
    world.put("a", 1)
    world.delete("a")
    removal = world.records()[1:]
    world.caches["eu_main"].entries["order:a"] = b"V:old"
    hides = rule("orders", target("orders", EU, cache_rule("eu_main", EU)), filter=Filter(exists=("seen",)))
    bench = Bench(world, hides.targets[0], rule=hides)
    await bench.apply(records=removal)
    assert bench.observer.reports[0].effects == {Effect.ABSENT: 1}
    assert world.caches["eu_main"].entries == {}


async def test_beside_the_source_only_caches_are_kept() -> None:
    world = World()
    world.put("a", 1)
    world.caches["eu_main"].entries["order:a"] = b"V:old"
    beside = Target(rule("orders").name, US, None, (cache_rule("eu_main", US),))
    bench = Bench(world, beside)
    await bench.apply()
    assert world.caches["eu_main"].entries == {}
    assert world.region.sent == []
    assert bench.observer.reports[0].effects == {}
    assert bench.moved == ["1"]


async def test_a_cache_that_is_down_keeps_no_other_cache_back() -> None:
    world = World()
    world.put("a", 1)
    for cache in world.caches.values():
        cache.entries["order:a"] = b"V:old"
    world.caches["eu_main"].faults.outage = Unreachable
    bench = Bench(world, target("orders", EU, cache_rule("eu_main", EU), cache_rule("ap_main", EU)))
    applying = asyncio.create_task(bench.apply())
    await until(lambda: not world.caches["ap_main"].entries)
    assert bench.moved == []
    world.caches["eu_main"].faults.outage = None
    await applying
    assert bench.moved == ["1"]
    assert world.caches["eu_main"].entries == {}


async def test_a_key_that_its_cache_refuses_holds_the_frontier_and_keeps_no_other_key_back() -> None:
    world = World()
    world.write("abc")
    cache = world.caches["eu_main"]
    cache.entries = {f"order:{key}": b"V:old" for key in "abc"}
    cache.refusals["order:b"] = AccessRefused("The key is denied.")
    bench = Bench(world, target("orders", EU, cache_rule("eu_main", EU)))
    applying = asyncio.create_task(bench.apply())
    await until(lambda: set(cache.entries) == {"order:b"} and bool(bench.observer.blocked_keys))
    assert bench.moved == ["1"]
    cache.refusals.clear()
    await applying
    assert bench.moved[-1] == "3"
    assert cache.entries == {}


async def test_writes_go_on_while_the_cache_takes_its_time_and_none_counts_before_it_has_answered() -> None:
    world = World()
    world.write([f"k{number}" for number in range(30)])
    cache = world.caches["eu_main"]
    cache.entries = {f"order:k{number}": b"V:old" for number in range(30)}
    gate = hold(cache.faults, "cache")
    bench = Bench(world, target("orders", EU, cache_rule("eu_main", EU)), limits=Limits(concurrency=3))
    applying = asyncio.create_task(bench.apply())
    await until(world.same)
    assert bench.moved == []
    assert len(cache.entries) == 30
    gate.set()
    await applying
    assert cache.entries == {}
    assert bench.moved[-1] == "30"
    assert bench.observer.reports[0].cache_actions == 30


async def test_what_a_cache_did_not_take_is_tried_again_by_all_workers_though_they_had_nothing_left() -> None:
    world = World()
    world.write([f"k{number}" for number in range(40)])
    slow(world.region.faults, 1.0)
    cache = world.caches["eu_main"]
    cache.faults.outage = Unreachable
    bench = Bench(world, target("orders", EU, cache_rule("eu_main", EU)))
    applying = asyncio.create_task(bench.apply())
    await asyncio.sleep(10)
    cache.faults.outage = None
    began = asyncio.get_running_loop().time()
    await applying
    assert asyncio.get_running_loop().time() - began < 10, "one behind the other they take 40 seconds"


async def test_a_stop_leaves_no_entry_of_what_was_written() -> None:
    world = World()
    world.write([f"k{number}" for number in range(20)])
    cache = world.caches["eu_main"]
    cache.entries = {f"order:k{number}": b"V:old" for number in range(20)}
    slow(cache.faults, 2.5)
    slow(world.region.faults, 1.0)
    bench = Bench(world, target("orders", EU, cache_rule("eu_main", EU)), limits=Limits(concurrency=2))
    applying = asyncio.create_task(bench.apply())
    await asyncio.sleep(3.2)
    bench.stop.set()
    with pytest.raises(Stopped):
        await applying
    written = len(world.holds())
    assert 4 < written < 20
    assert set(cache.entries) == {f"order:k{number}" for number in range(written, 20)}
    assert bench.moved[-1] == str(written)


async def test_a_lease_that_is_lost_among_cache_actions_lets_no_position_pass_theirs() -> None:
    world = World()
    world.write([f"k{number}" for number in range(6)])
    cache = world.caches["eu_main"]
    cache.refusals["order:k2"] = LeaseLost("The lease went to another worker.")
    bench = Bench(world, target("orders", EU, cache_rule("eu_main", EU)))
    with pytest.raises(ExceptionGroup) as raised:
        await bench.apply()
    assert found(raised.value, LeaseLost)
    assert bench.moved in ([], ["1"], ["2"], ["1", "2"])


async def test_entries_that_found_no_room_are_counted() -> None:
    world = World()
    world.put("a", 1)
    cache = world.caches["eu_main"]
    cache.entries["order:a"] = value_entry(version(0), b"{}")
    cache.full = True
    bench = Bench(world, target("orders", EU, cache_rule("eu_main", EU, CacheVerb.REFRESH)))
    await bench.apply()
    assert bench.observer.reports[0].unstored == 1
    assert cache.entries == {}


async def test_images_without_a_cache_key_are_counted() -> None:
    world = World()
    world.put("a", 1)
    bench = Bench(world, target("orders", EU, cache_rule("eu_main", EU, template="nick:{nickname}")))
    await bench.apply()
    assert bench.observer.reports[0].keyless == 1
    assert bench.moved == ["1"]


# -- the report ----------------------------------------------------------------------------------------------------


async def test_the_report_tells_the_age_of_the_newest_record_and_how_long_it_took() -> None:
    world = World()
    world.put("a", 1)
    await asyncio.sleep(10)
    world.put("b", 1)
    await asyncio.sleep(5)
    slow(world.region.faults, 2.0)
    bench = Bench(world)
    await bench.apply()
    (report,) = bench.observer.reports
    assert report.lag_seconds == pytest.approx(7)
    assert report.took_seconds == pytest.approx(2)
    assert bench.observer.of("batch_began") == [("orders/eu", EPOCH_SECONDS)]


async def test_requests_of_one_key_are_sent_one_behind_the_other() -> None:
    world = World()
    world.put("a", 1)
    first = world.records()
    world.put("a", 2)
    second = world.records()[1:]
    world.region.faults.script(Fault.THROTTLE, Fault.BEFORE)
    bench = Bench(world)
    await bench.apply(records=first)
    await bench.apply(Position("1"), second)
    puts = [request.put if isinstance(request, GuardedPut) else request for request in world.region.sent]
    assert [put.version for put in puts if isinstance(put, Put)] == [version(1), version(2)]
