"""Filling what was absent: under its lease, with what the rule stores of the item as it was read."""

from __future__ import annotations

import pytest

from replicator.domain.cache_keys import CacheRule, CacheVerb
from replicator.domain.cache_values import Shape
from replicator.domain.errors import Unreachable
from replicator.domain.filters import Filter
from replicator.domain.key_templates import KeyTemplate
from replicator.domain.values import replace
from replicator.engine.applying.cache_batcher import CacheFunnel, CacheRequest
from replicator.engine.applying.write_through import fill_leased
from replicator.laboratory.memory import OpenFence, value_entry
from replicator.ports.targets import CacheFill
from tests.engine.test_apply import Bench, version
from tests.engine.world import EU, World, cache_rule, image, key_of, target

LEASE = b"L:lease"
THROUGH = cache_rule("eu_main", EU, CacheVerb.WRITE_THROUGH)


@pytest.mark.parametrize(
    ("of_rule", "entry"),
    [
        (THROUGH, value_entry(version(1), image("a", 1).wire)),
        (replace(THROUGH, shape=Shape("json", attributes=("pk",))), value_entry(version(1), b'{"pk":"a"}')),
        (replace(THROUGH, max_bytes=5), LEASE),
        (replace(THROUGH, when=Filter(exists=("never",))), LEASE),
        (replace(THROUGH, key=KeyTemplate("other:{pk}")), LEASE),
    ],
    ids=["filled", "in its format", "too large", "does not pass", "has another key now"],
)
async def test_a_lease_is_filled_with_what_the_rule_stores_of_the_item(of_rule: CacheRule, entry: bytes) -> None:
    world = World()
    world.put("a", 1)
    await Bench(world, target("orders", EU)).apply()
    cache = world.caches["eu_main"]
    cache.entries["order:a"] = LEASE
    request = CacheRequest("eu_main", (), rule=of_rule, leased={"order:a": "lease"})
    world.region.faults.outage = Unreachable
    asked = [(key_of("a"), request)]
    funnels = {"eu_main": CacheFunnel(cache)}
    await fill_leased(asked, world.region, funnels, OpenFence())
    assert cache.entries["order:a"] == LEASE, "a table that does not answer leaves the entry to its lease"
    world.region.faults.outage = None
    await fill_leased(asked, world.region, funnels, OpenFence())
    assert cache.entries["order:a"] == entry


async def test_a_cache_that_fails_behind_its_lease_is_left_alone() -> None:
    world = World()
    world.caches["eu_main"].faults.outage = Unreachable
    funnel = CacheFunnel(world.caches["eu_main"])
    assert await funnel.fill([CacheFill("k", "lease", b"T:", 1000)], OpenFence()) == 0
