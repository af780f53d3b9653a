"""A target's identity: what makes it another one, and its text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.modes.versioned.ranks import VersionAttribute
from replicator.domain.rules import ActivePlan, Rule, Target, VersionedPlan
from replicator.domain.targets import TargetId, TargetKind, mesh_id, parse_target, replica_id, source_caches_id
from replicator.domain.values import replace

US, EU, AP = RegionId("us"), RegionId("eu"), RegionId("ap")
RULE, ORDERS, COPY = RuleName("orders"), TableName("orders"), TableName("orders-v2")
REGIONS = st.text("abcdefgh", min_size=2, max_size=2).map(RegionId)
TABLES = st.text("abc-._0", min_size=3, max_size=255).map(TableName)


def test_another_table_is_another_target() -> None:
    first, second = (Target(RULE, EU, table).target_id for table in (ORDERS, COPY))
    assert first != second
    assert (first.text, second.text) == ("orders/replica/eu:orders", "orders/replica/eu:orders-v2")


def test_a_target_of_an_earlier_version_is_written_as_it_was_and_keeps_its_kind_under_another_rule() -> None:
    earlier = TargetId(RULE, TargetKind.EARLIER, "eu")
    assert (earlier.text, earlier.region) == ("orders/eu", EU)
    assert earlier.of_rule(RuleName("bills")).text == "bills/eu"


def test_caches_beside_the_source_are_a_target_of_their_own_kind() -> None:
    caches = Target(RULE, US, None)
    assert (caches.kind, caches.target_id.text) == (TargetKind.SOURCE_CACHES, "orders/source_caches/us")
    assert Target(RULE, US, COPY).kind is TargetKind.REPLICA


@pytest.mark.parametrize("plan", [ActivePlan((EU,)), VersionedPlan((EU,), VersionAttribute("ver"))])
def test_a_mesh_is_its_members_wherever_it_is_read(plan: ActivePlan | VersionedPlan) -> None:
    def seen(home: RegionId, *others: RegionId, table: TableName = ORDERS) -> TargetId:
        (target,) = Rule(RULE, home, table, (Target(RULE, home, table),), mesh=replace(plan, others=others)).targets
        return target.target_id

    assert seen(US, EU) == seen(EU, US)
    assert seen(US, EU, AP) == seen(AP, US, EU)
    assert seen(US, EU).text == "orders/mesh/eu+us"
    assert seen(US, EU, AP).text == "orders/mesh/ap+eu+us"
    assert seen(US, EU).region is None


def test_other_tables_of_members_make_another_mesh_the_same_from_each_home() -> None:
    at_us = Rule(RULE, US, ORDERS, (Target(RULE, US, ORDERS),), mesh=ActivePlan((EU,), tables=((EU, COPY),)))
    at_eu = Rule(RULE, EU, COPY, (Target(RULE, EU, COPY),), mesh=ActivePlan((US,), tables=((US, ORDERS),)))
    plain = Rule(RULE, US, ORDERS, (Target(RULE, US, ORDERS),), mesh=ActivePlan((EU,)))
    assert at_us.members == at_eu.members == ((EU, COPY), (US, ORDERS))
    assert at_us.targets[0].target_id == at_eu.targets[0].target_id != plain.targets[0].target_id


@given(st.dictionaries(REGIONS, TABLES, min_size=1, max_size=8))
def test_a_text_is_its_targets_and_fits_a_key(tables: dict[RegionId, TableName]) -> None:
    region, table = next(iter(tables.items()))
    made = [replica_id(RULE, region, table), source_caches_id(RULE, region), mesh_id(RULE, tables.items())]
    assert len({target.text for target in made}) == len(made)
    for target in [*made, *(target.earlier for target in made)]:
        assert parse_target(target.text) == target
        assert len(target.text.encode()) < 512
        assert parse_target(target.of_rule(RuleName("sales")).text) == replace(target, rule=RuleName("sales"))


def test_earlier_versions_stored_a_rule_and_a_region() -> None:
    for table in (ORDERS, COPY):
        assert replica_id(RULE, EU, table).earlier == parse_target("orders/eu")
    assert mesh_id(RULE, [(US, ORDERS), (EU, ORDERS)]).earlier == parse_target("orders/mesh")
    assert [found and found.region for found in map(parse_target, ("orders/eu", "orders/mesh"))] == [EU, None]


@pytest.mark.parametrize(
    "text", ["", "orders", "orders/", "/eu", "orders//eu", "orders/elsewhere/eu", "orders/earlier/eu"]
)
def test_what_is_no_target_is_none(text: str) -> None:
    assert parse_target(text) is None
