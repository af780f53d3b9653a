"""A table with other keys than its sources: streams, caches, parking and jobs see the source's keys alone."""

from __future__ import annotations

from typing import Any

import pytest

from replicator.domain.cache_keys import CacheVerb
from replicator.domain.image import Image, stamped, unreserved
from replicator.domain.jobs import Job, JobKind, parts_of
from replicator.domain.key_mapping import key_mapping
from replicator.domain.owed_keys import Settlement
from replicator.domain.records import ItemKey
from replicator.domain.records import key_of as key
from replicator.domain.rules import OnRefusal, Rule
from replicator.domain.transforms import Transform
from replicator.domain.values import replace
from replicator.domain.versions import ordered_version
from replicator.engine.copying.uninstalling import SIDE_TABLE
from replicator.engine.mapped_tables import MappedRegion
from replicator.laboratory.memory import value_entry
from tests.engine.job_world import SIDE, JobWorldOf, job
from tests.engine.shard_bench import ShardBench
from tests.engine.test_transforms import retry
from tests.engine.world import EU, ORDERS, US, World, cache_rule, image, key_of, rule, target, until

TABLES = parts_of([(US, ORDERS), (EU, ORDERS)], 2)


def merging(origin: str, *caches: Any, **choices: Any) -> Rule:
    """A rule that brings its items under keys of its own to the table of all."""
    transform = Transform(
        drop=frozenset({"pk"}), key=key_mapping({"origin": {"constant": origin}, "id": f"{origin}/{{pk}}"})
    )
    to = replace(target("orders", EU, *caches), transform=transform)
    return rule("orders", to, refused=OnRefusal.PARK, **choices)


def there(origin: str, name: str) -> ItemKey:
    return key({"origin": {"S": origin}, "id": {"S": f"{origin}/{name}"}})


def wanted(origin: str, world: World) -> dict[ItemKey, Image]:
    (to,) = merging(origin).targets
    assert to.transform is not None
    return {there(origin, at.parts[0][2]): to.transform.apply(at, item) for at, item in world.source.items.items()}


def held(world: World) -> dict[ItemKey, Image]:
    return {at: unreserved(item) for at, item in world.region.items()}


def two_worlds() -> tuple[World, World]:
    """Two sources, and one table that they are brought to."""
    one, two = World(), World(seed=100)
    two.regions[EU] = one.regions[EU]
    return one, two


async def test_two_sources_with_the_same_keys_are_both_in_one_table() -> None:
    one, two = two_worlds()
    for world, value in ((one, "one"), (two, "two")):
        world.put("a", value)
        world.put("b", value)
        world.put("a", f"{value} again")
    one.delete("b")
    two.put("c", "two")
    two.delete("a")
    two.put("a", "new")
    async with ShardBench(one, merging("one")), ShardBench(two, merging("two")):
        await until(lambda: (one.stored(), two.stored()) == ("4", "6"))
    assert held(one) == {**wanted("one", one), **wanted("two", two)}
    assert {at.parts[0][2] for at in held(one)} == {"one/a", "two/a", "two/b", "two/c"}


async def test_entries_are_named_by_the_keys_that_the_table_has() -> None:
    world = World()
    refreshed = merging("one", cache_rule("eu_main", EU, CacheVerb.REFRESH, "{origin}:{id}"))
    entries = world.caches["eu_main"].entries
    old = b"T:" + ordered_version(0, 0, 0).encode()
    entries |= {"one:one/a": old, "one:one/b": old, "one:a": b"foreign"}
    world.put("a", 1)
    world.put("b", 1)
    world.delete("b")
    async with ShardBench(world, refreshed):
        await until(lambda: world.stored() == "3")
    assert entries["one:one/a"].startswith(b"V:")
    assert (entries["one:one/b"] > old, entries["one:one/b"][:2], entries["one:a"]) == (True, b"T:", b"foreign")


async def test_an_item_whose_key_would_be_too_long_is_parked_and_its_removal_settles_that() -> None:
    world = World()
    long = "x" * 1021
    world.put(long, 1)
    world.put("b", 1)
    async with ShardBench(world, merging("one")) as bench:
        await until(lambda: world.stored() == "2")
        (row,) = world.owed.rows.values()
        assert "too long: id has 1025 bytes" in row.why
        assert row.key == key_of(long)
        world.delete(long)
        await until(lambda: world.stored() == "3")
        assert not bench.observer.blocked_keys
    assert not world.owed.rows
    assert set(held(world)) == {there("one", "b")}


async def test_what_was_refused_under_the_sources_key_is_tried_again_under_the_tables() -> None:
    world = World()
    world.region.poison(there("one", "a"), "Item size has exceeded the maximum allowed size")
    world.put("a", 1)
    async with ShardBench(world, merging("one")):
        await until(lambda: world.stored() == "1")
    (row,) = world.owed.rows.values()
    assert row.key == key_of("a")
    world.region.cure(there("one", "a"))
    mapping = merging("one").targets[0].keys
    assert mapping is not None
    retried = await retry(world, merging("one"), MappedRegion(world.region, mapping))
    assert retried.how is Settlement.RETRIED
    assert held(world) == wanted("one", world)


@pytest.mark.parametrize("verb", [CacheVerb.INVALIDATE, CacheVerb.REFRESH, CacheVerb.WRITE_THROUGH])
async def test_a_retry_acts_on_the_entry_that_readers_know(verb: CacheVerb) -> None:
    world, transform = World(), Transform(key=key_mapping({"pk": "one/{pk}"}))
    to = replace(target("orders", EU, cache_rule("eu_main", EU, verb, "o:{pk}")), transform=transform)
    of, at = rule("orders", to, refused=OnRefusal.PARK), key({"pk": {"S": "one/a"}})
    world.region.poison(at, "Item size has exceeded the maximum allowed size")
    world.put("a", 1)
    async with ShardBench(world, of):
        await until(lambda: world.stored() == "1")
    # A reader filled it while the replica was behind; what has the source's key is another rule's.
    version = ordered_version(0, 0, 1)
    entries = world.caches["eu_main"].entries
    entries |= {"o:one/a": b"T:" + version.encode(), "o:a": value_entry(version, b"of another rule")}
    world.region.cure(at)
    assert transform.key is not None
    assert (await retry(world, of, MappedRegion(world.region, transform.key))).how is Settlement.RETRIED
    assert entries.pop("o:a").endswith(b"of another rule")
    assert [entry.partition(b"|")[2] for entry in entries.values()] == (
        [] if verb is CacheVerb.INVALIDATE else [transform.apply(key_of("a"), image("a", 1)).wire]
    )


async def test_jobs_bring_compare_and_mend_the_items_of_their_own_source_alone() -> None:
    one, two = two_worlds()
    for world in (one, two):
        for number in range(12):
            world.source.items[key_of(f"k{number}")] = image(f"k{number}", number)
    jobs = [(JobWorldOf(one), merging("one")), (JobWorldOf(two), merging("two"))]
    for each, of in jobs:
        await each.rows.create(job(options={"verify": False}))
        async with each.process(of):
            assert (await each.ended()).counts["copied"] == 12
    both = {**wanted("one", one), **wanted("two", two)}
    assert held(one) == both
    # One of each is damaged, and something of neither is there.
    foreign = key({"origin": {"S": "neither"}, "id": {"S": "x"}})
    stamp = one.region.item(there("one", "k3")).stamp  # type: ignore[union-attr]
    assert stamp is not None
    strange = Image(b'{"origin":{"S":"neither"},"id":{"S":"x"}}')
    one.region.write_foreign(foreign, Image(stamped(strange, stamp)))
    extra = Image(b'{"origin":{"S":"one"},"id":{"S":"one/gone"}}')
    one.region.write_foreign(there("one", "gone"), Image(stamped(extra, stamp)))
    for origin in ("one", "two"):
        one.region.write_foreign(there(origin, "k3"), Image(stamped(image("k3", "damaged"), stamp)))
    damaged = one.region.item(there("two", "k3"))
    mine, of = jobs[0]
    async with mine.process(of):
        await mine.rows.create(job(JobKind.VERIFY, job_id="v1", parts=TABLES))
        found = await mine.ended("v1")
        assert (found.counts["differences"], found.counts["differs"], found.counts["extra"]) == (2, 1, 1)
        await mine.rows.create(job(JobKind.REPAIR, job_id="r1", parts=TABLES))
        assert (await mine.ended("r1")).counts["mended"] == 2
        await mine.rows.create(job(JobKind.VERIFY, job_id="v2", parts=TABLES))
        assert (await mine.ended("v2")).counts.get("differences", 0) == 0
    assert one.region.item(there("two", "k3")) == damaged
    assert one.region.item(foreign) is not None
    assert {at: item for at, item in held(one).items() if at in wanted("one", one)} == wanted("one", one)


async def test_an_uninstallation_takes_the_stamps_of_its_own_items_alone() -> None:
    one, two = two_worlds()
    for world in (one, two):
        world.put("a", 1)
    async with ShardBench(one, merging("one")), ShardBench(two, merging("two")):
        await until(lambda: (one.stored(), two.stored()) == ("1", "1"))
    jobs = JobWorldOf(one)
    asked: Job = job(JobKind.UNINSTALL, parts=parts_of([(EU, ORDERS)], 1), options={SIDE_TABLE: SIDE}, targets=())
    await jobs.rows.create(asked)
    async with jobs.process(merging("one"), only_jobs=True):
        assert (await jobs.ended()).counts["unstamped"] == 1
    assert {at.parts[0][2]: item.stamp is None for at, item in one.region.items()} == {"one/a": True, "two/a": False}
