"""Tables found by glob and tags on a server, and what is left out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from replicator.adapters.aws.clients import Place, open_place
from replicator.checks.creation import initialise
from replicator.checks.facts import Status
from replicator.checks.survey import check, preflight
from replicator.checks.table_choices import TableFinder, with_tables
from replicator.domain.errors import Unreachable
from replicator.settings import Settings
from tests.contract.worlds import PATIENT, create_table

pytestmark = pytest.mark.servers

REGIONS = {"us": "us-east-1", "eu": "eu-west-1"}


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[dict[str, Place]]:
    async with (
        open_place("us", settings.regions["us"], PATIENT, connections=8) as us,
        open_place("eu", settings.regions["eu"], PATIENT, connections=8) as eu,
    ):
        yield {"us": us, "eu": eu}


def configured(url: str, table: object, *more: dict[str, Any]) -> Settings:
    document: dict[str, Any] = {
        "group": "test",
        "regions": {name: {"region": region, "endpoint_url": url} for name, region in REGIONS.items()},
        "coordination": {"region": "us"},
        "rules": [{"name": "orders", "table": table, "source": "us", "replicas": ["eu"]}, *more],
    }
    return Settings(**document)


async def create(place: Place, *names: str, stream: bool = True, tags: dict[str, str] | None = None) -> None:
    for name in names:
        await create_table(place.dynamodb, name, {"pk": "S"}, stream=stream)
        if tags:
            arn = (await place.dynamodb.describe_table(TableName=name))["Table"]["TableArn"]
            await place.dynamodb.tag_resource(
                ResourceArn=arn, Tags=[{"Key": key, "Value": value} for key, value in tags.items()]
            )


@pytest.mark.usefixtures("account")
async def test_a_glob_finds_tables_of_the_source_region_over_all_pages(dynamodb_url: str) -> None:
    settings = configured(dynamodb_url, "orders-*")
    async with opened(settings) as places:
        wanted = [f"orders-{n:03d}" for n in range(105)]
        await create(places["us"], *wanted, "carts")
        await create(places["eu"], "orders-elsewhere")
        found = await TableFinder(settings, places).look()
        assert found.tables == {"orders": tuple(wanted)}
        assert (await with_tables(settings, places)).rules[0].table == "orders-000"


@pytest.mark.usefixtures("account")
async def test_our_own_tables_are_never_found(dynamodb_url: str) -> None:
    settings = configured(dynamodb_url, "*")
    async with opened(settings) as places:
        await create(places["us"], "orders")
        await initialise(settings, places, dry_run=False, enable_streams=False)
        listed = (await places["us"].dynamodb.list_tables())["TableNames"]
        assert {"replicator-coordination", "replicator-conflicts-test"} <= set(listed)
        assert (await TableFinder(settings, places).look()).tables == {"orders": ("orders",)}


@pytest.mark.usefixtures("account")
async def test_tags_find_tables_that_have_all_of_them(dynamodb_url: str) -> None:
    settings = configured(dynamodb_url, {"tag": {"team": "shop", "copy": "yes"}})
    async with opened(settings) as places:
        await create(places["us"], "both", tags={"team": "shop", "copy": "yes"})
        await create(places["us"], "one", tags={"team": "shop"})
        await create(places["us"], "none")
        finder = TableFinder(settings, places)
        assert (await finder.look()).tables == {"orders": ("both",)}
        await create(places["us"], "late", tags={"team": "shop", "copy": "yes"})
        await places["us"].dynamodb.delete_table(TableName="both")
        assert (await finder.look()).tables == {"orders": ("late",)}


@pytest.mark.usefixtures("account")
async def test_a_glob_beside_tags_narrows_them(dynamodb_url: str) -> None:
    settings = configured(dynamodb_url, {"glob": "orders-*", "tag": {"team": "shop"}})
    async with opened(settings) as places:
        await create(places["us"], "orders-1", "carts-1", tags={"team": "shop"})
        await create(places["us"], "orders-2")
        assert (await TableFinder(settings, places).look()).tables == {"orders": ("orders-1",)}


@pytest.mark.usefixtures("account")
async def test_what_cannot_be_asked_for_is_told_by_rule(dynamodb_url: str) -> None:
    away = configured("http://127.0.0.1:9", "orders-*")
    async with opened(away) as places:
        found = await TableFinder(away, places).look()
        assert isinstance(found.failed["orders"], Unreachable)
        with pytest.raises(Unreachable):
            await with_tables(away, places)


@pytest.mark.usefixtures("account")
async def test_tables_that_something_is_wrong_with_are_left_out_and_do_not_fail_the_check(dynamodb_url: str) -> None:
    settings = configured(dynamodb_url, "orders-*")
    async with opened(settings) as places:
        await create(places["us"], "orders-good", "orders-alone")
        await create(places["us"], "orders-mute", stream=False)
        await create(places["eu"], "orders-good", "orders-mute", stream=False)
        await initialise(settings, places, dry_run=False, enable_streams=False)
        survey = await preflight(settings, places, {}, TableFinder(settings, places))
        assert survey.tables == {"orders": ("orders-good",)}
        assert {left.table: left.reason for left in survey.left_out} == {
            "orders-alone": "Table orders-alone in eu does not exist.",
            "orders-mute": "Table orders-mute in us, the source of rule orders, has no stream.",
        }
        facts = (await check(settings, places, {})).facts
        assert [fact for fact in facts if fact.status is Status.FAILED] == []
        warned = {fact.subject for fact in facts if fact.name == "left out"}
        assert warned == {"table orders-alone in us", "table orders-mute in us"}


@pytest.mark.usefixtures("account")
async def test_rules_whose_tables_meet_are_refused(dynamodb_url: str) -> None:
    settings = configured(
        dynamodb_url, "orders-*", {"name": "second", "table": "*-good", "source": "us", "replicas": ["eu"]}
    )
    async with opened(settings) as places:
        await create(places["us"], "orders-good")
        await create(places["eu"], "orders-good", stream=False)
        await initialise(settings, places, dry_run=False, enable_streams=False)
        failed = [fact for fact in (await check(settings, places, {})).facts if fact.status is Status.FAILED]
        assert [fact.found for fact in failed] == [
            "rules[1].replicas[0]: table 'orders-good' in region 'eu' is already written by rule 'orders'."
        ]


@pytest.mark.usefixtures("account")
async def test_no_table_at_all_is_a_warning(dynamodb_url: str) -> None:
    settings = configured(dynamodb_url, "orders-*")
    async with opened(settings) as places:
        await initialise(settings, places, dry_run=False, enable_streams=False)
        facts = (await check(settings, places, {})).facts
        (fact,) = [fact for fact in facts if fact.subject == "tables of rule orders"]
        assert fact.status is Status.WARNING
        assert fact.found.startswith("No table in us is orders-*")
        assert [fact for fact in facts if fact.status is Status.FAILED] == []
