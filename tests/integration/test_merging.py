"""Two tables in one and one in two, with users who write and daemons that are killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.integration.harness import open_world
from tests.integration.merging import Plan, Run


@pytest.mark.servers
@pytest.mark.long
def test_merged_and_split_tables_are_what_their_sources_make_of_them(tmp_path: Path) -> None:
    with open_world(tmp_path) as world:
        measures = asyncio.run(Run(world, Plan(changes=96, per_second=40, kill_every_seconds=1.0)).run())
    assert measures.kills
    assert measures.items["all"] == measures.compared["orders"] + measures.compared["bills"]
    assert measures.mended == 2
