"""A rolling restart with a changed rule: nothing is lost, and no shard waits for the end of a lease."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.integration.rolling import restart

pytestmark = pytest.mark.skipif("IMAGE_CHECK" not in os.environ, reason="only `make image-check` takes the time")

LEASE_SECONDS = 300
"""Far more than a restart takes on a busy machine."""


@pytest.mark.parametrize("at_once", [False, True], ids=["each_brings_its_own_file", "all_see_one_file"])
async def test_three_workers_restart_one_by_one_under_load(tmp_path: Path, at_once: bool) -> None:
    done = await restart(tmp_path, at_once=at_once, lease=f"{LEASE_SECONDS}s")
    for (origin, destination), figures in done.lags.items():
        print(f"{origin} to {destination}: {figures}")  # noqa: T201 - figures for who runs it
    assert done.longest < LEASE_SECONDS, "a shard waited for a lease: `python -m benchmarks.rolling` says 5 s"
