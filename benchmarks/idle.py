"""What shards without writers cost, by hand: real daemons, real servers, the stream laboratory.

    python -m benchmarks.idle --shards 1000 --seconds 60
    python -m benchmarks.idle --shards 1000 --seconds 60 --workers 5
    python -m benchmarks.idle --shards 1000 --seconds 60 --idle-max 5 --profile profile.txt

Prints memory and processor time of every daemon, calls per second beside what the configuration asks for, and how long
it took until every shard had an owner; exits 1 when a bound is missed. The profile is of a single worker, from its
start to its end; see `benchmarks.sampling`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.counting import Counted, counting
from benchmarks.profiled import ProfiledDaemon
from replicator.laboratory.streamlab import StreamLab
from tests.integration.harness import Daemon, World, open_world

WRITES_BOUND = 5.0
"""Writes to the coordination table per second."""

DESCRIBES_BOUND = 10
_OWNED_SECONDS = 300.0
_QUIET_SECONDS = 8.0
_LEAVE_SECONDS = 60.0
_HOME = "de"
"""The region of the coordination table: one of its own, so that nothing else is counted there."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to do."""

    shards: int
    seconds: float
    workers: int
    idle_max: float
    profile: Path | None


@dataclass(frozen=True, slots=True)
class Weight:
    """One process at one moment."""

    mebibytes: float
    cpu_seconds: float

    @classmethod
    def of(cls, daemon: Daemon) -> Weight:
        """Resident memory, and the time that the processor spent on it, user and system."""
        place = Path(f"/proc/{daemon.process.pid}")
        fields = (place / "stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        resident = next(line for line in (place / "status").read_text().splitlines() if line.startswith("VmRSS"))
        return cls(int(resident.split()[1]) / 1024, ticks / os.sysconf("SC_CLK_TCK"))


@dataclass(frozen=True, slots=True)
class Moment:
    """Everything that is counted, at one moment."""

    at: float
    weights: list[Weight]
    reads: int
    describes: int
    coordination: Mapping[str, int]
    writes: int

    @classmethod
    def now(cls, daemons: list[Daemon], lab: StreamLab, counted: Counted) -> Moment:
        """Look."""
        calls = lab.stats()["calls"]
        return cls(
            at=time.monotonic(),
            weights=[Weight.of(daemon) for daemon in daemons],
            reads=calls.get("GetRecords", {}).get("total", 0),
            describes=calls.get("DescribeStream", {}).get("total", 0),
            coordination=dict(counted.calls),
            writes=counted.writes(),
        )


def settings(world: World, options: Options, lab: StreamLab, counted: Counted) -> dict[str, Any]:
    """Everything by default, but the time between two looks at an idle shard."""
    written = world.settings(
        coordination={"region": _HOME},
        polling={"idle_max": f"{options.idle_max:g}s"},
        apply={},
        caches={},
        rule={"cache": []},
    )
    written["regions"]["us"]["endpoints"] = {"streams": lab.url}
    written["regions"][_HOME] = {"region": "us-west-2", "endpoint_url": counted.url}
    return written


def started(world: World, config: Path, options: Options) -> list[Daemon]:
    """The daemons."""
    if options.profile is None:
        return [world.daemon(config) for _ in range(options.workers)]
    daemon = ProfiledDaemon(config, world.directory / "profiled.log", options.profile)
    world.daemons.append(daemon)
    return [daemon]


class Leases:
    """Leases that daemons have, by their logs."""

    def __init__(self, daemons: list[Daemon]) -> None:
        self._daemons = daemons
        self._read = [0] * len(daemons)
        self.held = [0] * len(daemons)
        self.changed_at = time.monotonic()

    def look(self) -> int:
        """Read what is new; returns how many shards have an owner."""
        for number, daemon in enumerate(self._daemons):
            assert daemon.process.poll() is None, daemon.log.read_text()[-3000:]
            with daemon.log.open("rb") as log:
                log.seek(self._read[number])
                text = log.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read[number] += len(whole)
            change = whole.count(b'"lease_claimed"') - whole.count(b'"lease_ended"')
            if b'"lease_claimed"' in whole or b'"lease_ended"' in whole:
                self.changed_at = time.monotonic()
            self.held[number] += change
        return sum(self.held)

    async def settle(self, shards: int) -> tuple[float, float]:
        """Seconds until every shard had an owner, and until no lease moved any more."""
        began = time.monotonic()
        while self.look() < shards:
            assert time.monotonic() - began < _OWNED_SECONDS, f"only {sum(self.held)} shards have owners"
            await asyncio.sleep(0.1)
        owned = time.monotonic() - began
        while time.monotonic() < self.changed_at + _QUIET_SECONDS:
            self.look()
            await asyncio.sleep(0.2)
        return owned, self.changed_at - began


async def run(world: World, options: Options) -> bool:
    """Run it; whether the bounds are met."""
    for region, name in (("us", "orders"), ("eu", "orders"), ("ap", "orders-copy")):
        await world.create_table(region, name, stream=region == "us")
    with StreamLab.start(world.directory, world.endpoint, seed=1, shards=options.shards) as lab:
        async with counting(world.endpoint) as counted:
            config = world.write_settings(settings(world, options, lab, counted))
            await asyncio.to_thread(world.initialise, config)
            counted.calls.clear()
            daemons = started(world, config, options)
            leases = Leases(daemons)
            await asyncio.sleep(1)
            first = [Weight.of(daemon) for daemon in daemons]
            owned, settled = await leases.settle(options.shards)
            claiming = dict(counted.calls)
            before = await asyncio.to_thread(Moment.now, daemons, lab, counted)
            await asyncio.sleep(options.seconds)
            after = await asyncio.to_thread(Moment.now, daemons, lab, counted)
            stats = await asyncio.to_thread(lab.stats)
            print(f"{options.shards} shards, {options.workers} workers, idle_max {options.idle_max:g} s")
            print(f"all shards owned after {owned + 1:.1f} s, no lease moved after {settled + 1:.1f} s: {leases.held}")
            print(f"until then at the coordination table: {shown(claiming)}")
            met = report(options, first, before, after, stats["calls"]["DescribeStream"]["most_per_second"])
            began = time.monotonic()
            for daemon in daemons:
                os.kill(daemon.process.pid, signal.SIGTERM)
            codes = [await asyncio.to_thread(daemon.process.wait, _LEAVE_SECONDS) for daemon in daemons]
            print(f"stopped in {time.monotonic() - began:.1f} s, exit codes {codes}")
    return met and not any(codes)


def shown(calls: Mapping[str, int]) -> str:
    """Counts by operation."""
    return ", ".join(f"{count} {name}" for name, count in sorted(calls.items()))


def report(options: Options, first: list[Weight], before: Moment, after: Moment, most_describes: int) -> bool:
    """Print the figures; whether all bounds are met."""
    seconds = after.at - before.at
    for start, early, late in zip(first, before.weights, after.weights, strict=True):
        cpu = (late.cpu_seconds - early.cpu_seconds) / seconds
        print(
            f"memory {start.mebibytes:.0f} MiB at the start, {early.mebibytes:.0f} with all shards,"
            f" {late.mebibytes:.0f} at the end; processor {cpu * 100:.1f} % of a core, {early.cpu_seconds:.1f} s before"
        )
    asked = options.shards / options.idle_max
    print(f"GetRecords {(after.reads - before.reads) / seconds:.0f}/s, at most {asked:.0f}/s by the configuration")
    print(f"DescribeStream {(after.describes - before.describes) / seconds:.2f}/s, most in a second {most_describes}")
    window = {
        name: count - before.coordination.get(name, 0)
        for name, count in after.coordination.items()
        if count > before.coordination.get(name, 0)
    }
    writes = (after.writes - before.writes) / seconds
    print(f"at the coordination table in {seconds:.0f} s: {shown(window)}")
    print(f"coordination writes {writes:.2f}/s, bound {WRITES_BOUND:g}/s")
    met = writes < WRITES_BOUND and most_describes <= DESCRIBES_BOUND
    print(f"verdict: {'bounds met' if met else 'BOUNDS MISSED'}")
    return met


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--idle-max", type=float, default=1)
    parser.add_argument("--profile", type=Path, default=None)
    options = Options(**vars(parser.parse_args()))
    if options.profile is not None and options.workers > 1:
        parser.error("--profile is for one worker")
    with tempfile.TemporaryDirectory() as directory, open_world(Path(directory)) as world:
        return 0 if asyncio.run(run(world, options)) else 1


if __name__ == "__main__":
    sys.exit(main())
