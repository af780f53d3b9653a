"""A replica that is transformed: streams, parking, retries, bootstraps and comparisons agree about what it holds."""

from __future__ import annotations

from typing import Any

import msgspec

from replicator.domain.cache_keys import CacheVerb
from replicator.domain.filters import Filter, Where
from replicator.domain.image import Image, stamped, unreserved
from replicator.domain.jobs import JobKind, parts_of
from replicator.domain.owed_keys import Settlement
from replicator.domain.rules import OnRefusal, Rule
from replicator.domain.transforms import Transform
from replicator.domain.values import replace
from replicator.engine.applying.cache_batcher import CacheFunnel
from replicator.engine.applying.context import TargetPorts
from replicator.engine.applying.retrying import Retrial, Retried
from replicator.laboratory.memory import OpenFence
from replicator.ports.targets import Region
from tests.engine.job_world import JobWorldOf, job
from tests.engine.shard_bench import ShardBench
from tests.engine.world import (
    EU,
    ORDERS,
    US,
    LoopClock,
    Recorder,
    World,
    cache_rule,
    image,
    key_of,
    rule,
    target,
    until,
)
from tests.production.parking import Source

MASKED = Transform(
    masked=frozenset({"value"}),
    rename=(("value", "v"),),
    constant=(("region", b'{"S":"eu"}'),),
    secret=b"a secret of tests",
)


def transformed(transform: Transform = MASKED, **choices: Any) -> Rule:
    to = target("orders", EU, cache_rule("eu_main", EU, CacheVerb.REFRESH, "order:{pk}"))
    return rule("orders", replace(to, transform=transform), refused=OnRefusal.PARK, **choices)


def held(world: World) -> dict[str, Any]:
    """What the replica holds, without versions."""
    return {key.parts[0][2]: unreserved(item).attributes for key, item in world.region.items()}


def wanted(world: World, transform: Transform = MASKED) -> dict[str, Any]:
    return {key.parts[0][2]: transform.apply(key, item).attributes for key, item in world.source.items.items()}


async def test_replica_and_cache_hold_what_the_transform_makes_of_items() -> None:
    world = World()
    world.caches["eu_main"].entries["order:a"] = b"T:0|"
    world.put("a", "private")
    world.put("b", "private")
    world.put("b", "other")
    world.delete("a")
    world.put("c", 1)
    async with ShardBench(world, transformed()):
        await until(lambda: world.stored() == "5")
    assert held(world) == wanted(world)
    assert held(world)["b"]["v"] != held(world)["c"]["v"]
    assert b"private" not in b"".join(world.caches["eu_main"].entries.values())


async def test_entries_are_named_by_what_the_replica_holds() -> None:
    """A template over an attribute that is renamed, whose old value is only in the old image."""
    world = World()
    named = Transform(rename=(("value", "v"),))
    to = replace(target("orders", EU, cache_rule("eu_main", EU, CacheVerb.INVALIDATE, "by:{v}")), transform=named)
    world.put("a", "one")
    world.put("a", "two")
    world.caches["eu_main"].entries |= {"by:one": b"x", "by:two": b"x", "by:three": b"x"}
    async with ShardBench(world, rule("orders", to)):
        await until(lambda: world.stored() == "2")
    assert set(world.caches["eu_main"].entries) == {"by:three"}


async def test_an_item_that_cannot_be_transformed_is_parked_without_its_values() -> None:
    world = World()
    world.source.put(key_of("a"), Image(b'{"pk":{"S":"a"},"value":{"S":"private"},"v":{"S":"own"}}'))
    world.put("b", "private")
    async with ShardBench(world, transformed()):
        await until(lambda: world.stored() == "2")
    assert held(world) == {"b": wanted_of("b", "private")}
    (row,) = world.owed.rows.values()
    assert "renamed to it" in row.why
    assert await world.owed.body(row) is None
    world.source.items[key_of("a")] = image("a", "private")
    assert (await retry(world, transformed())).how is Settlement.RETRIED
    assert held(world) == wanted(world)


def wanted_of(name: str, value: str) -> dict[str, Any]:
    return MASKED.apply(key_of(name), image(name, value)).attributes


async def test_what_a_replica_refused_is_kept_and_tried_again_as_it_is_to_be_held() -> None:
    world = World()
    world.region.poison(key_of("a"), "Item size has exceeded the maximum allowed size")
    world.put("a", "private")
    filtered = transformed(filter=Filter(where=Where("value == 'private'")))  # what the replica never holds
    async with ShardBench(world, filtered):
        await until(lambda: world.stored() == "1")
    (row,) = world.owed.rows.values()
    body = await world.owed.body(row)
    assert body is not None
    assert msgspec.json.decode(body) == wanted_of("a", "private")
    world.region.cure(key_of("a"))
    assert (await retry(world, filtered)).how is Settlement.RETRIED
    assert held(world) == wanted(world)


async def retry(world: World, of: Rule, region: Region | None = None) -> Retried:
    (row,) = world.owed.rows.values()

    def unparsed(raw: bytes) -> Any:
        raise AssertionError(raw)

    funnels = {name: CacheFunnel(cache) for name, cache in world.caches.items()}
    retrial = Retrial(
        of,
        of.targets[0],
        TargetPorts(region or world.region, funnels, world.conflicts, source=Source(world)),
        Source(world),
        world.owed,
        unparsed,
        7 * 86_400.0,
        LoopClock(),
        Recorder(),
        OpenFence(),
        "operator",
    )
    return await retrial.retry(row)


async def test_a_bootstrap_brings_and_a_verification_wants_what_the_transform_makes() -> None:
    world = World()
    for number in range(20):
        world.source.items[key_of(f"k{number}")] = image(f"k{number}", f"private {number}")
    jobs = JobWorldOf(world)
    tables = parts_of([(US, ORDERS), (EU, ORDERS)], 2)
    await jobs.rows.create(job(options={"verify": False}))
    async with jobs.process(transformed()):
        await jobs.ended()
        assert held(world) == wanted(world)
        await jobs.rows.create(job(JobKind.VERIFY, job_id="v1", parts=tables))
        assert (await jobs.ended("v1")).counts.get("differences", 0) == 0
        # An item that holds what the source does is not what is wanted.
        stamp = world.region.item(key_of("k3")).stamp  # type: ignore[union-attr]
        assert stamp is not None
        world.region.write_foreign(key_of("k3"), Image(stamped(image("k3", "private 3"), stamp)))
        await jobs.rows.create(job(JobKind.VERIFY, job_id="v2", parts=tables))
        assert (await jobs.ended("v2")).counts["differs"] == 1
        await jobs.rows.create(job(JobKind.REPAIR, job_id="r1", parts=tables))
        assert (await jobs.ended("r1")).counts["mended"] == 1
    assert held(world) == wanted(world)


async def test_a_transform_that_changed_is_mended_by_a_repair() -> None:
    world = World()
    tables = parts_of([(US, ORDERS), (EU, ORDERS)], 1)
    async with JobWorldOf(world).process(transformed(Transform(drop=frozenset({"value"})))):
        for name in ("a", "b"):
            world.put(name, "private")
        await until(lambda: len(held(world)) == 2)
    jobs = JobWorldOf(world)
    async with jobs.process(transformed()):
        await jobs.rows.create(job(JobKind.REPAIR, job_id="r1", parts=tables))
        assert (await jobs.ended("r1")).counts["mended_differs"] == 2
    assert held(world) == wanted(world)
