from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest

from replicator.adapters.aws.clients import Place
from replicator.laboratory.servers import MiniStack, Valkey, clean_environment
from tests.contract.worlds import (
    CacheBench,
    DynamoRegionBench,
    MemoryCacheBench,
    MemoryRegionBench,
    RegionBench,
    no_fallback,
    place,
    redis_bench,
)

WORLDS = ["memory", pytest.param("server", marks=pytest.mark.servers)]


@pytest.fixture(scope="session")
def dynamodb_url(ministack: MiniStack) -> Iterator[str]:
    """A server that speaks DynamoDB and its streams, and the environment of its clients."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in clean_environment().items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        yield ministack.endpoint_url


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey, one per process of the test run."""
    with Valkey.start(tmp_path_factory.mktemp("server")) as server:
        yield server.url


@pytest.fixture
async def dynamo_place(dynamodb_url: str) -> AsyncIterator[Place]:
    """Clients at the local server."""
    async with place(dynamodb_url, lean=no_fallback) as opened:
        yield opened


@pytest.fixture(params=[*WORLDS, pytest.param("lean", marks=pytest.mark.servers)])
async def region_bench(request: pytest.FixtureRequest) -> AsyncIterator[RegionBench]:
    """A region in each world."""
    if request.param == "memory":
        yield MemoryRegionBench()
        return
    lean = no_fallback if request.param == "lean" else None
    async with place(request.getfixturevalue("dynamodb_url"), lean=lean) as opened:
        bench = DynamoRegionBench(opened, {"pk": "S"})
        await bench.create()
        yield bench


@pytest.fixture(params=WORLDS)
async def cache_bench(request: pytest.FixtureRequest) -> AsyncIterator[CacheBench]:
    """A cache in each world."""
    if request.param == "memory":
        yield MemoryCacheBench()
        return
    async with redis_bench(request.getfixturevalue("redis_url")) as bench:
        yield bench


@pytest.fixture
def account() -> Iterator[str]:
    """An account of its own: the server takes the access key for it, so no other test's tables are seen."""
    with pytest.MonkeyPatch.context() as patch:
        name = f"{uuid4().int % 10**12:012d}"
        patch.setenv("AWS_ACCESS_KEY_ID", name)
        patch.setenv("AWS_SECRET_ACCESS_KEY", "none")
        yield name
