"""Rules that choose their tables: how the configuration says it, and what settings are with tables that are there."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from replicator.settings import (
    MOST_TABLES,
    OrderedRule,
    Settings,
    TableChoice,
    choosing,
    expanded,
    target_problems,
)
from replicator.settings.compiled_rules import rules_of

ORDERS: dict[str, Any] = {"name": "orders", "table": "orders-*", "source": "us", "replicas": ["eu"]}


def settings(*rules: dict[str, Any], **more: Any) -> Settings:
    regions = {"us": {"region": "us-east-1"}, "eu": {"region": "eu-west-1"}, "ap": {"region": "ap-northeast-1"}}
    document: dict[str, Any] = {"group": "test", "regions": regions, "coordination": {"region": "us"}, "rules": rules}
    return Settings(**document, **more)


def choice(table: object) -> TableChoice:
    found = settings({**ORDERS, "table": table}).rules[0].choice
    assert found is not None
    return found


def refusals(*rules: dict[str, Any], **more: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        settings(*rules, **more)
    return str(caught.value)


# -- how it is said ------------------------------------------------------------------------------------------------


def test_a_plain_name_is_one_table() -> None:
    (rule,) = settings({**ORDERS, "table": "orders"}).rules
    assert rule.choice is None
    assert rule.sources == [("us", "orders")]
    assert rule.replica_tables == [("eu", "orders")]


@pytest.mark.parametrize("table", ["orders-*", "orders-?", "orders-[ab]", "*"])
def test_a_name_with_a_wildcard_is_a_choice(table: str) -> None:
    assert choice(table) == TableChoice(glob=table)
    assert choice(table) == choice({"glob": table})


def test_a_choice_by_glob_looks_at_names_as_a_shell_does() -> None:
    chosen = choice("orders-[ab]*")
    assert [
        name for name in ("orders-a", "orders-b2", "orders-c", "my-orders-a", "Orders-a") if chosen.names(name)
    ] == [
        "orders-a",
        "orders-b2",
    ]


def test_a_choice_by_tags_asks_for_all_of_them_and_for_no_name() -> None:
    chosen = choice({"tag": {"team": "shop", "copy": "yes"}})
    assert chosen.names("anything")
    assert chosen.tagged({"team": "shop", "copy": "yes", "more": "x"})
    assert not chosen.tagged({"team": "shop"})
    assert not chosen.tagged({"team": "shop", "copy": "no"})


def test_a_choice_may_ask_for_both() -> None:
    chosen = choice({"glob": "orders-*", "tag": {"team": "shop"}})
    assert not chosen.names("carts")
    assert str(chosen) == "orders-* tagged team=shop"


@pytest.mark.parametrize("table", [{}, {"glob": "or ders-*"}, {"tag": {}}, {"name": "orders"}, "or/ders-*", 7, None])
def test_a_choice_that_chooses_nothing_is_refused(table: object) -> None:
    assert "rules.0.ordered.table" in refusals({**ORDERS, "table": table})


def test_a_choice_gives_its_tables_no_other_names() -> None:
    text = refusals({**ORDERS, "replicas": [{"region": "eu", "table": "copy"}]})
    assert "rules[0].replicas[0].table: rule 'orders' chooses its tables" in text
    text = refusals(
        {
            "name": "carts",
            "table": "c*",
            "mode": "active-active",
            "regions": ["us", {"region": "eu", "table": "x-y"}],
        }
    )
    assert "rules[0].regions[1].table" in text


def test_a_choice_cannot_be_replicated_to_where_it_comes_from() -> None:
    assert "rules[0].replicas: two regions of rule 'orders' are one place" in refusals({**ORDERS, "replicas": ["us"]})


# -- with the tables that are there --------------------------------------------------------------------------------


def test_a_choice_reads_and_writes_nothing_before_its_tables_are_known() -> None:
    written = settings(ORDERS)
    assert rules_of(written) == []
    assert written.rules[0].sources == written.rules[0].replica_tables == []
    assert written.rules[0].regions_used == ["us", "eu"]


def test_settings_are_expanded_into_a_rule_per_table_under_one_name() -> None:
    literal = {**ORDERS, "name": "carts", "table": "carts"}
    written = settings(ORDERS, literal)
    there = expanded(written, {"orders": ["orders-b", "orders-a"]})
    assert [(rule.name, rule.table) for rule in there.rules] == [
        ("orders", "orders-a"),
        ("orders", "orders-b"),
        ("carts", "carts"),
    ]
    assert there.places_of_rules == [0, 0, 1]
    assert [(rule.name, rule.source, rule.table) for rule in rules_of(there)] == [
        ("orders", "us", "orders-a"),
        ("orders", "us", "orders-b"),
        ("carts", "us", "carts"),
    ]
    assert {target.target_id.text for rule in rules_of(there) for target in rule.targets} == {
        "orders/replica/eu:orders-a",
        "orders/replica/eu:orders-b",
        "carts/replica/eu:carts",
    }
    assert list(choosing(written)) == ["orders"]


def test_a_choice_that_finds_nothing_stays_a_rule() -> None:
    there = expanded(settings(ORDERS), {"orders": []})
    assert [rule.name for rule in there.rules] == ["orders"]
    assert rules_of(there) == []


def test_a_mesh_has_the_tables_of_a_choice_in_each_of_its_regions() -> None:
    written = settings({"name": "carts", "table": "carts-*", "mode": "active-active", "regions": ["us", "eu"]})
    there = expanded(written, {"carts": ["carts-1", "carts-2"]})
    assert [(rule.source, rule.table) for rule in rules_of(there)] == [
        ("us", "carts-1"),
        ("eu", "carts-1"),
        ("us", "carts-2"),
        ("eu", "carts-2"),
    ]


def test_the_number_of_tables_of_a_choice_is_bounded() -> None:
    there = expanded(settings(ORDERS), {"orders": [f"orders-{n:04d}" for n in range(MOST_TABLES + 10)]})
    assert len(there.rules) == MOST_TABLES


def test_a_table_that_two_rules_would_write_is_told_once_it_is_known() -> None:
    literal = {**ORDERS, "name": "special", "table": "orders-a"}
    written = settings(ORDERS, literal)
    assert target_problems(written) == []
    (problem,) = target_problems(expanded(written, {"orders": ["orders-a", "orders-b"]}))
    assert problem.startswith(
        "rules[1].replicas[0]: table 'orders-a' in region 'eu' is already written by rule 'orders'"
    )


def test_a_chain_is_told_once_it_is_known() -> None:
    second = {"name": "onwards", "table": "orders-*", "source": "eu", "replicas": ["ap"]}
    there = expanded(settings(ORDERS, second), {"orders": ["orders-a"], "onwards": ["orders-a"]})
    (problem,) = target_problems(there)
    assert "is the source of rule 'onwards'; a source cannot be a replica" in problem


def test_tables_of_replicator_are_known_by_name() -> None:
    names = settings(ORDERS, side_table="mine", owed_table="owed", conflicts={"table": "fights"}).own_table_names
    assert names == {"mine", "owed", "fights", "replicator-coordination"}


def test_an_expanded_rule_is_the_written_one_but_for_its_table() -> None:
    rule = settings({**ORDERS, "epoch": 3, "filter": {"exists": ["total"]}}).rules[0]
    assert isinstance(rule, OrderedRule)
    assert rule.on("orders-a") == OrderedRule(
        name="orders", table="orders-a", source="us", replicas=rule.replicas, epoch=3, filter=rule.filter
    )


# -- sizes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [("64MiB", 64 * 2**20), ("1GB", 10**9), ("1.5GiB", 3 * 2**29), ("20000000", 20_000_000), (20_000_000, 20_000_000)],
)
def test_a_size_is_written_with_a_unit_or_in_bytes(text: object, number: int) -> None:
    assert settings(ORDERS, polling={"memory": text}).polling.memory == number


@pytest.mark.parametrize("text", ["lots", "1 MB more", "-5MiB", True, 1.5, "1MiB", "1B", "2000GiB"])
def test_what_is_no_size_or_too_small_for_a_page_is_refused(text: object) -> None:
    assert "polling.memory" in refusals(ORDERS, polling={"memory": text})


def test_a_size_is_shown_with_the_greatest_unit_that_fits() -> None:
    assert settings(ORDERS).polling.model_dump()["memory"] == "256MiB"
    assert settings(ORDERS, polling={"memory": 2**30}).polling.model_dump()["memory"] == "1GiB"
    assert settings(ORDERS, polling={"memory": 2**30 + 1}).polling.model_dump()["memory"] == "1073741825B"
