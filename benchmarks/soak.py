"""A soak by hand: real daemons, real servers, mixed traffic, and a kill -9 again and again.

    python -m benchmarks.soak --minutes 10 --workers 2 --kill-every 60 --rate 100
    python -m benchmarks.soak --writes 20000 --workers 1 --kills 5

Prints what was written, replayed and compared, the resident memory of every daemon over time, and a verdict; exits 1
when a replica differs from what the users wrote, or a cache entry lies.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.integration.harness import CacheReader, Daemon, Users, World, eventually, open_world

_WARM_UP_SECONDS = 60.0


@dataclass(frozen=True)
class Options:
    """What to do."""

    minutes: float
    writes: int | None
    workers: int
    kill_every: float
    kills: int | None
    rate: float
    seed: int


def resident_kib(daemon: Daemon) -> int:
    """Resident memory of a daemon's process in KiB."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


async def _kill(daemons: list[Daemon], options: Options, over: asyncio.Event, dice: random.Random) -> int:
    """Kill one daemon at random per interval, and start it again."""
    killed = 0
    while not over.is_set() and (options.kills is None or killed < options.kills):
        try:
            async with asyncio.timeout(options.kill_every):
                await over.wait()
        except TimeoutError:
            victim = dice.choice(daemons)
            victim.kill()
            victim.start()
            killed += 1
            print(f"killed one of {len(daemons)} workers for the {killed}. time", flush=True)
    return killed


async def _weigh(daemons: list[Daemon], over: asyncio.Event) -> dict[int, list[tuple[float, int]]]:
    """Resident memory by process, every five seconds."""
    weights: dict[int, list[tuple[float, int]]] = {}
    while not over.is_set():
        for daemon in daemons:
            try:
                weights.setdefault(daemon.process.pid, []).append((time.monotonic(), resident_kib(daemon)))
            except (OSError, StopIteration):
                continue
        try:
            async with asyncio.timeout(5):
                await over.wait()
        except TimeoutError:
            continue
    return weights


def growth(samples: list[tuple[float, int]]) -> float | None:
    """KiB per minute between the end of the warm-up and the last sample; None for a life too short to tell."""
    warm = [sample for sample in samples if sample[0] >= samples[0][0] + _WARM_UP_SECONDS]
    if len(warm) < 2 or warm[-1][0] - warm[0][0] < _WARM_UP_SECONDS:  # noqa: PLR2004 - a slope needs two points
        return None
    return (warm[-1][1] - warm[0][1]) / (warm[-1][0] - warm[0][0]) * 60


async def soak(world: World, options: Options) -> bool:
    """Run it; whether everything is identical."""
    dice = random.Random(options.seed)
    await world.create_tables()
    config = world.write_settings(world.settings(coordination={"region": "us", "lease": "3s", "heartbeat": "1s"}))
    world.initialise(config)
    daemons = [world.daemon(config) for _ in range(options.workers)]
    users, over = Users(world, seed=options.seed, keys=400), asyncio.Event()
    with (
        CacheReader(world, database=0, region="eu", table="orders", template="order:{pk}") as eu,
        CacheReader(world, database=1, region="ap", table="orders-copy", template="copy:{pk}") as ap,
    ):
        reading = [asyncio.ensure_future(reader.keep_reading(lambda: list(users.truth), over)) for reader in (eu, ap)]
        weighing = asyncio.ensure_future(_weigh(daemons, over))
        writing_over = asyncio.Event()
        killing = asyncio.ensure_future(_kill(daemons, options, writing_over, dice))
        began = time.monotonic()
        if options.writes is not None:
            await users.write(options.writes, per_second=options.rate)
        else:
            while time.monotonic() < began + options.minutes * 60:
                await users.write(int(options.rate * 10), per_second=options.rate)
        writing_over.set()
        killed = await killing

        async def identical() -> bool:
            return all(items == users.truth for items in (await world.replicas()).values())

        try:
            await eventually("convergence", identical, seconds=180)
        except AssertionError as error:
            print(error)
        await asyncio.sleep(3)
        over.set()
        await asyncio.gather(*reading)
        weights = await weighing
        same = await identical()
        compared = {region: await reader.incoherent() for region, reader in (("eu", eu), ("ap", ap))}
    lies = sum(len(found) for _, found in compared.values())
    stale = sum(line["stale"] for daemon in daemons for line in daemon.events("batch_applied"))
    print(f"writes {users.written}, live items {len(users.truth)}, kills {killed}, replayed records {stale}")
    print(f"cache entries compared {sum(count for count, _ in compared.values())}, lying {lies}")
    for pid, samples in weights.items():
        slope = growth(samples)
        shown = "too short to tell" if slope is None else f"{slope / 1024:+.2f} MiB/min after warm-up"
        first, last = samples[0][1] // 1024, samples[-1][1] // 1024
        print(f"process {pid}: {first} -> {last} MiB over {len(samples) * 5} s, {shown}")
    codes = [daemon.terminate() for daemon in daemons]
    print(f"exit codes {codes}; verdict: {'identical' if same and not lies else 'DIFFERENT'}")
    return same and not lies and not any(codes)


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--writes", type=int, default=None)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kill-every", type=float, default=60)
    parser.add_argument("--kills", type=int, default=None)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = Options(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory() as directory, open_world(Path(directory)) as world:
        return 0 if asyncio.run(soak(world, options)) else 1


if __name__ == "__main__":
    sys.exit(main())
