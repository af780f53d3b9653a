"""Rows whose failure lies in what the endpoint says: the real adapter at the stream laboratory, in real time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from replicator.adapters.aws import errors
from replicator.adapters.aws.clients import open_place
from replicator.adapters.dynamodb import streams
from replicator.adapters.dynamodb.streams import DynamoStreams
from replicator.domain.errors import IteratorExpired
from replicator.domain.values import replace
from replicator.engine.limits import Limits
from replicator.settings import Region as RegionSettings
from tests.contract.worlds import PATIENT
from tests.engine.world import EU, World
from tests.production.guarantee import Mutant, eventually, require
from tests.production.lineage_mutants import DESCRIBING
from tests.production.reading_mutants import ITERATORS
from tests.streamlab import Laboratory, laboratory

FAST = Limits(
    poll_seconds=0.02,
    idle_seconds=0.1,
    checkpoint_seconds=0.1,
    discovery_seconds=1.0,
    heartbeat_seconds=0.5,
    lease_seconds=5.0,
    watch_seconds=0.1,
    backoff_seconds=1.0,
)


@asynccontextmanager
async def _at_the_laboratory(shards: int) -> AsyncIterator[tuple[World, Laboratory]]:
    """A world whose streams are the laboratory's."""
    async with laboratory(seed=7, shards=shards) as lab:
        settings = RegionSettings.model_validate({"region": "us-east-1", "endpoint_url": lab.url})
        async with open_place("us", settings, PATIENT, connections=32) as opened:
            lab.make("orders", "us-east-1")
            world = World()
            world.streams = DynamoStreams(opened)  # type: ignore[assignment]
            yield world, lab


def _same(world: World, lab: Laboratory) -> bool:
    """Whether the replica holds what the laboratory's changes made; every change has a number of its own."""
    (generator,) = lab.generators.values()
    wanted = {json.loads(item)["n"]["N"] for item in generator.items.values()}
    return {item.attributes["n"]["N"] for _, item in world.regions[EU].items()} == wanted


async def last_page_over_http() -> None:
    """Shards roll while their records are unread, and the answer that ends a shard carries them."""
    async with _at_the_laboratory(shards=4) as (world, lab):
        await lab.generate("orders", count=200)
        (stream,) = lab.tables.streams()
        parents = list(stream.shards)
        lab.roll("orders")
        async with world.process(limits=FAST) as process:
            read = process.observer.of
            await eventually(
                lambda: {event[0] for event in read("shard_stopped")} >= {*parents}, "closed shards end", within=60
            )
            require(_same(world, lab), "every record of the last page is applied")
            require(lab.stats()["read_early"] == 0, "parents are read before their children")


async def expired_iterators_over_http() -> None:
    """The endpoint's clock jumps, so that every iterator is too old."""
    async with _at_the_laboratory(shards=2) as (world, lab), world.process(limits=FAST) as process:
        for _ in range(3):
            await lab.generate("orders", count=100)
            await eventually(lambda: _same(world, lab), "reading goes on behind an expired iterator", within=60)
            lab.advance(1000)
        require(process.observer.of("service_failed") == [], "an expired iterator is no trouble")
        await eventually(lambda: process.observer.of("iterator_expired"), "an expired iterator is counted", within=60)
        require(lab.stats()["delivered"] == {"-": 300}, "nothing is read twice, and nothing is skipped")


async def described_within_the_limit() -> None:
    """Three workers on shards that all roll, while the endpoint allows ten calls a second and lists children late."""
    async with _at_the_laboratory(shards=12) as (world, lab), AsyncExitStack() as stack:
        lab.set(child_listed_after=1.5)
        await lab.generate("orders", count=100)
        for _ in range(3):
            await stack.enter_async_context(world.process(limits=replace(FAST, discovery_seconds=10)))
        await eventually(lambda: _same(world, lab), "the shards are read", within=60)
        lab.roll("orders")
        await lab.generate("orders", count=100)
        await eventually(lambda: _same(world, lab), "children that are listed late are found", within=60)
        require(lab.stats()["calls"]["DescribeStream"]["most_per_second"] < 10, "the endpoint's limit is kept")
        require("LimitExceededException" not in lab.stats()["refused"], "and nothing is refused")


# -- mutants -----------------------------------------------------------------------------------------------------------


def _dropped_with_the_last_iterator(original: Any) -> Any:
    def parse(*answer: Any) -> Any:
        page = original(*answer)
        return page if page.next_iterator is not None else replace(page, records=())

    return parse


def _unknown_code(original: Any) -> Any:
    return {code: kind for code, kind in original.items() if kind is not IteratorExpired}


LAST_PAGE = {
    "records_of_the_answer": Mutant(
        "the adapter hands records over with their end",
        ((streams, "parse_records", _dropped_with_the_last_iterator),),
    )
}
EXPIRED = {
    "new_iterator": ITERATORS["new_iterator"],
    "code_of_the_error": Mutant("the adapter knows an expired iterator", ((errors, "_BY_CODE", _unknown_code),)),
}
LIMIT = {"token_bucket": DESCRIBING["token_bucket"]}
