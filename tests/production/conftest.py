from __future__ import annotations

from collections.abc import Iterator

import pytest

from replicator.engine import waiting as pacing
from replicator.laboratory.servers import MiniStack, clean_environment


@pytest.fixture(autouse=True)
def jitter() -> None:
    """The same pauses in every run: what these tests show does not depend on dice."""
    pacing._JITTER.seed(0)


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
