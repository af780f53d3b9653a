"""Which tables are taken in and left, look after look, on a server; time is the number of looks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from replicator.adapters.aws.clients import ClientTimes, Place, open_place
from replicator.adapters.clock import SystemClock
from replicator.adapters.dynamodb.coordination import CoordinationTable, DynamoCoordination, DynamoRegistry, KnownTables
from replicator.adapters.dynamodb.streams import DynamoStreams
from replicator.adapters.dynamodb.table_claims import SideTableClaims
from replicator.app.rule_preflight import Premises
from replicator.app.table_discovery import TableWatch
from replicator.app.table_identities import TableIdentities
from replicator.checks.creation import initialise
from replicator.checks.survey import preflight
from replicator.checks.table_choices import TableFinder
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.rules import Target
from replicator.engine.ownership.target_succession import TargetSuccession
from replicator.observability.metrics import Metrics
from replicator.observability.observer import LiveObserver
from replicator.observability.status_board import Board
from replicator.settings import Region, Settings
from replicator.settings.compiled_rules import rules_of
from tests.contract.test_table_finder import configured, create, opened

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("account")]


class Bench:
    """A watch over a world, its premises, and what it told."""

    def __init__(self, settings: Settings, places: dict[str, Place], watch: TableWatch, board: Board) -> None:
        self.settings = settings
        self.places = places
        self.watch = watch
        self.board = board

    @property
    def tables(self) -> list[str]:
        return [str(rule.table) for rule in rules_of(self.watch.settings)]

    @property
    def left_out(self) -> dict[str, str]:
        return {table: reason for choice in self.watch.choices for table, (reason, _) in choice.left_out.items()}

    async def pair(self, name: str) -> None:
        await create(self.places["us"], name)
        await create(self.places["eu"], name, stream=False)

    def registry(self) -> DynamoRegistry:
        return DynamoRegistry(_rows(self.settings, self.places))


def _rows(settings: Settings, places: dict[str, Place]) -> CoordinationTable:
    where = settings.coordination
    return CoordinationTable(
        places[where.region].dynamodb, table=where.table, group=settings.group, region_id=where.region
    )


@asynccontextmanager
async def watching(settings: Settings, *tables: str) -> AsyncIterator[Bench]:
    """A watch behind a start that found these tables."""
    async with opened(settings) as places:
        for name in tables:
            await create(places["us"], name)
            await create(places["eu"], name, stream=False)
        await initialise(settings, places, dry_run=False, enable_streams=False)
        clock = SystemClock()
        finder = TableFinder(settings, places)
        board = Board("test", [], clock)
        rows = _rows(settings, places)
        registry, coordination = DynamoRegistry(rows), DynamoCoordination(rows)
        claims = SideTableClaims(lambda region: places[region].dynamodb, settings.side_table_name)
        observer = LiveObserver(board, Metrics(), clock)
        succession = TargetSuccession(coordination, registry, claims, observer)
        premises = Premises(
            settings, places, {}, registry, succession, clock, finder, TableIdentities(KnownTables(rows), rows.clock)
        )
        survey = await preflight(settings, places, {}, finder)
        watch = TableWatch(premises, survey, observer)
        yield Bench(settings, places, watch, board)


async def test_a_table_is_taken_in_once_nothing_is_wrong_with_it(dynamodb_url: str) -> None:
    async with watching(configured(dynamodb_url, "orders-*"), "orders-1") as bench:
        assert bench.tables == ["orders-1"]
        await create(bench.places["us"], "orders-2")
        await create(bench.places["us"], "orders-3", stream=False)
        with capture_logs() as told:
            await bench.watch.look()
            await bench.watch.look()
        assert bench.tables == ["orders-1"]
        assert bench.left_out == {
            "orders-2": "Table orders-2 in eu does not exist.",
            "orders-3": "Table orders-3 in us, the source of rule orders, has no stream.",
        }
        assert [line["table"] for line in told if line["event"] == "table_left_out"] == ["orders-2", "orders-3"]
        await create(bench.places["eu"], "orders-2", stream=False)
        await bench.watch.look()
        assert bench.tables == ["orders-1", "orders-2"]
        assert list(bench.left_out) == ["orders-3"]


async def test_a_table_is_left_when_two_looks_in_a_row_do_not_find_it(dynamodb_url: str) -> None:
    async with watching(configured(dynamodb_url, "orders-*"), "orders-1", "orders-2") as bench:
        dynamodb = bench.places["us"].dynamodb
        await dynamodb.delete_table(TableName="orders-1")
        await bench.watch.look()
        assert bench.tables == ["orders-1", "orders-2"]
        await create(bench.places["us"], "orders-1")
        await bench.watch.look()
        await dynamodb.delete_table(TableName="orders-1")
        await bench.watch.look()
        assert bench.tables == ["orders-1", "orders-2"]
        with capture_logs() as told:
            await bench.watch.look()
        assert bench.tables == ["orders-2"]
        assert [(line["event"], line["table"]) for line in told] == [("table_left", "orders-1")]


async def test_tables_stay_while_nobody_answers_who_knows_them(dynamodb_url: str) -> None:
    async with watching(configured(dynamodb_url, "orders-*"), "orders-1") as bench, AsyncExitStack() as stack:
        away = Region.model_validate({"region": "us-east-1", "endpoint_url": "http://127.0.0.1:9"})
        there = bench.places["us"]
        bench.places["us"] = await stack.enter_async_context(open_place("us", away, ClientTimes(), connections=2))
        for _ in range(3):
            await bench.watch.look()
        assert bench.tables == ["orders-1"]
        assert [service.shown for service in bench.board.services] == ["tables of rule orders"]
        bench.places["us"] = there
        await bench.watch.look()
        assert bench.tables == ["orders-1"]
        assert list(bench.board.services) == []


async def test_a_table_that_would_be_written_twice_is_left_to_the_rule_that_was_there_first(dynamodb_url: str) -> None:
    second: dict[str, Any] = {"name": "second", "table": "*-2", "source": "us", "replicas": ["eu"]}
    async with watching(configured(dynamodb_url, "orders-*", second), "orders-1") as bench:
        await bench.pair("orders-2")
        await bench.watch.look()
        assert [(rule.name, rule.table) for rule in rules_of(bench.watch.settings)] == [
            ("orders", "orders-1"),
            ("orders", "orders-2"),
        ]
        assert "is already written by rule 'orders'" in bench.left_out["orders-2"]


async def test_a_table_whose_progress_is_another_rules_is_left_out_until_somebody_decides(dynamodb_url: str) -> None:
    async with watching(configured(dynamodb_url, "orders-*"), "orders-1") as bench:
        await bench.pair("orders-2")
        stream = await DynamoStreams(bench.places["us"]).current(TableName("orders-2"))
        name = RuleName("formerly")
        await bench.registry().start(stream, Target(name, RegionId("eu"), TableName("orders-2")))
        await bench.watch.look()
        assert bench.tables == ["orders-1"]
        assert "but rule 'formerly' has and is no longer configured" in bench.left_out["orders-2"]
