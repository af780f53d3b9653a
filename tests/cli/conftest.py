from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.laboratory.servers import MiniStack, Valkey
from replicator.settings import ENV_PREFIX
from tests.cli.worlds import World, fresh_account


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no secrets directory of this machine reach the settings."""
    for variable in [name for name in os.environ if name.startswith(ENV_PREFIX) or name == "CREDENTIALS_DIRECTORY"]:
        monkeypatch.delenv(variable)
    empty = tmp_path / "no-secrets"
    empty.mkdir()
    monkeypatch.setenv(f"{ENV_PREFIX}SECRETS_DIR", str(empty))


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey.start(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def world(ministack: MiniStack, valkey: Valkey, tmp_path: Path) -> World:
    """A world of its own: an account that no other test uses."""
    account = fresh_account()
    return World(ministack.endpoint_url, valkey.url, account, tmp_path)
