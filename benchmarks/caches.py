"""Processor time of the daemon per key that it drops from a cache, in batches as they are sent; part of `make bench`.

    python -m benchmarks.caches --keys 200000 --batch 100

Through all that a key passes behind its write: the funnel, what notes that a cache is away, the client, a real Valkey.
Prints the median of five rounds beside the bar of 3 microseconds, which it does not enforce.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import uvloop

from replicator.adapters.clock import SystemClock
from replicator.adapters.redis.cache import RedisCache
from replicator.domain.cache_debt import DebtPolicy
from replicator.domain.cache_keys import Invalidate
from replicator.domain.identifiers import RegionId
from replicator.engine.applying.cache_batcher import CacheFunnel
from replicator.engine.applying.cache_debt import CacheDebt
from replicator.laboratory.memory import MemoryCacheDebt
from replicator.laboratory.servers import Valkey
from replicator.observability.metrics import Metrics
from replicator.observability.observer import LiveObserver
from replicator.observability.status_board import Board
from replicator.ports.targets import OPEN

BAR_MICROSECONDS = 3.0
_ROUNDS = 5


async def _round(funnel: CacheFunnel, keys: int, batch: int, turn: int) -> float:
    """Microseconds of processor time a key."""
    batches = [
        [Invalidate(f"order:{turn}-{number}") for number in range(start, start + batch)]
        for start in range(0, keys, batch)
    ]
    began = time.process_time()
    for actions in batches:
        await funnel.apply(actions, OPEN)
    return (time.process_time() - began) / (len(batches) * batch) * 1e6


async def _measure(url: str, keys: int, batch: int) -> list[float]:
    clock = SystemClock()
    observer = LiveObserver(Board("bench", (), clock), Metrics(), clock)
    cache = RedisCache("main", url, username=None, password=None, connect_seconds=3, read_seconds=10)
    debt = CacheDebt("main", RegionId("eu"), cache, MemoryCacheDebt(), DebtPolicy(), clock=clock, observer=observer)
    funnel = CacheFunnel(debt)
    await funnel.apply([Invalidate("warm")], OPEN)
    found = [await _round(funnel, keys, batch, turn) for turn in range(_ROUNDS)]
    await cache.close()
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="caches", description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Valkey.start(Path(name)) as server:
        found = uvloop.run(_measure(server.url, options.keys, options.batch))
    print(
        f"{median(found):.2f} us a key in batches of {options.batch} ({min(found):.2f} to {max(found):.2f});"
        f" the bar is {BAR_MICROSECONDS:.0f} us"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
