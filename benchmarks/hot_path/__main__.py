"""Processor time per record of the daemon and of other consumers, by hand or as `make bench`.

    python -m benchmarks.hot_path --records 20000 --rounds 5 --mixes modify,modify-30,quarter-inserts
    python -m benchmarks.hot_path --consumers lean,aiobotocore --modes ordered --rounds 3

Every consumer reads the same records from a server that answers at once, in rounds that alternate, and writes to it and
to a Valkey. Prints the median and the spread, and the ratio to the consumer on stock aiobotocore of the same run.
`--results FILE` adds the figures to a JSON file, `--check FILE` compares ratios with it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.hot_path.mixes import MIXES
from benchmarks.profiled import ProfiledDaemon
from tests.integration.harness import CREDENTIALS, Daemon, World, open_world

BASELINE = "aiobotocore"
OURS = ("lean", "stock")
_STILL_SECONDS = 1.0
_MOST_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What a consumer cost in one round: microseconds a record, and mebibytes at the end (None when not measured)."""

    microseconds: float
    mebibytes: float | None = None


# -- the server --------------------------------------------------------------------------------------------------------


class Endpoint:
    """The answering server, as a process."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self.url = url

    def release(self) -> None:
        """Show the records."""
        self._ask("/release", b"{}")

    def counts(self) -> Any:
        """How far it is."""
        return json.loads(self._ask("/counts", b""))

    def _ask(self, path: str, body: bytes) -> bytes:
        with urllib.request.urlopen(self.url + path, data=body) as answer:  # noqa: S310 - our own server
            found: bytes = answer.read()
            return found

    def until_still(self) -> None:
        """Wait until every record was read and nothing is written any more."""
        deadline, last, since = time.monotonic() + _MOST_SECONDS, None, time.monotonic()
        while time.monotonic() < deadline:
            counts = self.counts()
            calls = {name: count for name, count in counts["calls"].items() if name != "GetRecords"}
            if counts["read"] < counts["of"] or calls != last:
                last, since = calls, time.monotonic()
            elif time.monotonic() - since >= _STILL_SECONDS:
                return
            time.sleep(0.1)
        raise TimeoutError("the consumer did not come to its end")


@contextmanager
def answering(upstream: str, records: int, mix: str) -> Iterator[Endpoint]:
    """Start a server, and end it."""
    command = [sys.executable, "-m", "benchmarks.hot_path.answering", "--upstream", upstream]
    command += ["--records", str(records), "--mix", mix]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
    try:
        assert process.stdout is not None
        yield Endpoint(process, f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.communicate(timeout=10)


# -- consumers -----------------------------------------------------------------------------------------------------


def other(consumer: str, world: World, records: int, mix: str) -> Figures:
    """A consumer that is not this program."""
    with answering(world.endpoint, records, mix) as endpoint:
        endpoint.release()
        command = [sys.executable, "-m", "benchmarks.hot_path.consumers", consumer, "--endpoint", endpoint.url]
        command += ["--cache", f"redis://127.0.0.1:{world.valkey_port}", "--records", str(records)]
        environment = {**os.environ, **CREDENTIALS}
        said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)  # noqa: S603 - ours
    return Figures(json.loads(said.stdout)["microseconds"])


def ours(client: str, world: World, options: argparse.Namespace, mix: str, turn: int) -> Figures:
    """The daemon."""
    records: int = options.records
    profile = None if options.profile is None else options.profile.with_suffix(f".{mix}.{client}.txt")
    with answering(world.endpoint, records, mix) as endpoint:
        settings = world.settings(
            group=f"bench-{turn}",
            client=client,
            coordination={"region": "de"},
            polling={},
            apply={},
            log={"level": "warning", "format": "json"},
            caches={"eu_main": {"region": "eu", "url": f"redis://127.0.0.1:{world.valkey_port}/0"}},
            rule={"replicas": ["eu"], "cache": [{"cache": "eu_main", "key": "order:{pk}", "action": "invalidate"}]},
        )
        settings["regions"]["de"] = {"region": "us-west-2", "endpoint_url": world.endpoint}
        settings["regions"]["us"]["endpoints"] = {"streams": endpoint.url}
        settings["regions"]["eu"] = {"region": "eu-west-1", "endpoint_url": endpoint.url}
        config = world.write_settings(settings)
        world.initialise(config)
        daemon = _started(world, config, profile)
        try:
            _until_read(endpoint, daemon)
            before = _cpu_seconds(daemon)
            endpoint.release()
            endpoint.until_still()
            spent = _cpu_seconds(daemon) - before
            resident = _mebibytes(daemon)
        finally:
            daemon.process.terminate()
            daemon.process.wait(30)
    return Figures(spent / records * 1e6, resident)


def _started(world: World, config: Path, profile: Path | None) -> Daemon:
    if profile is None:
        return world.daemon(config)
    daemon = ProfiledDaemon(config, world.directory / f"profiled-{len(world.daemons)}.log", profile)
    world.daemons.append(daemon)
    return daemon


def _until_read(endpoint: Endpoint, daemon: Daemon) -> None:
    """Wait until the daemon polls, and a moment more."""
    deadline = time.monotonic() + _MOST_SECONDS
    while not endpoint.counts()["calls"].get("GetRecords"):
        assert daemon.process.poll() is None, daemon.log.read_text()[-2000:]
        assert time.monotonic() < deadline, "the daemon never polled"
        time.sleep(0.1)
    time.sleep(2)


def _cpu_seconds(daemon: Daemon) -> float:
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _mebibytes(daemon: Daemon) -> float:
    lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


# -- rounds --------------------------------------------------------------------------------------------------------


def measure(world: World, options: argparse.Namespace) -> dict[str, dict[str, list[Figures]]]:
    """Figures by mix and consumer, one a round."""
    for region in ("us", "eu"):
        asyncio.run(world.create_table(region, "orders", stream=region == "us"))
    found: dict[str, dict[str, list[Figures]]] = {}
    turn = 0
    for mix in options.mixes:
        by_consumer = found.setdefault(mix, {})
        for _ in range(options.rounds):
            for consumer in options.consumers:
                turn += 1
                one = (
                    ours(consumer, world, options, mix, turn)
                    if consumer in OURS
                    else other(consumer, world, options.records, mix)
                )
                by_consumer.setdefault(consumer, []).append(one)
                print(f"{mix:16} {consumer:12} {one.microseconds:8.1f} us", flush=True)
    return found


def table(found: dict[str, dict[str, list[Figures]]]) -> list[dict[str, Any]]:
    """A row for each mix and consumer."""
    rows = []
    for mix, by_consumer in found.items():
        baseline = by_consumer.get(BASELINE)
        for consumer, figures in by_consumer.items():
            times = sorted(each.microseconds for each in figures)
            median = statistics.median(times)
            resident = [each.mebibytes for each in figures if each.mebibytes is not None]
            rows.append(
                {
                    "mix": mix,
                    "consumer": consumer,
                    "microseconds": round(median, 1),
                    "least": times[0],
                    "most": times[-1],
                    "records_per_second_and_core": round(1e6 / median),
                    "mebibytes": round(max(resident)) if resident else None,
                    "ratio": None
                    if baseline is None
                    else round(statistics.median(each.microseconds for each in baseline) / median, 2),
                }
            )
    return rows


def main() -> int:
    """Parse, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mixes", type=lambda text: text.split(","), default=list(MIXES))
    parser.add_argument("--consumers", type=lambda text: text.split(","), default=[*OURS, BASELINE, "boto3"])
    parser.add_argument("--results", type=Path, default=None)
    parser.add_argument("--profile", type=Path, default=None, help="where each daemon's processor time goes, as files")
    parser.add_argument("--check", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, open_world(Path(directory)) as world:
        rows = table(measure(world, options))
    for row in rows:
        print(
            f"{row['mix']:16} {row['consumer']:12} {row['microseconds']:8.1f} us a record"
            f" ({row['least']:.1f} to {row['most']:.1f}), {row['records_per_second_and_core']:6} records/s/core,"
            f" {row['mebibytes'] or '-'} MiB, {row['ratio'] or '-'} times less than {BASELINE}"
        )
    if options.results is not None:
        options.results.write_text(json.dumps(rows, indent=1) + "\n")
    if options.check is not None:
        stored = {(row["mix"], row["consumer"]): row["ratio"] for row in json.loads(options.check.read_text())}
        for row in rows:
            before = stored.get((row["mix"], row["consumer"]))
            if before and row["ratio"] and row["ratio"] < 0.9 * before:
                print(f"{row['mix']} {row['consumer']}: {row['ratio']} times less, it was {before}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
