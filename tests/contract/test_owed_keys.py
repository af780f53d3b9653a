"""The contract of owed keys, in memory and in a table."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.adapters.aws.clients import Place
from replicator.adapters.clock import SystemClock
from replicator.adapters.dynamodb.owed_keys import DynamoOwedKeys
from replicator.domain.errors import LeaseLost, TableMissing, WorldMismatch
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, ShardId, TableName
from replicator.domain.owed_keys import BodyState, OwedFor, OwedKey, OwedTo, Settlement, merged
from replicator.domain.records import Event, ItemKey
from replicator.domain.targets import replica_id
from replicator.domain.values import replace
from replicator.domain.versions import ordered_version
from replicator.laboratory.memory import MemoryOwedKeys, OpenFence
from replicator.ports.owed import OwedKeys
from tests.contract.worlds import Turnstile, create_table, fresh, place

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="module")]

OPEN = OpenFence()
EU, AP = (
    OwedTo(TableName("orders"), replica_id(RuleName("orders"), RegionId(region), TableName("orders")))
    for region in ("eu", "ap")
)
MISSED = replace(EU, owed_for=OwedFor.AWAY)
AWAY_TOO = replace(AP, owed_for=OwedFor.AWAY)
ITEM = b'{"pk":{"S":"k"},"n":{"N":"1.50"}}'


def version(number: int) -> str:
    return ordered_version(0, 1_700_000_000_000, number)


def owed(number: int = 5, name: str = "k\u00fc", to: OwedTo = EU, **other: Any) -> OwedKey:
    row = OwedKey(
        to=to,
        key=ItemKey((("pk", "S", name), ("sk", "N", "1"))),
        version=version(number),
        shard=ShardId("shard-1"),
        sequence=SequenceNumber(str(number)),
        event=Event.MODIFY,
        why="Item size has exceeded the maximum allowed size",
        changed_at=1_790_000_000.0,
        first=1_790_000_001.25 + number,
        last=1_790_000_001.25 + number,
        by="host.1",
        size=409_700,
    )
    return replace(row, **other)


def unread(number: int = 7) -> OwedKey:
    return owed(number, key=None, event=None, size=None, why="Record 7 has the unknown event 'X'.")


async def table_owed(opened: Place) -> DynamoOwedKeys:
    name = fresh("owed")
    await create_table(opened.dynamodb, name, {"pk": "S", "sk": "S"})
    return owed_keys(opened, name)


def owed_keys(opened: Place, name: str) -> DynamoOwedKeys:
    return DynamoOwedKeys(
        opened.dynamodb,
        table=name,
        group="test",
        region_id="us",
        body_ttl=timedelta(days=7),
        settled_ttl=timedelta(days=30),
        clock=SystemClock(),
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clients(dynamodb_url: str) -> AsyncIterator[Place]:
    """Clients at the local server: they cost more than all that is asked of them."""
    async with place(dynamodb_url) as opened:
        yield opened


@pytest_asyncio.fixture(params=["memory", "table"], loop_scope="module")
async def rows(request: pytest.FixtureRequest, clients: Place) -> OwedKeys:
    return MemoryOwedKeys() if request.param == "memory" else await table_owed(clients)


async def held(rows: OwedKeys, to: OwedTo = EU) -> list[OwedKey]:
    found: list[OwedKey] = []
    after: str | None = None
    while True:
        page = await rows.page(to, after)
        found += page.rows
        after = page.after
        if after is None:
            return sorted(found, key=lambda row: row.shown)


async def test_a_row_is_kept_as_it_is(rows: OwedKeys) -> None:
    assert await held(rows) == []
    stood = await rows.put(owed(), ITEM, OPEN)
    assert stood == replace(owed(), body=BodyState.STORED)
    assert await held(rows) == [stood]
    assert await rows.body(stood) == ITEM


async def test_a_record_that_cannot_be_read_is_a_row_too(rows: OwedKeys) -> None:
    stood = await rows.put(unread(), b"not \xff json", OPEN)
    assert stood == replace(unread(), body=BodyState.STORED)
    assert await rows.body(stood) == b"not \xff json"
    await rows.put(unread(8), b"another", OPEN)
    assert [row.shown for row in await held(rows)] == ["record 7 of shard shard-1", "record 8 of shard shard-1"]


async def test_a_removal_has_no_body(rows: OwedKeys) -> None:
    stood = await rows.put(owed(event=Event.REMOVE, size=None), None, OPEN)
    assert (stood.body, await rows.body(stood)) == (BodyState.NONE, None)


async def test_a_key_costs_one_row_and_the_greatest_version_stands(rows: OwedKeys) -> None:
    await rows.put(owed(5), ITEM, OPEN)
    newer = await rows.put(owed(9, why="another reason", by="host.2"), b'{"pk":{"S":"new"}}', OPEN)
    assert newer == replace(
        owed(9, why="another reason", by="host.2"), first=owed(5).first, tries=2, body=BodyState.STORED
    )
    older = await rows.put(owed(7), ITEM, OPEN)
    assert older == newer
    assert await held(rows) == [newer]
    assert await rows.body(newer) == b'{"pk":{"S":"new"}}'


async def test_the_same_version_again_is_one_more_try(rows: OwedKeys) -> None:
    await rows.put(owed(5), ITEM, OPEN)
    again = await rows.put(owed(5, last=1_790_000_099.0), ITEM, OPEN)
    assert (again.tries, again.first, again.last) == (2, owed(5).first, 1_790_000_099.0)


async def test_what_a_newer_version_lacks_is_not_left_from_the_older_one(rows: OwedKeys) -> None:
    await rows.put(owed(5), ITEM, OPEN)
    newer = await rows.put(owed(6, event=Event.REMOVE, size=None), None, OPEN)
    assert (newer.event, newer.size, newer.body) == (Event.REMOVE, None, BodyState.NONE)
    assert await rows.body(newer) is None, "the body of another version is none"


async def test_a_body_that_is_too_long_is_omitted(rows: OwedKeys) -> None:
    stood = await rows.put(owed(), os.urandom(310_000), OPEN)
    assert (stood.body, await rows.body(stood)) == (BodyState.OMITTED, None)
    long_but_simple = b'{"pk":{"S":"' + b"x" * 409_000 + b'"}}'
    stood = await rows.put(owed(6), long_but_simple, OPEN)
    assert (stood.body, await rows.body(stood)) == (BodyState.STORED, long_but_simple)


async def test_targets_and_tables_are_apart(rows: OwedKeys) -> None:
    other_table = OwedTo(TableName("others"), EU.target_id)
    for to in (EU, AP, other_table):
        await rows.put(owed(to=to), ITEM, OPEN)
    assert len({owed(to=to).row_id for to in (EU, AP, other_table)}) == 3
    assert [row.to for row in await held(rows, AP)] == [AP]
    assert await rows.settle(owed(to=AP), Settlement.APPLIED, "me", OPEN)
    assert (len(await held(rows, EU)), len(await held(rows, AP)), len(await held(rows, other_table))) == (1, 0, 1)


async def test_what_a_region_missed_is_apart_from_what_it_refused(rows: OwedKeys) -> None:
    await rows.put(owed(5), ITEM, OPEN)
    missed = await rows.put(owed(5, to=MISSED, replaced=("a rank",)), None, OPEN)
    assert await held(rows, MISSED) == [missed]
    assert await rows.find(MISSED, missed.row_id) == missed
    assert await rows.find(AP, missed.row_id) is None
    assert await rows.settle(owed(5), Settlement.APPLIED, "host.1", OPEN)
    assert (await held(rows), await held(rows, MISSED)) == ([], [missed])


async def test_what_was_brought_leaves_nothing_behind(rows: OwedKeys) -> None:
    missed = await rows.put(owed(5, to=MISSED), None, OPEN)
    await rows.put(owed(6, to=MISSED), None, OPEN)
    assert not await rows.settle(missed, Settlement.DELIVERED, "host.1", OPEN), "more became owed since it was read"
    assert await rows.settle(owed(6, to=MISSED), Settlement.DELIVERED, "host.1", OPEN)
    assert await held(rows, MISSED) == []
    if isinstance(rows, DynamoOwedKeys):
        assert await rows.settled(MISSED) == ([], None)


async def test_a_row_keeps_what_the_first_change_and_the_last_ones_replaced(rows: OwedKeys) -> None:
    for number in range(12):
        await rows.put(owed(number, to=MISSED, replaced=(f"image {number}",), left=f"image {number + 1}"), None, OPEN)
    (row,) = await held(rows, MISSED)
    assert row.replaced == ("image 0", *(f"image {number}" for number in range(11, 4, -1)))
    assert row.left == "image 12"
    moved = await rows.put(replace(row, to=AWAY_TOO), None, OPEN)
    assert (moved.replaced, moved.left) == (row.replaced, row.left)


@pytest.mark.parametrize("number", [5, 6])
async def test_a_row_is_settled_by_its_version_and_by_newer_ones(rows: OwedKeys, number: int) -> None:
    stood = await rows.put(owed(5), ITEM, OPEN)
    assert await rows.settle(owed(number), Settlement.APPLIED, "host.1", OPEN)
    assert await held(rows) == []
    assert await rows.body(stood) is None


async def test_a_row_is_not_settled_by_an_older_version(rows: OwedKeys) -> None:
    stood = await rows.put(owed(5), ITEM, OPEN)
    assert not await rows.settle(owed(4), Settlement.APPLIED, "host.1", OPEN)
    assert await held(rows) == [stood]
    assert await rows.body(stood) == ITEM


async def test_a_row_that_is_not_there_is_settled(rows: OwedKeys) -> None:
    assert await rows.settle(owed(), Settlement.APPLIED, "host.1", OPEN)


async def test_a_settled_key_may_be_owed_again(rows: OwedKeys) -> None:
    await rows.put(owed(5), ITEM, OPEN)
    await rows.settle(owed(6), Settlement.APPLIED, "host.1", OPEN)
    stood = await rows.put(owed(7), ITEM, OPEN)
    assert (stood.tries, stood.first) == (1, owed(7).first)


async def test_nothing_is_written_behind_a_fence_that_fell(rows: OwedKeys) -> None:
    fallen = Turnstile(LeaseLost("the lease is over"))
    with pytest.raises(LeaseLost):
        await rows.put(owed(), ITEM, fallen)
    assert await held(rows) == []
    stood = await rows.put(owed(), ITEM, OPEN)
    with pytest.raises(LeaseLost):
        await rows.settle(stood, Settlement.APPLIED, "host.1", fallen)
    assert await held(rows) == [stood]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.builds(
            owed,
            st.integers(1, 4),
            st.sampled_from("ab"),
            event=st.sampled_from(Event),
            to=st.sampled_from([EU, MISSED]),
            replaced=st.sampled_from([(), ("one",), ("two",)]),
            left=st.sampled_from([None, "", "one"]),
            size=st.sampled_from([None, 1]),
        ),
        max_size=6,
    )
)
async def test_a_table_merges_rows_as_the_domain_does(clients: Place, puts: list[OwedKey]) -> None:
    table = await table_owed(clients)
    expected: dict[tuple[OwedTo, str], OwedKey] = {}
    for row in puts:
        where = row.to, row.row_id
        expected[where] = merged(expected.get(where), row)
        assert await table.put(row, None, OPEN) == expected[where]
    for to in (EU, MISSED):
        rows = [row for (owner, _), row in expected.items() if owner == to]
        assert await held(table, to) == sorted(rows, key=lambda row: row.shown)


# -- the table ---------------------------------------------------------------------------------------------------------


async def test_rows_are_read_page_by_page_and_bodies_are_not_read_with_them(clients: Place) -> None:
    table = await table_owed(clients)
    names = [f"k{number:02d}" for number in range(13)]
    for name in names:
        await table.put(owed(name=name, why="x" * 90_000), os.urandom(250_000), OPEN)
    first = await table.page(EU)
    assert 5 < len(first.rows) < 13
    assert first.after is not None
    assert [row.key.parts[0][2] for row in await held(table) if row.key] == names


async def test_settled_rows_and_targets_are_kept_for_operators(clients: Place) -> None:
    table = await table_owed(clients)
    await table.put(owed(), ITEM, OPEN)
    await table.put(owed(to=AP), ITEM, OPEN)
    assert await table.targets() == [AP, EU]
    found = await table.find(EU, owed().row_id)
    assert found == replace(owed(), body=BodyState.STORED)
    await table.settle(owed(9), Settlement.DROPPED, "me", OPEN)
    assert await table.find(EU, owed().row_id) is None
    (settled,), after = await table.settled(EU)
    assert (settled.owed, settled.how, settled.by, after) == (found, Settlement.DROPPED, "me", None)


async def test_images_and_settled_rows_expire_and_open_rows_and_raw_records_do_not(clients: Place) -> None:
    table = await table_owed(clients)
    now = SystemClock().now()
    await table.put(owed(), ITEM, OPEN)
    await table.put(unread(), b"raw", OPEN)
    await table.put(owed(9, name="gone"), None, OPEN)
    await table.settle(owed(9, name="gone"), Settlement.APPLIED, "me", OPEN)
    stored = (await clients.dynamodb.scan(TableName=table._table))["Items"]
    days = {
        (row["sk"]["S"].partition("|")[0], row["v"]["S"]): (
            round((int(row["exp"]["N"]) - now) / 86_400) if "exp" in row else None
        )
        for row in stored
        if "v" in row
    }
    assert days == {
        ("key", version(5)): None,
        ("body", version(5)): 7,
        ("key", version(7)): None,
        ("body", version(7)): None,
        ("settled", version(9)): 30,
    }


async def test_a_missing_table_is_named_and_is_never_taken_for_a_refusal(clients: Place) -> None:
    nowhere = owed_keys(clients, "nowhere")
    with pytest.raises(TableMissing, match="owed table nowhere in us"):
        await nowhere.put(owed(), ITEM, OPEN)
    table = await table_owed(clients)
    with pytest.raises(WorldMismatch, match="owed table"):
        await table.put(owed(why="x" * 500_000), ITEM, OPEN)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("v", None), ("first", {"S": "x"}), ("tries", {"S": "1"}), ("event", {"S": "X"}), ("k", {"S": "{}"})],
)
async def test_a_corrupt_row_is_named_with_a_remedy(clients: Place, attribute: str, value: Any) -> None:
    table = await table_owed(clients)
    await table.put(owed(), None, OPEN)
    stored = (await clients.dynamodb.scan(TableName=table._table))["Items"]
    (row,) = [row for row in stored if row["sk"]["S"].startswith("key|")]
    changed = {name: typed for name, typed in row.items() if name != attribute}
    await clients.dynamodb.put_item(
        TableName=table._table, Item={**changed, **({} if value is None else {attribute: value})}
    )
    with pytest.raises(WorldMismatch, match=r"test\|orders\|orders/replica/eu:orders / key\|.* is corrupt") as told:
        await table.page(EU)
    assert told.value.advice.startswith("Delete the row")


async def test_a_row_of_a_newer_program_is_neither_read_nor_overwritten(clients: Place) -> None:
    table = await table_owed(clients)
    await table.put(owed(), None, OPEN)
    stored = (await clients.dynamodb.scan(TableName=table._table))["Items"]
    (row,) = [row for row in stored if row["sk"]["S"].startswith("key|")]
    await clients.dynamodb.put_item(TableName=table._table, Item={**row, "sv": {"N": "2"}})
    for call in (table.page(EU), table.put(owed(9), None, OPEN), table.settle(owed(9), Settlement.APPLIED, "me", OPEN)):
        with pytest.raises(WorldMismatch, match="newer replicator"):
            await call
