"""Records that were lost before they were read: always found, stored once, and passed only by an operator's word."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from replicator.domain.errors import LeaseLost, RecordsTrimmed, Unreachable
from replicator.domain.identifiers import SequenceNumber, ShardId
from replicator.domain.progress import HORIZON, after
from replicator.domain.rules import OnGap, Rule, Start
from replicator.domain.shards.leases import LeaseRow, Rewind
from replicator.domain.shards.lineage import Shard
from replicator.engine.limits import Limits
from replicator.ports.sources import RecordPage
from tests.engine.shard_bench import S0, ShardBench, first_of
from tests.engine.world import AP, EPOCH_SECONDS, EU, World, eu_rule, id_of, key_of, rule, short, target, until

DAY = 24 * 3600.0
SKIP = eu_rule(on_gap=OnGap.SKIP)
OWED = EPOCH_SECONDS + 1000
"""A shard that is found so late came to be after its targets' start."""


async def started(world: World, rules: tuple[Rule, ...] = ()) -> None:
    """Let every target have started when the world began."""
    for each in rules or (eu_rule(),):
        for place in each.targets:
            await world.registry.start(world.ref, place)


def gaps(world: World) -> list[tuple[str, str, str | None]]:
    """Shard, after, until of every gap."""
    return [(gap.shard_id, gap.after.text, gap.until.text if gap.until else None) for gap in world.registry.gaps]


def trim(world: World, keep: int) -> None:
    world.streams.trim(world.ref, S0, keep=keep)


# -- a loss is found wherever it lies ------------------------------------------------------------------------------


async def test_a_shard_that_came_after_the_start_is_read_from_its_very_first_record() -> None:
    world = World()
    await started(world)
    first_of(world, "s0")
    world.write("abc")
    async with ShardBench(world, found_at=OWED):
        await until(world.same)
        await until(lambda: world.stored() == "3")
    assert gaps(world) == []


async def test_production_failure_08_a_trim_before_the_first_read_of_an_owed_shard_is_a_gap() -> None:
    world = World()
    await started(world)
    first_of(world, "s0")
    world.write("abcde")
    trim(world, keep=2)
    async with ShardBench(world, found_at=OWED) as bench:
        await until(lambda: bool(bench.observer.blocked_keys))
        await asyncio.sleep(100)
        assert gaps(world) == [("s0", "SHARD_START", "4")]
        assert world.holds() == {}


async def test_a_shard_that_was_there_at_the_start_begins_at_what_is_left_of_it() -> None:
    world = World()
    first_of(world, "s0")
    world.write("abcde")
    trim(world, keep=2)
    async with ShardBench(world, found_at=EPOCH_SECONDS):
        await until(lambda: set(world.holds()) == {"d", "e"})
    assert gaps(world) == []


async def test_production_failure_08_a_trim_behind_a_stored_beginning_is_a_gap() -> None:
    world = World()
    first_of(world, "s0")
    world.region.faults.outage = Unreachable
    world.write("abcde")
    async with ShardBench(world) as bench:
        await until(lambda: world.stored() == "SHARD_START")
        await bench.drain()
    trim(world, keep=2)
    world.region.faults.outage = None
    async with ShardBench(world, SKIP):
        await until(lambda: set(world.holds()) == {"d", "e"})
    assert gaps(world) == [("s0", "SHARD_START", "4")]


async def _a_day_at_a_stored_horizon() -> World:
    """A replica that takes nothing stays at the horizon for a day, and two of six records are left."""
    world = World()
    first_of(world, "s0")
    world.write("abcdef")
    trim(world, keep=4)
    world.region.faults.outage = Unreachable
    async with ShardBench(world) as bench:
        await until(lambda: world.stored() == "TRIM_HORIZON")
        await bench.drain()
    await asyncio.sleep(DAY + 1)
    trim(world, keep=2)
    world.region.faults.outage = None
    return world


async def test_production_failure_08_a_day_at_a_stored_horizon_is_a_gap() -> None:
    world = await _a_day_at_a_stored_horizon()
    async with ShardBench(world, SKIP):
        await until(lambda: set(world.holds()) == {"e", "f"})
    assert gaps(world) == [("s0", "TRIM_HORIZON", "5")]


@pytest.mark.parametrize("ahead", [-2 * DAY, 600.0])
async def test_a_loss_bears_servers_time_and_is_found_whatever_the_machines_clock_shows(ahead: float) -> None:
    """A slow clock would let a repair that began before close the loss, and hide that a day has passed."""
    world = await _a_day_at_a_stored_horizon()
    began = world.now()
    bench = ShardBench(world, SKIP)
    bench.clock.ahead = ahead
    async with bench:
        await until(lambda: set(world.holds()) == {"e", "f"})
    (gap,) = world.registry.gaps
    assert began <= gap.found_at < began + 300


async def test_production_failure_08_a_trim_behind_a_checkpoint_is_a_gap() -> None:
    world = World()
    world.write("abc")
    async with ShardBench(world) as bench:
        await until(lambda: world.stored() == "3")
        await bench.drain()
    world.write("defgh")
    trim(world, keep=2)
    async with ShardBench(world) as bench:
        await until(lambda: bool(bench.observer.blocked_keys))
    assert gaps(world) == [("s0", "3", "7")]


async def test_production_failure_08_an_iterator_at_the_horizon_that_points_into_the_trimmed_part_is_a_gap() -> None:
    world = World()
    async with ShardBench(world, SKIP) as bench:
        await until(lambda: len(bench.observer.of("polled")) > 3)
        assert world.stored() in {None, "TRIM_HORIZON"}
        world.write("abcde")
        trim(world, keep=2)
        await until(lambda: set(world.holds()) == {"d", "e"})
    assert gaps(world) == [("s0", "TRIM_HORIZON", "4")]


async def test_an_iterator_at_the_horizon_that_expires_in_the_trimmed_part_is_a_gap() -> None:
    world = World()
    async with ShardBench(world, SKIP) as bench:
        await until(lambda: len(bench.observer.of("polled")) > 3)
        world.write("abcde")
        trim(world, keep=2)
        await until(lambda: bool(bench.observer.of("service_failed")))
        world.streams.expire_iterators()
        await until(lambda: set(world.holds()) == {"d", "e"})
    assert gaps(world) == [("s0", "TRIM_HORIZON", "4")]


async def test_a_place_at_the_horizon_that_was_not_asked_for_a_day_is_a_gap() -> None:
    world = World()
    async with ShardBench(world, SKIP) as bench:
        await until(lambda: len(bench.observer.of("polled")) > 3)
        bench.clock.jumped += DAY + 1
        world.streams.expire_iterators()
        world.write("abc")
        await until(lambda: bool(world.registry.gaps))
        await until(lambda: set(world.holds()) == set("abc"))
    assert [(gap[0], gap[1]) for gap in gaps(world)] == [("s0", "TRIM_HORIZON")]


async def test_a_stream_that_keeps_records_for_longer_has_lost_none_in_a_day() -> None:
    world = World()
    world.streams.kept = 7 * DAY
    async with ShardBench(world, SKIP) as bench:
        await until(lambda: len(bench.observer.of("polled")) > 3)
        bench.clock.jumped += 2 * DAY
        world.streams.expire_iterators()
        world.write("abc")
        await until(lambda: set(world.holds()) == set("abc"))
    assert gaps(world) == []


async def test_production_failure_08_a_horizon_that_moved_between_two_readings_of_it_is_a_gap() -> None:
    world = World()
    world.region.faults.outage = Unreachable
    async with ShardBench(world, SKIP) as bench:
        await until(lambda: len(bench.observer.of("polled")) > 3)
        world.write("abcdef")
        await until(lambda: bool(bench.observer.blocked_keys))
        await asyncio.sleep(10)
        trim(world, keep=2)
        for holder in list(bench.budget._holders):
            holder.shed(0.0)
        await asyncio.sleep(0.1)
        world.region.faults.outage = None
        await until(lambda: world.stored() == "6")
        assert set(world.holds()) == {"e", "f"}
    assert gaps(world) == [("s0", "TRIM_HORIZON", "5")]


async def test_production_failure_08_a_trim_in_mid_read_is_recorded_behind_what_was_applied() -> None:
    world = World()
    world.write("abcde")
    async with ShardBench(world, limits=Limits(page_records=5)) as bench:
        await until(world.same)
        world.write("fghij")
        trim(world, keep=2)
        await until(lambda: bool(bench.observer.blocked_keys))
        await until(lambda: world.stored() == "5")
    assert gaps(world) == [("s0", "5", "9")]


async def test_production_failure_08_a_shard_that_vanished_is_a_gap_up_to_its_end() -> None:
    world = World()
    world.write("abc")
    async with ShardBench(world) as bench:
        await until(lambda: world.stored() == "3")
        await bench.drain()
    world.streams.close(world.ref, S0)
    world.streams.remove_shard(world.ref, S0)
    async with ShardBench(world) as bench:
        await until(lambda: bool(bench.observer.blocked_keys))
        assert gaps(world) == [("s0", "3", "SHARD_END")]
        await asyncio.sleep(100)
        assert world.stored() == "3"
        world.registry.acknowledge(world.registry.gaps[0].gap_id)
        await until(bench.task.done)
    assert world.stored() == "SHARD_END"


async def test_a_closed_shard_of_which_nothing_is_left_is_lost_up_to_its_end() -> None:
    world = World()
    world.write("abc")
    async with ShardBench(world) as bench:
        await until(lambda: world.stored() == "3")
        await bench.drain()
    world.write("de")
    world.streams.close(world.ref, S0)
    trim(world, keep=0)
    async with ShardBench(world, SKIP) as bench:
        await until(bench.task.done)
    assert gaps(world) == [("s0", "3", "SHARD_END")]
    assert world.stored() == "SHARD_END"


async def test_what_cannot_be_read_now_ends_a_gap_at_a_place_that_is_not_known() -> None:
    world = World()
    world.write("abc")
    async with ShardBench(world) as bench:
        await until(lambda: world.stored() == "3")
        await bench.drain()
    world.write("de")
    trim(world, keep=0)
    async with ShardBench(world, SKIP):
        await until(lambda: bool(world.registry.gaps))
        world.put("f", 1)
        await until(lambda: "f" in world.holds())
    assert gaps(world) == [("s0", "3", None)]


# -- a break of lineage --------------------------------------------------------------------------------------------


async def test_production_failure_08_parents_that_were_gone_before_they_were_found_are_a_gap() -> None:
    world = World()
    await started(world)
    world.write("abc")
    async with ShardBench(world, found_at=OWED, parents=("p1", "p2")) as bench:
        await until(lambda: bool(bench.observer.blocked_keys))
        assert gaps(world) == [("p1", "TRIM_HORIZON", "SHARD_END"), ("p2", "TRIM_HORIZON", "SHARD_END")]
        await asyncio.sleep(60)
        assert world.holds() == {}
        for gap in world.registry.gaps:
            world.registry.acknowledge(gap.gap_id)
        await until(world.same)
        await until(lambda: world.stored() == "3")
        await bench.drain()
    world.put("d", 1)
    async with ShardBench(world, found_at=OWED, parents=("p1", "p2")) as bench:
        await until(world.same)
        assert bench.observer.of("gap_found") == [], "who has begun is behind it"


async def test_parents_that_have_a_row_are_no_break() -> None:
    world = World()
    await started(world)
    world.coordination.put(world.ref, LeaseRow(Shard(ShardId("p"), closed=True)))
    world.write("abc")
    async with ShardBench(world, found_at=OWED, parents=("p",)):
        await until(world.same)
    assert gaps(world) == []


async def test_parents_from_before_a_targets_start_are_no_break() -> None:
    world = World()
    world.write("abc")
    async with ShardBench(world, found_at=EPOCH_SECONDS, parents=("p",)):
        await until(world.same)
    assert gaps(world) == []


# -- policies ------------------------------------------------------------------------------------------------------


async def lost(world: World, *rules: Rule) -> None:
    """Apply five records, store that, and be away while more are written and all but the last two are trimmed."""
    world.write("abcde")
    async with ShardBench(world, *rules) as bench:
        await until(lambda: world.stored() == "5")
        await bench.drain()
    world.write("fghij")
    trim(world, keep=2)


async def test_a_rule_that_stops_waits_until_an_operator_acknowledges_the_loss() -> None:
    world = World()
    await lost(world)
    async with ShardBench(world, eu_rule(on_gap=OnGap.STOP)) as bench:
        await asyncio.sleep(300)
        assert bench.observer.blocked_keys == {"orders/eu on s0": None}
        assert set(world.holds()) == set("abcde")
        world.registry.acknowledge(world.registry.gaps[0].gap_id)
        await until(lambda: world.stored() == "10")
        assert set(world.holds()) == set("abcdeij")
        assert bench.observer.blocked_keys == {}
        ((target_id, shard_id, behind, why),) = bench.observer.of("gap_passed")
        assert (target_id, shard_id, behind) == ("orders/eu", "s0", "5")
        assert "acknowledged" in why


async def test_a_rule_that_skips_records_the_gap_and_goes_on_at_once() -> None:
    world = World()
    await lost(world)
    async with ShardBench(world, SKIP) as bench:
        await until(lambda: world.stored() == "10")
        assert gaps(world) == [("s0", "5", "9")]
        assert [event[:3] for event in bench.observer.of("gap_passed")] == [("orders/eu", "s0", "5")]


async def test_a_rule_that_resyncs_goes_on_at_once_and_leaves_the_gap_open_for_its_repair() -> None:
    world = World()
    await lost(world)
    async with ShardBench(world, eu_rule(on_gap=OnGap.RESYNC)) as bench:
        await until(lambda: world.stored() == "10")
        assert set(world.holds()) == set("abcdeij")
        assert [event[:3] for event in bench.observer.of("gap_passed")] == [("orders/eu", "s0", "5")]
        ((gap, job),) = [(each.gap, each.job) for each in await world.registry.open_gaps()]
        assert (gap.shard_id, gap.after.text, job) == ("s0", "5", None)


async def test_a_gap_found_again_after_a_restart_is_the_same_one_and_stays_acknowledged() -> None:
    world = World()
    await lost(world)
    world.region.faults.outage = Unreachable
    async with ShardBench(world) as bench:
        await until(lambda: bool(bench.observer.blocked_keys))
        world.registry.acknowledge(world.registry.gaps[0].gap_id)
        await until(lambda: bool(bench.observer.of("gap_passed")))
        await bench.kill()
    world.region.faults.outage = None
    async with ShardBench(world) as bench:
        await until(lambda: world.stored() == "10")
        assert bench.observer.of("blocked") == []
    assert len(world.registry.gaps) == 1


async def test_a_ledger_that_does_not_answer_acknowledges_nothing() -> None:
    world = World()
    await lost(world)
    async with ShardBench(world) as bench:
        await until(lambda: bool(bench.observer.blocked_keys))
        world.registry.acknowledge(world.registry.gaps[0].gap_id)

        async def refuse(call: str) -> None:
            if call == "acknowledged":
                raise Unreachable("The ledger does not answer.")

        world.registry.faults.pause = refuse
        await asyncio.sleep(100)
        assert set(world.holds()) == set("abcde")
        world.registry.faults.pause = None
        await until(lambda: world.stored() == "10")


async def test_a_lease_that_ends_behind_a_gap_ends_the_waiting() -> None:
    world = World()
    await lost(world)
    async with ShardBench(world) as bench:
        await until(lambda: bool(bench.observer.blocked_keys))
        bench.fence.revoke()
        await until(bench.task.done)
        assert bench.observer.of("lease_ended") == [("s0", "lost")]


async def test_a_rule_behind_a_gap_holds_no_other_rule_of_the_shard() -> None:
    world = World()
    world.regions[AP].poison(key_of("c"), "it is too large")
    rules = rule("one", target("one", EU)), rule("two", target("two", AP))
    async with ShardBench(world, *rules) as bench:
        world.write("abcde")
        await until(lambda: (world.stored(target_id="one/eu"), world.stored(target_id="two/ap")) == ("5", "2"))
        await bench.drain()
    world.regions[AP].cure(key_of("c"))
    world.write("fghij")
    trim(world, keep=6)
    async with ShardBench(world, *rules) as bench:
        await until(world.same)
        await until(lambda: bench.observer.blocked_keys == {"two/ap on s0": None})
        world.put("k", 1)
        await until(world.same)
        assert [short(gap.target_id) for gap in world.registry.gaps] == ["two/ap"]
        stopped = await bench.drain()
        assert stopped < 1.0


async def test_a_stop_behind_a_gap_passes_nothing() -> None:
    world = World()
    await lost(world)
    async with ShardBench(world, SKIP) as bench:
        await until(lambda: bool(world.registry.gaps))
        await bench.drain(within=1)
        assert world.stored() == "5"


# -- rewinds -------------------------------------------------------------------------------------------------------


async def test_a_rewound_target_skips_what_is_older_than_asked_for_and_nothing_behind_where_it_had_been() -> None:
    world = World()
    await started(world)
    first_of(world, "s0")
    for name in "abcdef":
        world.put(name, 0)
        await asyncio.sleep(10)
    async with ShardBench(world) as bench:
        await until(lambda: world.stored() == "6")
        await bench.drain()
    world.put("g", 0)
    world.region.sent.clear()
    rewind = Rewind(before=EPOCH_SECONDS + 25, until=after(SequenceNumber("6")))
    world.coordination.rewind(world.ref, S0, {id_of("orders/eu"): HORIZON}, {id_of("orders/eu"): rewind})
    async with ShardBench(world) as bench:
        await until(lambda: world.stored() == "7")
        assert sum(report.skipped for report in bench.observer.reports) == 3
        assert len(world.region.sent) == 4, "d, e and f again, and g"
    assert world.row().rewinds == {}
    assert gaps(world) == []


async def test_a_rewind_skips_nothing_that_the_target_had_not_reached() -> None:
    world = World()
    world.write("abc")
    async with ShardBench(world) as bench:
        await until(lambda: world.stored() == "3")
        await bench.drain()
    world.write("def")
    rewind = Rewind(before=EPOCH_SECONDS + 10_000, until=after(SequenceNumber("3")))
    world.coordination.rewind(world.ref, S0, {id_of("orders/eu"): None}, {id_of("orders/eu"): rewind})
    async with ShardBench(world) as bench:
        await until(world.same)
        await until(lambda: world.stored() == "6")
        assert sum(report.skipped for report in bench.observer.reports) == 3


async def test_a_rewind_to_a_horizon_that_moved_is_no_gap() -> None:
    world = World()
    await started(world)
    first_of(world, "s0")
    world.write("abcdef")
    async with ShardBench(world, found_at=OWED) as bench:
        await until(lambda: world.stored() == "6")
        await bench.drain()
    await asyncio.sleep(2 * DAY)
    trim(world, keep=2)
    rewind = Rewind(before=0.0, until=after(SequenceNumber("6")))
    world.coordination.rewind(world.ref, S0, {id_of("orders/eu"): None}, {id_of("orders/eu"): rewind})
    async with ShardBench(world, found_at=OWED):
        await until(lambda: world.stored() == "6")
    assert gaps(world) == []


async def test_a_start_at_the_latest_is_not_owed_what_came_before_it() -> None:
    world = World()
    first_of(world, "s0")
    world.write("abc")
    await asyncio.sleep(100)
    async with ShardBench(world, eu_rule(start=Start.LATEST), found_at=EPOCH_SECONDS):
        await until(lambda: world.stored() == "3")
        assert world.holds() == {}


# -- answers that are wrong ----------------------------------------------------------------------------------------


async def test_a_lie_at_the_horizon_is_not_believed_before_it_is_repeated() -> None:
    world = World()
    real, lies = world.streams.read, [2]

    async def lie(iterator: str, limit: int) -> RecordPage:
        if lies[0] and world.records():
            lies[0] -= 1
            raise RecordsTrimmed("Trimmed.")
        return await real(iterator, limit)

    world.streams.read = lie  # type: ignore[method-assign]
    async with ShardBench(world) as bench:
        await asyncio.sleep(5)
        world.write("abc")
        await until(world.same)
        assert bench.observer.troubles == {}
    assert gaps(world) == []


async def test_nothing_is_recorded_without_the_lease() -> None:
    world = World()
    await lost(world)

    async def lose(call: str) -> None:
        if call == "record_gap":
            raise LeaseLost("It went.")

    world.registry.faults.pause = lose
    async with ShardBench(world) as bench:
        await until(bench.task.done)
        assert bench.observer.of("lease_ended") == [("s0", "lost")]
        assert world.stored() == "5"


async def test_a_day_behind_a_whole_shard_is_no_gap_for_a_target_at_its_horizon() -> None:
    world = World()
    await started(world)
    first_of(world, "s0")
    world.write("abc")
    await asyncio.sleep(DAY + 100)
    async with ShardBench(world, eu_rule(start=Start.LATEST), found_at=EPOCH_SECONDS):
        await until(lambda: world.stored() == "3")
    assert gaps(world) == []


async def test_a_look_at_the_loss_that_fails_proves_nothing() -> None:
    world = World()
    await lost(world)
    real, looks = world.streams.iterator, [0]

    async def fail(*about: Any) -> str:
        looks[0] += 1
        if looks[0] == 2:
            raise Unreachable("The stream does not answer.")
        return await real(*about)

    world.streams.iterator = fail  # type: ignore[assignment, method-assign]
    async with ShardBench(world, SKIP) as bench:
        await until(lambda: world.stored() == "10")
        assert bench.observer.troubles == {}
    assert gaps(world) == [("s0", "5", "9")]


async def test_a_lease_that_is_lost_while_the_ledger_is_asked_ends_the_work() -> None:
    world = World()
    await lost(world)
    async with ShardBench(world) as bench:
        await until(lambda: bool(bench.observer.blocked_keys))

        async def lose(call: str) -> None:
            if call == "acknowledged":
                raise LeaseLost("It went.")

        world.registry.faults.pause = lose
        await until(bench.task.done)
        assert bench.observer.of("lease_ended") == [("s0", "lost")]
