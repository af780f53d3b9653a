"""Three workers and then four on 24 shards that split, merge and roll, beside kill -9, SIGSTOP and SIGTERM."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.integration.harness import open_world
from tests.integration.resharding import Plan, Run


@pytest.mark.slow
def test_nothing_is_skipped_while_shards_and_workers_come_and_go(tmp_path: Path) -> None:
    plan = Plan(shards=24, changes=1600, per_second=150, lease="3s", heartbeat="1s", asleep_seconds=8)
    with open_world(tmp_path) as world:
        measures = asyncio.run(Run(world, plan).run(tmp_path))
    assert (measures.skipped, measures.read_early) == (0, 0)
    assert measures.reshardings > 0
    assert measures.most_describes_per_second <= 10
