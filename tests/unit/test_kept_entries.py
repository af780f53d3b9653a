"""Which entries a target keeps in step, and which of them it did not before."""

from __future__ import annotations

from datetime import timedelta

from replicator.domain.cache_keys import CacheRule, CacheVerb, Publication
from replicator.domain.filters import Equals, Filter, Where
from replicator.domain.identifiers import RegionId, ShardId
from replicator.domain.kept_entries import kept_entries, newly_kept, with_those_of_parents
from replicator.domain.key_templates import KeyTemplate
from replicator.domain.progress import Position
from replicator.domain.shards.leases import LeaseRow
from replicator.domain.shards.lineage import Shard
from replicator.domain.targets import parse_target
from replicator.domain.values import replace

MAIN = CacheRule("main", RegionId("eu"), KeyTemplate("order:{pk}"), CacheVerb.INVALIDATE, timedelta(hours=1))
ORDERS = parse_target("orders/replica/eu:orders")
BILLS = parse_target("bills/replica/eu:bills")
assert ORDERS is not None
assert BILLS is not None


def test_the_order_of_caches_and_what_is_done_to_entries_make_no_difference() -> None:
    other = replace(MAIN, cache="other")
    assert kept_entries([MAIN, other]) == kept_entries([other, MAIN, MAIN])
    refreshed = replace(MAIN, verb=CacheVerb.REFRESH, ttl=timedelta(hours=2), jitter=0.1)
    assert newly_kept(kept_entries([refreshed]), kept_entries([MAIN])) == []


def test_a_cache_a_template_a_prefix_and_conditions_make_other_entries() -> None:
    before = kept_entries([MAIN])
    others = [
        replace(MAIN, cache="other"),
        replace(MAIN, key=KeyTemplate("order:{sk}")),
        replace(MAIN, key=KeyTemplate("order:{pk}", "v2:")),
        replace(MAIN, when=Filter(equals=(Equals("open", value=True),))),
        replace(MAIN, when=Filter(where=Where("open"))),
    ]
    assert len({kept_entries([each]) for each in others} | {before}) == len(others) + 1
    for each in others:
        assert newly_kept(kept_entries([MAIN, each]), before) == [each.cache]
        assert newly_kept(before, kept_entries([MAIN, each])) == []


def test_messages_are_no_entries() -> None:
    message = replace(MAIN, verb=CacheVerb.PUBLISH, publication=Publication("changes"))
    assert kept_entries([message]) == kept_entries([]) == ""
    assert newly_kept(kept_entries([MAIN]), kept_entries([message])) == ["main"]


def test_a_target_that_has_not_begun_keeps_what_it_kept_on_all_parents() -> None:
    assert ORDERS is not None
    assert BILLS is not None
    first, second, child = ShardId("a"), ShardId("b"), ShardId("c")
    rows = {
        first: LeaseRow(Shard(first), keeps={ORDERS: "main:1 other:2", BILLS: "main:3"}),
        second: LeaseRow(Shard(second), keeps={ORDERS: "main:1"}),
    }
    row = LeaseRow(Shard(child, (first, second, ShardId("gone"))))
    assert with_those_of_parents(row, rows) == {ORDERS: "main:1", BILLS: "main:3"}
    begun = replace(row, checkpoints={ORDERS: Position("5")})
    assert with_those_of_parents(begun, rows) == {BILLS: "main:3"}
    noted = replace(begun, keeps={ORDERS: "main:1 other:2"})
    assert with_those_of_parents(noted, rows) == {ORDERS: "main:1 other:2", BILLS: "main:3"}
