from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from replicator.adapters.dynamodb.streams import DynamoStreams
from replicator.laboratory.servers import MiniStack, clean_environment
from tests.contract.worlds import place
from tests.streamlab import Laboratory, laboratory

REGION = "eu-west-1"


@pytest.fixture(scope="session", autouse=True)
def credentials() -> Iterator[None]:
    """Dummies, and nothing of the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in clean_environment().items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def dynamodb_url(ministack: MiniStack) -> str:
    """A server that speaks DynamoDB."""
    return ministack.endpoint_url


@pytest.fixture
async def lab() -> AsyncIterator[Laboratory]:
    """A laboratory whose time stands still, with the stream of a table `orders` and four shards."""
    async with laboratory(seed=7, shards=4) as opened:
        opened.freeze()
        opened.make("orders", REGION)
        yield opened


@pytest.fixture
async def streams(lab: Laboratory) -> AsyncIterator[DynamoStreams]:
    """The project's adapter at `lab`."""
    async with place(lab.url) as opened:
        yield DynamoStreams(opened)
