"""The contract of what caches are owed, in memory and in a table."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from replicator.adapters.dynamodb.cache_debt import DynamoCacheDebt
from replicator.domain.cache_debt import OwedEntry, OwedFlush
from replicator.domain.errors import TableMissing, WorldMismatch
from replicator.laboratory.memory import MemoryCacheDebt
from replicator.ports.cache_debt import CacheDebtRows
from tests.contract.worlds import create_table, fresh, place

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="module")]


def entry(number: int, token: str = "t1") -> OwedEntry:
    return OwedEntry(f"order:{{ü}}:{number}", token, 1_790_000_000.25 + number)


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["memory", "table"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, object]]:
    if request.param == "memory":
        yield "", None
        return
    async with place(request.getfixturevalue("dynamodb_url")) as opened:
        name = fresh("owed")
        await create_table(opened.dynamodb, name, {"pk": "S", "sk": "S"})
        yield name, opened.dynamodb


@pytest.fixture
def rows(world: tuple[str, object]) -> CacheDebtRows:
    table, client = world
    if client is None:
        return MemoryCacheDebt()
    return DynamoCacheDebt(client, table=table, group="test", region_id="eu", cache=fresh("cache"))  # type: ignore[arg-type]


async def every(rows: CacheDebtRows) -> set[OwedEntry]:
    found: set[OwedEntry] = set()
    after: str | None = None
    while True:
        page = await rows.page(after)
        found.update(page.entries)
        after = page.after
        if after is None:
            return found


async def test_entries_are_kept_and_read_as_they_were_written(rows: CacheDebtRows) -> None:
    entries = [entry(number) for number in range(60)]
    await rows.put(entries)
    assert await every(rows) == set(entries)


async def test_an_entry_is_one_row_however_often_it_becomes_owed(rows: CacheDebtRows) -> None:
    await rows.put([entry(1)])
    await rows.put([entry(1, "t2"), entry(2, "t2")])
    assert await every(rows) == {entry(1, "t2"), entry(2, "t2")}


async def test_a_row_goes_only_while_it_bears_the_token_that_was_read(rows: CacheDebtRows) -> None:
    await rows.put([entry(number) for number in range(40)])
    await rows.put([entry(1, "t2")])
    await rows.settle([entry(number) for number in range(40)])
    assert await every(rows) == {entry(1, "t2")}
    await rows.settle([entry(1, "t2"), entry(5)])
    assert await every(rows) == set()


async def test_a_flush_goes_only_as_it_was_read_and_is_no_entry(rows: CacheDebtRows) -> None:
    assert await rows.flush() is None
    await rows.put_flush(OwedFlush("t1", 5.0))
    await rows.put_flush(OwedFlush("t2", 5.0))
    await rows.settle_flush(OwedFlush("t1", 5.0))
    assert await rows.flush() == OwedFlush("t2", 5.0)
    assert await every(rows) == set()
    await rows.settle_flush(OwedFlush("t2", 5.0))
    assert await rows.flush() is None


async def test_a_table_that_is_missing_is_named(dynamodb_url: str) -> None:
    async with place(dynamodb_url) as opened:
        rows = DynamoCacheDebt(opened.dynamodb, table="none", group="test", region_id="eu", cache="main")
        for call in (rows.put([entry(1)]), rows.page(), rows.flush(), rows.settle([entry(1)])):
            with pytest.raises(TableMissing, match="owed table none in eu"):
                await call


async def test_a_row_that_is_corrupt_or_newer_is_named(dynamodb_url: str) -> None:
    async with place(dynamodb_url) as opened:
        name = fresh("owed")
        await create_table(opened.dynamodb, name, {"pk": "S", "sk": "S"})
        rows = DynamoCacheDebt(opened.dynamodb, table=name, group="test", region_id="eu", cache="main")
        await rows.put([entry(1)])
        key = {"pk": {"S": "test|cache|main"}, "sk": {"S": f"debt|{entry(1).row_id}"}}
        await opened.dynamodb.put_item(TableName=name, Item={**key, "sv": {"N": "1"}, "k": {"S": "order:1"}})
        with pytest.raises(WorldMismatch, match="attribute t is missing"):
            await rows.page()
        await opened.dynamodb.put_item(TableName=name, Item={**key, "sv": {"N": "2"}})
        with pytest.raises(WorldMismatch, match="newer replicator"):
            await rows.page()
