"""What operators do with parked rows, on real tables: look, try again, give up, hand on to another name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from replicator.adapters.aws.clients import Place, open_place
from replicator.adapters.clock import SystemClock
from replicator.adapters.dynamodb.conflict_log import shown
from replicator.adapters.dynamodb.owed_keys import owed_keys
from replicator.checks.creation import initialise
from replicator.domain.errors import TableMissing, Unreachable
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, ShardId, TableName
from replicator.domain.owed_keys import OwedKey, OwedTo, Settlement, row_id
from replicator.domain.records import Event, ItemKey
from replicator.domain.targets import TargetId, replica_id
from replicator.domain.values import replace
from replicator.domain.versions import ordered_version
from replicator.operations import parked, parked_rows, rules
from replicator.operations.errors import RequestRefused
from replicator.operations.group import Group
from replicator.operations.inspect import inspect
from replicator.operations.parked_status import summed_up
from replicator.ports.targets import OPEN
from replicator.settings import Region as RegionSettings
from replicator.settings import Settings
from tests.contract.worlds import PATIENT, create_table, fresh

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="module")]

ENDPOINTS = {"us": "us-east-1", "eu": "eu-west-1"}
LARGE = 409_600


def version(number: int) -> str:
    return ordered_version(0, 1_700_000_000_000, number)


def item(name: str, value: str = "a") -> dict[str, Any]:
    return {"pk": {"S": name}, "value": {"S": value}}


class Bench:
    """A group with its tables, a source and a replica."""

    def __init__(self, settings: Settings, places: Mapping[str, Place]) -> None:
        self.settings, self.places = settings, places
        self.group = Group(settings, places, lambda _: None)
        self.rows = owed_keys(places["us"], settings, SystemClock())
        self.table = TableName(settings.rules[0].table_name)
        self.to = OwedTo(self.table, self.target())

    def target(self, rule: str = "orders", table: str | None = None) -> TargetId:
        return replica_id(RuleName(rule), RegionId("eu"), TableName(table or self.table))

    async def owe(self, number: int = 5, name: str = "k", value: str | None = "a", **other: Any) -> OwedKey:
        """Let a change be refused; without a value it is one whose image is too long to be kept."""
        now = SystemClock().now()
        row = OwedKey(
            to=self.to,
            key=ItemKey((("pk", "S", name),)),
            version=version(number),
            shard=ShardId("shard-1"),
            sequence=SequenceNumber(str(number)),
            event=Event.MODIFY,
            why="it is too large",
            changed_at=now - 60,
            first=now,
            last=now,
            by="worker",
            size=409_700,
        )
        body = None if value is None else f'{{"pk":{{"S":"{name}"}},"value":{{"S":"{value}"}}}}'.encode()
        return await self.rows.put(replace(row, **other), body, OPEN)

    async def put(self, region: str, content: dict[str, Any]) -> None:
        await self.places[region].dynamodb.put_item(TableName=self.table, Item=content)

    async def replica(self, name: str = "k") -> dict[str, Any]:
        answer = await self.places["eu"].dynamodb.get_item(TableName=self.table, Key={"pk": {"S": name}})
        return dict(answer.get("Item", {}))

    async def conflicts(self) -> list[dict[str, Any]]:
        rows = (await self.places["us"].dynamodb.scan(TableName=self.settings.conflict_table_name))["Items"]
        return [shown(row) for row in rows]

    async def found(self, row: OwedKey) -> parked_rows.Parked:
        return await parked_rows.parked_named(self.group, row.row_id[:8])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def places(dynamodb_url: str) -> AsyncIterator[dict[str, Place]]:
    """Clients of both regions: they cost more than all that is asked of them."""
    async with AsyncExitStack() as stack:
        opened = {}
        for name, region in ENDPOINTS.items():
            where = RegionSettings.model_validate({"region": region, "endpoint_url": dynamodb_url})
            opened[name] = await stack.enter_async_context(open_place(name, where, PATIENT, connections=8))
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def bench(places: dict[str, Place], dynamodb_url: str) -> Bench:
    """Tables of this test's own."""
    group, orders = fresh("parked"), fresh("orders")
    settings = Settings.model_validate(
        {
            "group": group,
            "regions": {name: {"region": region, "endpoint_url": dynamodb_url} for name, region in ENDPOINTS.items()},
            "coordination": {"region": "us", "table": f"{group}-rows", "lease": "1s", "heartbeat": "300ms"},
            "rules": [{"name": "orders", "table": orders, "source": "us", "replicas": ["eu"]}],
        }
    )
    for name, place in places.items():
        await create_table(place.dynamodb, orders, {"pk": "S"}, stream=name == "us")
    steps = await initialise(settings, places, dry_run=False, enable_streams=False)
    assert all(step.error is None for step in steps)
    return Bench(settings, places)


# -- looking -----------------------------------------------------------------------------------------------------------


async def test_rows_are_listed_oldest_first_and_found_by_a_part_of_their_id(bench: Bench) -> None:
    assert await parked_rows.list_parked(bench.group) == []
    newer = await bench.owe(6, "b")
    older = await bench.owe(5, "a", first=newer.first - 100, event=Event.REMOVE, value=None, size=None)
    record = await bench.owe(7, key=None, event=None, size=None, first=newer.first + 100)
    listed = await parked_rows.list_parked(bench.group)
    assert [(row.shown, row.change, row.tries) for row in listed] == [
        ("pk=a", "remove", 1), ("pk=b", "put", 1), ("record 7 of shard shard-1", "record", 1),
    ]  # fmt: skip
    assert (listed[1].key, listed[1].region, listed[1].table) == ({"pk": {"S": "b"}}, "us", bench.table)
    assert await parked_rows.list_parked(bench.group, "other") == []
    assert (await bench.found(older)).owed == older
    assert await parked_rows.kept_body(bench.group, await bench.found(record)) is not None
    (told,) = summed_up(await parked_rows.open_rows(bench.group), now=newer.first + 200)
    assert (told.target, told.table, told.keys, told.records, told.oldest_seconds) == (
        bench.to.target_id,
        bench.table,
        2,
        1,
        300.0,
    )
    for unknown in ("000", "zzzz", ""):
        with pytest.raises(RequestRefused, match="no parked key"):
            await parked_rows.parked_named(bench.group, unknown)


async def test_a_table_that_is_missing_is_named_where_a_rule_parks(bench: Bench) -> None:
    settings = bench.settings.model_copy(update={"owed_table": "nowhere"})
    with pytest.raises(TableMissing, match="owed table nowhere in us"):
        await parked_rows.list_parked(Group(settings, bench.places, lambda _: None))
    stops = settings.rules[0].model_copy(update={"refused": "stop"})
    settings = settings.model_copy(update={"rules": [stops]})
    assert await parked_rows.list_parked(Group(settings, bench.places, lambda _: None)) == []


async def test_a_region_that_is_away_hides_no_other_regions_rows(bench: Bench) -> None:
    row = await bench.owe()
    nowhere = RegionSettings.model_validate({"region": "eu-west-1", "endpoint_url": "http://127.0.0.1:9"})
    back = {"name": "back", "table": "other", "source": "eu", "replicas": [{"region": "us", "table": "copy"}]}
    settings = Settings.model_validate(
        {**bench.settings.model_dump(mode="json", exclude_defaults=True), "rules": [
            {"name": "orders", "table": bench.table, "source": "us", "replicas": ["eu"]}, back,
        ]}
    )  # fmt: skip
    async with open_place("eu", nowhere, PATIENT, connections=2) as away:
        group = Group(settings, {**bench.places, "eu": away}, lambda _: None)
        silent: parked_rows.Silent = {}
        listed = await parked_rows.list_parked(group, everything=True, silent=silent)
        assert [each.row for each in listed if each.is_open] == [row.row_id[:12]]
        assert [(region, "replicator-owed" in error.message) for region, error in silent.items()] == [("eu", True)]
        assert (await parked_rows.parked_named(group, row.row_id[:8])).owed == row
        for attempt in (parked_rows.parked_named(group, "000000"), parked_rows.list_parked(group)):
            with pytest.raises(Unreachable):
                await attempt


async def test_an_inspected_item_shows_what_is_parked(bench: Bench) -> None:
    await bench.put("us", item("k"))
    await bench.owe(5)
    found = await inspect(bench.settings, bench.settings.rules[0], "k")
    (sight,) = [place for place in found.places if place.role == "parked"]
    assert (sight.region, sight.name, sight.state, sight.version) == (
        "eu", bench.settings.owed_table_name, "refused 1 time", version(5),
    )  # fmt: skip
    assert "parked" not in {place.role for place in (await inspect(bench.settings, found.rule, "other")).places}


# -- trying again ------------------------------------------------------------------------------------------------------


async def test_a_kept_change_is_brought_under_its_own_version(bench: Bench) -> None:
    row = await bench.owe(5)
    (tried,) = await parked.retry(bench.group, [await bench.found(row)], by="me")
    assert (tried.settled, tried.why) == (Settlement.RETRIED, "")
    assert await bench.replica() == {**item("k"), "_rep": {"S": version(5)}}
    assert await parked_rows.open_rows(bench.group) == []
    (settled,) = await parked_rows.list_parked(bench.group, everything=True)
    assert (settled.settled, settled.settled_by, settled.is_open) == (Settlement.RETRIED, "me", False)


async def test_a_change_that_is_not_kept_is_read_at_the_source(bench: Bench) -> None:
    row = await bench.owe(5, value=None)
    await bench.put("us", item("k", "newer"))
    (tried,) = await parked.retry(bench.group, [await bench.found(row)], by="me")
    assert tried.settled is Settlement.RETRIED
    assert await bench.replica() == {**item("k", "newer"), "_rep": {"S": version(5)}}


async def test_what_the_source_no_longer_holds_is_owed_no_more(bench: Bench) -> None:
    row = await bench.owe(5, value=None)
    (tried,) = await parked.retry(bench.group, [await bench.found(row)], by="me")
    assert (tried.settled, await bench.replica()) == (Settlement.ABSENT, {})


async def test_a_newer_item_is_left_alone_and_settles_the_row(bench: Bench) -> None:
    row = await bench.owe(5)
    newer = {**item("k", "newer"), "_rep": {"S": version(9)}}
    await bench.put("eu", newer)
    (tried,) = await parked.retry(bench.group, [await bench.found(row)], by="me")
    assert (tried.settled, await bench.replica()) == (Settlement.RETRIED, newer)


async def test_a_removal_is_made_and_leaves_its_tombstone(bench: Bench) -> None:
    row = await bench.owe(5, value=None, event=Event.REMOVE)
    await bench.put("eu", {**item("k"), "_rep": {"S": version(4)}})
    (tried,) = await parked.retry(bench.group, [await bench.found(row)], by="me")
    assert (tried.settled, await bench.replica()) == (Settlement.RETRIED, {})
    (side,) = (await bench.places["eu"].dynamodb.scan(TableName=bench.settings.side_table_name))["Items"]
    assert side["v"] == {"S": version(5)}


async def test_what_is_refused_again_stays_and_keeps_no_other_from_being_tried(bench: Bench) -> None:
    stays, goes = await bench.owe(5, "big", "x" * LARGE), await bench.owe(6, "k")
    await bench.put("us", item("big", "x" * (LARGE - 15)))
    rows = [await bench.found(row) for row in (stays, goes)]
    tried = await parked.retry(bench.group, rows, by="me")
    assert [each.settled for each in tried] == [None, Settlement.RETRIED]
    assert "no table takes more than 409600" in tried[0].why
    assert [each.owed for each in await parked_rows.open_rows(bench.group)] == [stays]


async def test_what_is_refused_as_it_was_kept_may_fit_as_the_source_holds_it_by_now(bench: Bench) -> None:
    corrected, gone = await bench.owe(5, "k", "x" * LARGE), await bench.owe(6, "gone", "x" * LARGE)
    await bench.put("us", item("k", "short"))
    rows = [await bench.found(row) for row in (corrected, gone)]
    tried = await parked.retry(bench.group, rows, by="me")
    assert [each.settled for each in tried] == [Settlement.RETRIED, Settlement.ABSENT]
    assert await bench.replica() == {**item("k", "short"), "_rep": {"S": version(5)}}


async def test_a_row_that_changed_meanwhile_is_not_settled(bench: Bench) -> None:
    seen = await bench.found(await bench.owe(5))
    await bench.owe(7, value="newest")
    (tried,) = await parked.retry(bench.group, [seen], by="me")
    assert (tried.settled, tried.why) == (None, "It was meanwhile refused again with a newer version.")
    (left,) = await parked_rows.open_rows(bench.group)
    assert left.owed.version == version(7)


async def test_a_record_that_can_be_read_by_now_is_applied_and_another_stays(bench: Bench) -> None:
    change = b'{"SequenceNumber":"7","Keys":{"pk":{"S":"k"}},"NewImage":{"pk":{"S":"k"}}}'
    good = b'{"eventName":"INSERT","dynamodb":%b}' % change
    readable = await bench.owe(7, value=None, key=None, event=None, size=None)
    readable = await bench.rows.put(readable, good, OPEN)
    unknown = await bench.rows.put(
        replace(readable, sequence=SequenceNumber("8"), version=version(8)),
        good.replace(b"INSERT", b"UPSERT").replace(b'"7"', b'"8"'),
        OPEN,
    )
    tried = await parked.retry(bench.group, [await bench.found(row) for row in (readable, unknown)], by="me")
    assert [each.settled for each in tried] == [Settlement.RETRIED, None]
    assert tried[1].why == "Record 8 has the unknown event 'UPSERT'."
    assert await bench.replica() == {"pk": {"S": "k"}, "_rep": {"S": version(7)}}


async def test_a_row_of_a_target_that_is_not_configured_stays_and_says_so(bench: Bench) -> None:
    row = await bench.owe(5, to=OwedTo(bench.table, bench.target("orders", "elsewhere")))
    (tried,) = await parked.retry(bench.group, [await bench.found(row)], by="me")
    assert tried.settled is None
    assert "is not configured any more" in tried.why


# -- giving up ---------------------------------------------------------------------------------------------------------


async def test_what_is_dropped_stands_in_the_conflict_log(bench: Bench) -> None:
    row = await bench.owe(5, value="refused")
    await bench.put("eu", {**item("k", "older"), "_rep": {"S": version(4)}})
    dropped = await parked.drop(bench.group, await bench.found(row), by="me")
    assert (dropped.settled, dropped.settled_by) == (Settlement.DROPPED, "me")
    assert await parked_rows.open_rows(bench.group) == []
    (entry,) = await bench.conflicts()
    assert (entry["kind"], entry["outcome"], entry["rule"], entry["key"]) == (
        "dropped", "given_up", "orders", {"pk": {"S": "k"}},
    )  # fmt: skip
    assert (entry["winner"], entry["winner_version"]) == (item("k", "older"), version(4))
    assert (entry["loser"], entry["loser_version"]) == (item("k", "refused"), version(5))


async def test_a_record_that_cannot_be_read_is_dropped_under_its_place(bench: Bench) -> None:
    row = await bench.owe(7, key=None, event=None, size=None)
    await parked.drop(bench.group, await bench.found(row), by="me")
    (entry,) = await bench.conflicts()
    assert entry["key"] == {"sequence": {"S": "7"}, "shard": {"S": "shard-1"}}


async def test_a_row_that_changed_meanwhile_is_not_dropped(bench: Bench) -> None:
    seen = await bench.found(await bench.owe(5))
    await bench.owe(7)
    with pytest.raises(RequestRefused, match="meanwhile refused again with a newer version"):
        await parked.drop(bench.group, seen, by="me")
    assert len(await parked_rows.open_rows(bench.group)) == 1


# -- names -------------------------------------------------------------------------------------------------------------


async def test_what_a_rule_is_owed_goes_with_its_name(bench: Bench) -> None:
    row = await bench.owe(5, to=OwedTo(bench.table, bench.target("before")), tries=3)
    assert await rules.rename(bench.group, RuleName("before"), RuleName("orders")) == 1
    (moved,) = await parked_rows.open_rows(bench.group)
    assert moved.owed == replace(row, to=bench.to)
    assert await parked_rows.kept_body(bench.group, moved) is not None
    assert moved.owed.row_id == row_id(bench.to, ItemKey((("pk", "S", "k"),)))
    assert await bench.rows.targets() == [bench.to]


async def test_what_a_forgotten_rule_is_owed_is_forgotten(bench: Bench) -> None:
    await bench.owe(5, to=OwedTo(bench.table, bench.target("before")))
    assert await rules.forget(bench.group, RuleName("before")) == 1
    assert (await parked_rows.open_rows(bench.group), await bench.rows.targets()) == ([], [])
