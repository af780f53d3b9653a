"""`replicator conflicts`, as a script or an operator meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from replicator.adapters.dynamodb.conflict_log import stored
from replicator.cli.conflicts import shortened
from replicator.domain.conflict_document import document
from replicator.domain.conflicts import ConflictEntry, ConflictKind, LogConflict, Reason, Witness
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, ShardId, TableName
from replicator.domain.image import Image
from replicator.domain.records import ItemKey
from replicator.domain.values import replace
from replicator.operations.conflict_entries import wanted_entries
from tests.cli.proxy import watched
from tests.cli.worlds import World

TABLE = "replicator-conflicts-test"
NOON = 1_790_000_000.0


def image(pk: str, **attributes: dict[str, Any]) -> Image:
    return Image(json.dumps({"pk": {"S": pk}, "sk": {"N": "1"}, **attributes}).encode())


def entry(
    pk: str = "a",
    *,
    number: int = 1,
    rule: str = "orders",
    mode: str = "ordered",
    kind: ConflictKind = ConflictKind.PUT_PUT,
    loser: Image | None = None,
) -> ConflictEntry:
    key = ItemKey((("pk", "S", pk), ("sk", "N", "1")))
    conflict = LogConflict(
        key=key,
        kind=kind,
        winner_version=f"{number}!P!w",
        winner=image(pk, note={"S": "won"}, ver={"N": "7"}),
        loser=loser or image(pk, note={"S": "lost"}, ver={"N": "3"}),
        reason=Reason.VERSION,
        loser_version=f"{number}!P!l",
        winner_region="us",
        loser_region="eu",
    )
    witness = Witness(RegionId("us"), ShardId("shard-1"), SequenceNumber("17"))
    return ConflictEntry(conflict, TableName("orders"), RuleName(rule), mode, witness, NOON + number)


def log(world: World, *entries: ConflictEntry, mask: frozenset[str] = frozenset(), bound: int = 390_000) -> None:
    for one in entries:
        row = stored(document(one, mask, bound))
        world.call("us", "PutItem", TableName=TABLE, Item={**row, "item": {"S": one.item}, "exp": {"N": "4102444800"}})


@pytest.fixture
def ordered(world: World) -> World:
    world.sound()
    return world


def conflicts(world: World, *arguments: str) -> list[dict[str, Any]]:
    answer = world.run("conflicts", "list", "--json", *arguments)
    assert answer.code == 0, answer.said
    found: list[dict[str, Any]] = answer.json["conflicts"]
    return found


# -- list, show, export --------------------------------------------------------------------------------------------


@pytest.mark.servers
def test_json_lists_every_entry_with_both_images_newest_first(ordered: World) -> None:
    entries = [entry(f"key {number}", number=number) for number in range(60)]
    log(ordered, *entries)
    found = conflicts(ordered)
    assert [one["id"] for one in found] == [one.id for one in reversed(entries)]
    assert found[0]["loser"] == {"pk": {"S": "key 59"}, "sk": {"N": "1"}, "note": {"S": "lost"}, "ver": {"N": "3"}}
    assert found[0]["winner"]["note"] == {"S": "won"}
    assert (found[0]["kind"], found[0]["reason"], found[0]["outcome"]) == ("put_put", "version", "overwritten")
    assert found[0]["witness_seq"] == "17"
    assert len(conflicts(ordered, "--limit", "7")) == 7


@pytest.mark.servers
def test_the_table_shows_the_newest_and_says_so(ordered: World) -> None:
    log(ordered, *(entry(f"key {number}", number=number) for number in range(60)))
    answer = ordered.run("conflicts", "list")
    assert len(answer.output.splitlines()) == 51
    assert "the newest 50 are shown" in answer.errors
    assert len(ordered.run("conflicts", "list", "--limit", "3").output.splitlines()) == 4
    assert "no conflict entry" in ordered.run("conflicts", "list", "--kind", "stale_create").errors


@pytest.mark.parametrize(
    ("left", "right", "shown"),
    [
        ("7!P!ab", "6!P!ab", ("7!P!ab", "6!P!ab")),
        (
            "1795429782000000.000000.us.17954297456660000000000000000017954297827110000000001",
            "1795429782000000.000000.eu.17954297474180000000000000000017954297827300000000002",
            ("…us.17954297456660000000000…", "…eu.17954297474180000000000…"),
        ),
        (
            "1795429782000000.000000.us.17954297456660000000000000000017954297827110000000001",
            "1795429783000000.000000.us.17954297456660000000000000000017954297827110000000001",
            ("1795429782000000.000000.us.…", "1795429783000000.000000.us.…"),
        ),
        (f"{7:056d}", f"{8:056d}", (f"…{7:027d}", f"…{8:027d}")),
        (f"{7:056d}", "no version", (f"{0:027d}…", "no version")),
    ],
)
def test_long_versions_are_cut_to_where_they_differ(left: str, right: str, shown: tuple[str, str]) -> None:
    assert shortened(left, right) == shown


@pytest.mark.servers
def test_entries_are_found_by_rule_key_kind_and_time(ordered: World) -> None:
    first, second, third = (
        entry("a", number=1),
        entry("b", number=2, kind=ConflictKind.DELETE_PUT),
        entry("a", number=3, rule="other"),
    )
    log(ordered, first, second, third)
    since = "2026-09-21T14:13:22Z"
    key = '{"pk": "a", "sk": 1}'
    found = {
        filters: [one["id"] for one in conflicts(ordered, *filters)]
        for filters in [
            ("--rule", "orders"),
            ("--rule", "orders", "--kind", "delete_put"),
            ("--rule", "orders", "--since", since),
            ("--since", since),
            ("--key", key),
            ("--key", key, "--rule", "orders"),
            ("--key", key, "--since", since, "--limit", "1"),
        ]
    }
    assert list(found.values()) == [
        [second.id, first.id],
        [second.id],
        [second.id],
        [third.id, second.id],
        [third.id, first.id],
        [first.id],
        [third.id],
    ]
    assert conflicts(ordered, "--since", "1h") == []


@pytest.mark.parametrize("kind", ConflictKind)
def test_every_kind_that_an_entry_can_have_can_be_asked_for(kind: ConflictKind) -> None:
    wanted = wanted_entries(rule=None, key=None, kind=kind.value, since=None, limit=None)
    assert [wanted.matches({"kind": other.value}) for other in ConflictKind] == [
        other is kind for other in ConflictKind
    ]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["--kind", "put"], "put_put"), (["--since", "yesterday"], "2026"), (["--limit", "0"], "--limit")],
)
def test_a_filter_that_cannot_be_is_refused(arguments: list[str], word: str, tmp_path: Path) -> None:
    world = World("http://localhost:1", "redis://localhost:1", "1" * 12, tmp_path)
    answer = world.run("conflicts", "list", *arguments)
    assert answer.code == 2
    assert word in answer.errors


@pytest.mark.servers
def test_one_entry_is_shown_by_a_part_of_its_id(ordered: World) -> None:
    log(ordered, entry("a"), entry("b"))
    wanted = entry("a").id
    assert ordered.run("conflicts", "show", wanted[:10], "--json").json["id"] == wanted
    assert ordered.run("conflicts", "show", wanted, "--json").json["key"] == {"pk": {"S": "a"}, "sk": {"N": "1"}}
    shown = ordered.run("conflicts", "show", wanted).output
    assert 'note\t{"S": "won"}\t{"S": "lost"}' in shown
    for unknown in ("0" * 64, "0000", "xyz!"):
        assert ordered.run("conflicts", "show", unknown).code == 2


@pytest.mark.servers
def test_export_writes_json_lines(ordered: World) -> None:
    log(ordered, entry("a", number=1), entry("b", number=2))
    lines = ordered.run("conflicts", "export").output.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [entry("b", number=2).id, entry("a", number=1).id]
    file = ordered.directory / "out.jsonl"
    assert "2 conflicts" in ordered.run("conflicts", "export", "--output", str(file)).errors
    assert file.read_text().splitlines() == lines
    assert len(ordered.run("conflicts", "export", "--json").json["conflicts"]) == 2
    assert ordered.run("conflicts", "export", "-o", str(ordered.directory / "no" / "out")).code == 2


# -- promote -------------------------------------------------------------------------------------------------------


def promote(world: World, one: ConflictEntry, *arguments: str) -> Any:
    answer = world.run("conflicts", "promote", one.id[:16], "--yes", "--json", *arguments)
    assert answer.code == 0, answer.said
    return answer.json


def held(world: World, region: str) -> list[dict[str, Any]]:
    return world.items(region, "orders")


@pytest.mark.servers
def test_a_loser_is_written_again(ordered: World) -> None:
    one = entry(loser=image("a", note={"S": "lost"}, _rep={"S": "0" * 56}))
    log(ordered, one)
    told = promote(ordered, one)
    assert (told["region"], told["before"]) == ("us", None)
    assert held(ordered, "us") == [{"pk": {"S": "a"}, "sk": {"N": "1"}, "note": {"S": "lost"}}]
    assert held(ordered, "eu") == []
    refused = ordered.run("conflicts", "promote", one.id, "--yes", "--region", "eu")
    assert refused.code == 2
    assert "do not write in region eu" in refused.errors


@pytest.mark.servers
def test_entries_of_a_rule_that_was_renamed_are_found_by_its_new_name(ordered: World) -> None:
    old, other = entry(rule="before"), entry("b", rule="other", number=2)
    log(ordered, old, other)
    former: dict[str, Any] = {
        "pk": {"S": "test|rules"},
        "sk": {"S": "orders"},
        "sv": {"N": "1"},
        "formerly": {"SS": ["before"]},
    }
    ordered.put("us", "replicator-coordination", **former)
    assert [one["id"] for one in conflicts(ordered, "--rule", "orders")] == [old.id]
    key = json.dumps({"pk": "a", "sk": 1})
    assert [one["id"] for one in conflicts(ordered, "--rule", "orders", "--key", key)] == [old.id]
    assert promote(ordered, old)["region"] == "us"
    assert "which is not configured" in ordered.run("conflicts", "promote", other.id, "--yes").errors


SHOWN: dict[str, Any] = {
    "pk": {"S": "a"},
    "sk": {"N": "1"},
    "note": {"S": "won"},
    "tags": {"SS": ["b", "a"]},
    "map": {"M": {}},
}


@pytest.mark.servers
def test_an_attribute_that_was_not_shown_is_named_when_it_is_written_over(ordered: World) -> None:
    one = entry()
    log(ordered, one)
    ordered.put("us", "orders", **SHOWN)

    def interfere(passing: str) -> None:
        if passing == "PutItem":
            ordered.put("us", "orders", **SHOWN, surprise={"S": "!"})

    with watched(ordered.endpoint_url, interfere) as url:
        ordered.config["regions"]["us"]["endpoint_url"] = url
        answer = ordered.run("conflicts", "promote", one.id, "--yes")
    assert answer.code == 0
    told = "meanwhile the item had got other values of surprise, which were not shown and are gone now"
    assert told in answer.errors


@pytest.mark.servers
def test_nothing_is_written_without_consent(ordered: World) -> None:
    one = entry()
    log(ordered, one, replace(entry("b"), rule=RuleName("gone")))
    for arguments in ([], ["--json"]):
        refused = ordered.run("conflicts", "promote", one.id, *arguments)
        assert refused.code == 2
        assert "--yes" in refused.said
    gone = ordered.run("conflicts", "promote", entry("b").id, "--yes")
    assert "not configured" in gone.errors
    shown = ordered.run("conflicts", "promote", one.id, "--yes")
    assert 'note\t\t{"S": "lost"}' in shown.output
