"""How long a change takes to a replica and to its cache: a real daemon, the stream laboratory, a Valkey.

    python -m benchmarks.lag --rate 500 --shards 8 --seconds 30

A change begins when the laboratory's stream gets its record. It is at the replica when the write arrives there, at a
server that answers at once, and in the cache when the Valkey carries out what drops the entry. Three changes of four
are of an item that was there, one is new. Prints both lags and exits 1 when a bound is missed: 300 ms for half of all
changes, 1 s for 99 of 100.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.hot_path.answering import Answers, Connection
from benchmarks.processes import cpu_seconds, daemon
from replicator.laboratory.streamlab import Laboratory, laboratory
from replicator.laboratory.streamlab.changes import Change, hash_of
from tests.integration.harness import World, open_world

MEDIAN_BOUND = 0.3
HIGH_BOUND = 1.0
_WARM_SECONDS = 5.0
_SETTLE_SECONDS = 30.0
_EVERY_SECONDS = 0.01
_NEW_OF = 4
_FILLING = b"x" * 200
_KEY = re.compile(rb'"pk":\{"S":"(item-\d+)"\}')
_ENTRY = re.compile(rb"order:(item-\d+)")


@dataclass(slots=True)
class Lags:
    """When changes were made, and how much later they arrived."""

    made: dict[bytes, float] = field(default_factory=dict)
    at_replica: dict[bytes, float] = field(default_factory=dict)
    at_cache: dict[bytes, float] = field(default_factory=dict)

    def arrived(self, key: bytes, where: dict[bytes, float]) -> None:
        """Note the first arrival of a change; every key changes once."""
        began = self.made.get(key)
        if began is not None and key not in where:
            where[key] = time.monotonic() - began

    @property
    def is_whole(self) -> bool:
        """Whether every change is everywhere."""
        return len(self.at_replica) == len(self.at_cache) == len(self.made)


class Replica(Answers):
    """The replica's region: writes of items are noted and answered at once."""

    def __init__(self, upstream: str, lags: Lags) -> None:
        super().__init__([], upstream, mesh=False)
        self._lags = lags
        self.at_once({}, "/release", b"")

    def at_once(self, head: dict[bytes, bytes], path: str, body: bytes) -> tuple[int, bytes] | None:
        """Note it, and answer."""
        answer = super().at_once(head, path, body)
        if answer is not None and b'"orders"' in body:
            for key in _KEY.findall(body):
                self._lags.arrived(key, self._lags.at_replica)
        return answer


@asynccontextmanager
async def replica(upstream: str, lags: Lags) -> AsyncIterator[str]:
    """Serve it."""
    answers = Replica(upstream, lags)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(answers), "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await answers.close()


@asynccontextmanager
async def watched(port: int, lags: Lags) -> AsyncIterator[None]:
    """Hear every command that the Valkey carries out."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    writer.write(b"MONITOR\r\n")

    async def listen() -> None:
        while line := await reader.readline():
            for key in _ENTRY.findall(line):
                lags.arrived(key, lags.at_cache)

    listening = asyncio.create_task(listen())
    try:
        yield
    finally:
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening
        writer.close()


async def write(lab: Laboratory, options: argparse.Namespace, lags: Lags, first: int, seconds: float) -> int:
    """Make changes at a steady rate; returns the number behind the last one."""
    table = lab.tables.table("orders", "us-east-1")
    began, number, count = time.monotonic(), first, round(options.rate * seconds)
    while number < first + count:
        due = min(first + count, first + int((time.monotonic() - began) * options.rate) + 1)
        for each in range(number, due):
            key = b'{"pk":{"S":"item-%d"}}' % each
            old, new = (
                b'{"pk":{"S":"item-%d"},"n":{"N":"%d"},"filling":{"S":"%b"}}' % (each, n, _FILLING) for n in (1, 2)
            )
            is_new = each % _NEW_OF == 0
            kind, where = "INSERT" if is_new else "MODIFY", hash_of({"pk": {"S": f"item-{each}"}}, "pk")
            change = Change(kind, key, new, b"" if is_new else old, int(time.time()), where)
            lags.made[b"item-%d" % each] = time.monotonic()
            lab.tables.record(table, table.present, [change])
        number = due
        await asyncio.sleep(_EVERY_SECONDS)
    return number


def configuration(world: World, source: str, target: str) -> dict[str, Any]:
    """Everything by default."""
    settings = world.settings(
        coordination={"region": "de"},
        polling={},
        apply={},
        caches={"eu_main": {"region": "eu", "url": f"redis://127.0.0.1:{world.valkey_port}/0"}},
        rule={"replicas": ["eu"], "cache": [{"cache": "eu_main", "key": "order:{pk}", "action": "invalidate"}]},
    )
    settings["regions"] = {
        "us": {"region": "us-east-1", "endpoint_url": source},
        "eu": {"region": "eu-west-1", "endpoint_url": target},
        "de": {"region": "us-west-2", "endpoint_url": world.endpoint},
    }
    return settings


@contextmanager
def running(world: World, config: Path) -> Iterator[tuple[int, Path]]:
    """The daemon: its process id, and its log."""
    log = world.directory / "daemon.log"
    with daemon(config, log) as process:
        yield process.pid, log


async def run(world: World, options: argparse.Namespace) -> bool:
    """Run it; whether the bounds are met."""
    await world.create_table("us", "orders", stream=True)
    await world.create_table("eu", "orders")
    warm, lags = Lags(), Lags()
    async with laboratory(world.endpoint, seed=1, shards=options.shards) as lab:
        lab.make("orders", "us-east-1", shards=options.shards)
        async with replica(world.endpoint, lags) as target, watched(world.valkey_port, lags):
            config = world.write_settings(configuration(world, lab.url, target))
            await asyncio.to_thread(world.initialise, config)
            with running(world, config) as (pid, log):
                await asyncio.to_thread(_until_owned, log, options.shards)
                following = await write(lab, options, warm, 0, _WARM_SECONDS)
                before = cpu_seconds(pid)
                await write(lab, options, lags, following, options.seconds)
                spent = cpu_seconds(pid) - before
                await asyncio.to_thread(_until_whole, lags)
    return report(options, lags, spent)


def _until_owned(log: Path, shards: int) -> None:
    deadline = time.monotonic() + _SETTLE_SECONDS * 4
    while log.read_text().count('"shard_started"') < shards:
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)


def _until_whole(lags: Lags) -> None:
    deadline = time.monotonic() + _SETTLE_SECONDS
    while not lags.is_whole and time.monotonic() < deadline:
        time.sleep(0.05)


def report(options: argparse.Namespace, lags: Lags, spent: float) -> bool:
    """Print the figures; whether all bounds are met."""
    print(f"{options.rate} changes a second over {options.shards} shards for {options.seconds} s")
    met = lags.is_whole
    for name, found in (("replica", lags.at_replica), ("cache", lags.at_cache)):
        cuts = statistics.quantiles(found.values(), n=100)
        print(
            f"{name}: {len(found)} of {len(lags.made)} changes, p50 {cuts[49] * 1000:.0f} ms, p95 {cuts[94] * 1000:.0f}"
            f" ms, p99 {cuts[98] * 1000:.0f} ms, longest {max(found.values()) * 1000:.0f} ms"
        )
        met = met and cuts[49] <= MEDIAN_BOUND and cuts[98] <= HIGH_BOUND
    print(f"processor: {spent / options.seconds * 100:.0f} % of a core")
    print(f"verdict: {'bounds met' if met else 'BOUNDS MISSED'}")
    return met


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, open_world(Path(directory)) as world:
        return 0 if asyncio.run(run(world, options)) else 1


if __name__ == "__main__":
    sys.exit(main())
