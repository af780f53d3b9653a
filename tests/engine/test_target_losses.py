"""Targets of one rule at different places of a shard: each one's loss is found by its own place, and waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from replicator.domain.errors import RecordsTrimmed, Unreachable
from replicator.domain.identifiers import SequenceNumber
from replicator.domain.progress import HORIZON, after
from replicator.domain.rules import OnGap, Rule, Start, Target
from replicator.domain.shards.leases import Rewind
from replicator.domain.values import replace
from tests.engine.shard_bench import S0, ShardBench, first_of
from tests.engine.test_losses import accept
from tests.engine.world import AP, CA, EU, US, World, cache_rule, eu_rule, id_of, key_of, rule, short, target, until

BOTH = rule("orders", target("orders", EU), target("orders", AP))
THREE = rule("orders", target("orders", EU), target("orders", AP), target("orders", CA))
SOURCE_CACHES = Target(eu_rule().name, US, None, (cache_rule("eu_main", US),))
AWAY_SECONDS = 30 * 3600.0


def lost(world: World) -> set[tuple[str, str, str | None]]:
    """Target, after, until of every gap."""
    return {
        (short(gap.target_id), gap.after.text, gap.until.text if gap.until else None) for gap in world.registry.gaps
    }


async def away(world: World, before: Rule) -> None:
    """Read five records; write five more while nothing runs, of which three leave the stream."""
    first_of(world, "s0")
    world.write("abcde")
    async with ShardBench(world, before) as bench:
        await until(lambda: all(world.stored(target_id=each.target_id) == "5" for each in before.targets))
        await bench.drain()
    await asyncio.sleep(AWAY_SECONDS)
    world.write("fghij")
    world.streams.trim(world.ref, S0, keep=2)


def rewound(world: World, *names: str, to: str | None = None) -> None:
    """Put targets back to the horizon, or to a record, from where they have read five."""
    rewind = Rewind(before=0.0, until=after(SequenceNumber("5")))
    place = HORIZON if to is None else after(SequenceNumber(to))
    world.coordination.rewind(
        world.ref, S0, dict.fromkeys(map(id_of, names), place), dict.fromkeys(map(id_of, names), rewind)
    )


NEWCOMERS = {
    "alone": eu_rule(),
    "a replica": BOTH,
    "a replica at the latest": replace(BOTH, start=Start.LATEST),
    "two replicas": THREE,
    "caches beside the source": rule("orders", target("orders", EU), SOURCE_CACHES),
}


@pytest.mark.parametrize("newcomer", NEWCOMERS)
@pytest.mark.parametrize("policy", OnGap)
async def test_a_target_that_comes_new_hides_no_loss_of_another(newcomer: str, policy: OnGap) -> None:
    world = World()
    await away(world, eu_rule())
    async with ShardBench(world, replace(NEWCOMERS[newcomer], on_gap=policy)) as bench:
        await until(lambda: lost(world) == {("orders/eu", "5", "9")})
        if policy is OnGap.STOP:
            await asyncio.sleep(300)
            assert "orders/eu on s0" in bench.observer.blocked_keys
            assert set(world.holds()) == set("abcde")
            accept(world)
        await until(lambda: world.stored() == "10")
        assert set(world.holds()) == set("abcdeij")
        assert [event[0] for event in bench.observer.of("gap_passed")] == ["orders/eu"]
    assert lost(world) == {("orders/eu", "5", "9")}


@pytest.mark.parametrize("to", [None, "2", "4"])
async def test_a_rewound_target_hides_no_loss_of_another(to: str | None) -> None:
    world = World()
    await away(world, BOTH)
    rewound(world, "orders/ap", to=to)
    async with ShardBench(world, BOTH):
        await until(lambda: lost(world) == {("orders/eu", "5", "9"), ("orders/ap", "5", "9")})
        (ap,) = [gap for gap in world.registry.gaps if short(gap.target_id) == "orders/ap"]
        world.registry.acknowledge(ap.gap_id)
        await asyncio.sleep(300)
        assert set(world.holds()) == set("abcde"), "the other one's loss was not accepted"
        accept(world)
        await until(lambda: world.stored() == "10")


async def test_targets_at_several_places_each_have_their_own_gap() -> None:
    world = World()
    first_of(world, "s0")
    world.regions[AP].poison(key_of("c"), "it is too large")
    world.regions[CA].faults.outage = Unreachable
    world.write("abcdefgh")
    async with ShardBench(world, THREE) as bench:
        await until(lambda: world.stored() == "8" and world.stored(target_id="orders/ap") == "2")
        await until(lambda: world.stored(target_id="orders/ca") == "SHARD_START")
        await bench.drain()
    world.regions[AP].cure(key_of("c"))
    world.regions[CA].faults.outage = None
    await asyncio.sleep(AWAY_SECONDS)
    world.write("ijklm")
    world.streams.trim(world.ref, S0, keep=2)
    async with ShardBench(world, THREE):
        await until(
            lambda: (
                lost(world) == {("orders/eu", "8", "12"), ("orders/ap", "2", "12"), ("orders/ca", "SHARD_START", "12")}
            )
        )
        accept(world)
        await until(lambda: world.stored(target_id="orders/ca") == "13")
        await until(lambda: set(world.holds()) == {*"abcdefgh", *"lm"})


async def test_a_target_at_the_shards_beginning_is_not_hidden_by_one_that_waited_a_day_at_the_horizon() -> None:
    world = World()
    first_of(world, "s0")
    for region in (EU, AP):
        world.regions[region].faults.outage = Unreachable
    world.write("abc")
    async with ShardBench(world, BOTH) as bench:
        await until(lambda: world.stored(target_id="orders/ap") is not None)
        await bench.drain()
    world.coordination.rewind(world.ref, S0, {id_of("orders/ap"): HORIZON}, {})
    await asyncio.sleep(AWAY_SECONDS)
    world.write("def")
    world.streams.trim(world.ref, S0, keep=2)
    for region in (EU, AP):
        world.regions[region].faults.outage = None
    async with ShardBench(world, BOTH):
        await until(lambda: lost(world) == {("orders/eu", "SHARD_START", "5"), ("orders/ap", "TRIM_HORIZON", "5")})
        await asyncio.sleep(300)
        assert world.holds() == world.holds(AP) == {}


async def test_a_loss_before_the_first_page_at_the_horizon_is_found_behind_it() -> None:
    """The place of the older target can be read when both begin, and is trimmed while the newer one asks."""
    world = World()
    first_of(world, "s0")
    world.write("abcde")
    async with ShardBench(world, eu_rule()) as bench:
        await until(lambda: world.stored() == "5")
        await bench.drain()
    world.write("fghij")
    real = world.streams.read

    async def trim_first(iterator: str, limit: int) -> Any:
        world.streams.read = real  # type: ignore[method-assign]
        world.streams.trim(world.ref, S0, keep=2)
        world.streams.expire_iterators()
        return await real(iterator, limit)

    world.streams.read = trim_first  # type: ignore[method-assign]
    async with ShardBench(world, replace(BOTH, start=Start.LATEST)):
        await until(lambda: lost(world) == {("orders/eu", "5", "9")})
        await asyncio.sleep(100)
        assert set(world.holds()) == set("abcde")
        accept(world)
        await until(lambda: world.stored() == "10")
    assert lost(world) == {("orders/eu", "5", "9")}, "the new one has lost nothing"


async def test_a_target_that_lost_nothing_reads_on_and_loses_nothing_while_another_waits() -> None:
    world = World()
    world.regions[AP].poison(key_of("c"), "it is too large")
    world.write("abcdefgh")
    async with ShardBench(world, BOTH) as bench:
        await until(lambda: (world.stored(), world.stored(target_id="orders/ap")) == ("8", "2"))
        await bench.drain()
    world.regions[AP].cure(key_of("c"))
    world.write("ijkl")
    world.streams.trim(world.ref, S0, keep=6)
    async with ShardBench(world, BOTH) as bench:
        await until(lambda: lost(world) == {("orders/ap", "2", "7")})
        await until(lambda: world.stored() == "12", within=5)
        world.streams.trim(world.ref, S0, keep=2)
        await asyncio.sleep(200)
        assert world.stored(target_id="orders/ap") == "2", "the other one's loss is not its own to pass"
        assert lost(world) == {("orders/ap", "2", "11")}
        accept(world)
        await until(lambda: world.stored(target_id="orders/ap") == "12")
        assert [event[0] for event in bench.observer.of("gap_passed")] == ["orders/ap"]


async def test_a_closed_shard_that_is_empty_at_the_horizon_hides_no_loss() -> None:
    world = World()
    await away(world, eu_rule())
    world.streams.close(world.ref, S0)
    world.streams.trim(world.ref, S0, keep=0)
    async with ShardBench(world, BOTH) as bench:
        await until(lambda: lost(world) == {("orders/eu", "5", "SHARD_END")})
        accept(world)
        await until(bench.task.done)
    assert world.stored() == world.stored(target_id="orders/ap") == "SHARD_END"


async def test_an_older_target_whose_place_is_there_is_no_gap_beside_a_new_one() -> None:
    world = World()
    first_of(world, "s0")
    world.write("abcde")
    async with ShardBench(world, eu_rule()) as bench:
        await until(lambda: world.stored() == "5")
        await bench.drain()
    await asyncio.sleep(AWAY_SECONDS)
    world.write("fgh")
    world.streams.trim(world.ref, S0, keep=4)
    async with ShardBench(world, BOTH):
        await until(lambda: world.stored() == "8" and world.stored(target_id="orders/ap") == "8")
    assert lost(world) == set()


async def test_a_lie_about_the_older_targets_place_is_no_gap() -> None:
    world = World()
    first_of(world, "s0")
    world.write("abcde")
    async with ShardBench(world, eu_rule()) as bench:
        await until(lambda: world.stored() == "5")
        await bench.drain()
    world.streams.trim(world.ref, S0, keep=1)
    world.write("fgh")
    real, lies = world.streams.iterator, [2]

    async def lie(*about: object) -> str:
        if lies[0] and about[2] == after(SequenceNumber("5")):
            lies[0] -= 1
            raise RecordsTrimmed("Trimmed.")
        return await real(*about)  # type: ignore[arg-type]

    world.streams.iterator = lie  # type: ignore[assignment, method-assign]
    async with ShardBench(world, BOTH):
        await until(lambda: world.stored() == "8")
    assert lies == [0]
    assert lost(world) == set()
