"""The demo with many shards: they split, merge and roll between several workers, and nothing is skipped unseen."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from rich.console import Console

from replicator.demo.daemon_figures import DaemonFigures
from replicator.demo.resharding import Resharding
from replicator.demo.shards import ShardFigures, ShardWatch, StreamFigures, generations, look
from replicator.demo.view import Stage, View
from replicator.demo.world import open_world
from replicator.laboratory.servers import MiniStack, free_ports
from replicator.laboratory.streamlab import StreamLab
from tests.patience import PATIENT_SECONDS

pytestmark = pytest.mark.servers


# -- the command ---------------------------------------------------------------------------------------------------


def run_demo(directory: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    command = [sys.executable, "-m", "replicator", "demo", "--json", *arguments]
    environment = os.environ | {"TMPDIR": str(directory)}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=PATIENT_SECONDS, check=False
    )
    lines = done.stdout.splitlines()
    return done.returncode, json.loads(lines[-1]) if len(lines) == 1 else {}, done.stderr


@pytest.mark.slow
def test_shards_that_split_merge_and_roll_between_two_workers_end_identical(tmp_path: Path) -> None:
    code, report, progress = run_demo(tmp_path, "--shards", "8", "--reshard", "--duration", "6", "--rate", "40")
    assert code == 0, progress
    assert report["verdict"] == "identical"
    shards = report["shards"]
    assert (shards["records_skipped"], shards["read_early"]) == (0, 0)
    assert shards["records"] > 0
    assert shards["workers"] == 2
    assert len(shards["owned"]) == 2
    assert shards["shards"] > 16
    assert sum(shards["changes"].values()) > 0
    assert shards["describe_stream"]["most_per_second"] <= 20  # two streams
    assert "children early" in progress
    assert "2 workers with" in progress


@pytest.mark.slow
def test_every_stream_of_a_mesh_comes_from_the_laboratory(tmp_path: Path) -> None:
    code, report, progress = run_demo(
        tmp_path,
        "--mode",
        "versioned",
        "--regions",
        "2",
        "--shards",
        "3",
        "--workers",
        "1",
        "--duration",
        "2",
        "--rate",
        "30",
    )
    assert code == 0, progress
    assert report["verdict"] == "identical"
    assert report["traffic"]["clashes"] > 0
    assert report["records"]["by_daemon"] > report["records"]["by_users"] / 2
    assert report["records"]["after_silence"] == 0
    assert report["conflicts"]["entries"] > 0
    assert report["compared"]["contested_keys"] > 0
    shards = report["shards"]
    assert (shards["records_skipped"], shards["read_early"]) == (0, 0)
    assert (shards["shards"], shards["open"], shards["generations"]) == (12, 12, 1)
    assert (shards["workers"], shards["changes"]) == (1, {})


@pytest.mark.slow
def test_functions_drive_rules_that_read_shards_of_kinesis_and_end_identical(tmp_path: Path) -> None:
    """Under the emulator where it is found: several shards, repeats and disorder, and pods that let the rules rest."""
    arguments = ("--source", "kinesis", "--shards", "2", "--duration", "2", "--rate", "40")
    code, report, progress = run_demo(tmp_path, "--engine", "lambda", *arguments)
    assert code == 0, progress
    shards = report["shards"]
    assert (shards["records_skipped"], shards["read_early"], shards["open"]) == (0, 0, 4)
    assert shards["owned"] == [0], "the worker lets the rules rest"
    brought = re.findall(r"a mapping: (\d+) records", progress)
    assert len(brought) == 2
    assert sum(map(int, brought)) == shards["records"]


def test_its_help_names_what_changes_the_shards() -> None:
    command = [sys.executable, "-m", "replicator", "demo", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=PATIENT_SECONDS, check=True).stdout
    for option in ("--shards", "--reshard", "--workers"):
        assert option in told


# -- what it is made of --------------------------------------------------------------------------------------------


@pytest.fixture
def lab(ministack: MiniStack, tmp_path: Path) -> Iterator[StreamLab]:
    with StreamLab.start(tmp_path, ministack.endpoint_url, shards=4) as laboratory:
        yield laboratory


@pytest.fixture(scope="module")
def idle_lab(ministack: MiniStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StreamLab]:
    """For tests that do not ask it."""
    with StreamLab.start(tmp_path_factory.mktemp("idle"), ministack.endpoint_url) as laboratory:
        yield laboratory


def test_resharding_keeps_to_half_and_twice_the_shards_and_counts_what_it_does(lab: StreamLab) -> None:
    lab.command("make", table="orders", region="us-east-1", shards=4)
    resharding = Resharding(lab, 4, Random(1))
    for _ in range(60):
        resharding.step()
        assert 2 <= look(lab, "streams").open <= 8
    assert set(resharding.counts) == {"splits", "merges", "rolls"}
    figures = look(lab, "streams")
    assert figures.open + figures.closed == 4 + 2 * resharding.counts["splits"] + (
        resharding.counts["merges"] + resharding.counts["rolls"]
    )
    assert figures.generations > 12  # each fifth step rolls every shard
    assert resharding.last.startswith("orders (us-east-1) rolled all")


def test_a_single_shard_is_split_before_anything_else_and_nothing_is_done_without_a_stream(lab: StreamLab) -> None:
    resharding = Resharding(lab, 1, Random(1))
    resharding.step()
    assert not resharding.counts
    lab.command("make", table="orders", region="us-east-1", shards=1)
    resharding.step()
    assert resharding.counts == {"splits": 1}


def test_records_that_nobody_was_given_are_told_as_unread(lab: StreamLab) -> None:
    lab.command("make", table="orders", region="us-east-1", shards=2)
    lab.command("generate", table="orders", count=30)
    figures = look(lab, "streams")
    assert (figures.records, figures.unread) == (30, 30)
    assert figures.streams == [StreamFigures("orders", "us-east-1", 2, 0, 1, 30)]
    assert watch_of(lab, figures).trouble == "records were skipped"


def watch_of(lab: StreamLab, figures: ShardFigures) -> ShardWatch:
    return ShardWatch(lab, 2, 2, None, figures)


def test_a_child_that_was_read_early_spoils_the_verdict(idle_lab: StreamLab) -> None:
    watch = watch_of(idle_lab, ShardFigures(records=3, read_early=1))
    assert watch.trouble == "a shard was read before its parent's end"
    assert "1 children read before their parent's end" in "\n".join(watch.lines())
    assert watch_of(idle_lab, ShardFigures(records=3)).trouble is None


def test_generations_follow_the_longest_line_and_count_a_parent_that_is_gone_as_none() -> None:
    def shard(name: str, *parents: str) -> dict[str, Any]:
        return {"shard": name, "parents": list(parents)}

    assert generations([]) == 0
    assert generations([shard("a"), shard("b"), shard("c", "a"), shard("d", "c", "b"), shard("e", "gone")]) == 3


def test_ports_in_a_row_are_all_free_and_are_given_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_ports(4)
    assert 0 < first <= 65_532
    dice, choose = iter(range(first - 1, first + 4)), secrets.choice
    monkeypatch.setattr(secrets, "choice", lambda ports: next(dice, None) or choose(ports))
    assert free_ports(2) not in range(first - 1, first + 4), "nobody listens there, but somebody soon will"
    assert next(dice, None) is None


def test_each_worker_is_asked_and_a_silent_one_leaves_the_figures_as_they_were(tmp_path: Path) -> None:
    async def refreshed() -> tuple[list[str], DaemonFigures]:
        async with open_world(tmp_path, shards=2, workers=3) as world:
            assert world.lab is not None
            config = world.configuration()
            assert config["regions"]["us"]["endpoints"] == {"streams": world.lab.url}
            assert "endpoints" not in config["regions"]["eu"]
            figures = DaemonFigures(records=7, owned=[1, 2, 3])
            await figures.refresh(world)
            return world.daemon.admin_urls, figures

    urls, figures = asyncio.run(refreshed())
    ports = [int(url.rpartition(":")[2]) for url in urls]
    assert ports == [ports[0], ports[0] + 1, ports[0] + 2]
    assert (figures.records, figures.owned) == (7, [1, 2, 3])


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("terminal", [True, False])
def test_shards_are_shown_on_every_terminal_and_without_one(idle_lab: StreamLab, width: int, *, terminal: bool) -> None:
    streams = [StreamFigures("orders", "us-east-1", 17, 9, 3, 950), StreamFigures("sessions", "us-east-1", 16, 0, 1, 7)]
    resharding = Resharding(idle_lab, 16, Random(1))
    resharding.counts["splits"] = 1
    resharding.last = "orders (us-east-1) split one of 16 shards"
    watch = ShardWatch(idle_lab, 16, 2, resharding, ShardFigures(streams, records=957, unread=7), [17, 16], 5)
    view = View(json=False)
    view.console = Console(width=width, force_terminal=terminal, file=io.StringIO())
    with view.live():
        view.show(Stage(_NoTraffic(), [], [], watch))
    assert isinstance(view.console.file, io.StringIO)
    shown = " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", view.console.file.getvalue()).split())
    assert "33 open and 9 closed shards, 3 generations (1 split)" in shown
    assert "2 workers with 17 + 16 of them, 5 hand-overs" in shown
    assert "950 of 957 records read, 0 children early" in shown
    assert ("last change: orders (us-east-1) split one of 16 shards" in shown) == terminal


@dataclass
class _NoTraffic:
    counts: Counter[str] = field(default_factory=Counter)
    writes: int = 0
