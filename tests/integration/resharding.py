"""Workers that share the shards of a laboratory stream that splits, merges and rolls, while they come and go.

`Run` measures from outside: what the coordination table says of owners, what the laboratory saw, what replicas hold.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replicator.laboratory.streamlab import StreamLab
from tests.integration.harness import AWS_REGIONS, Daemon, Users, World, eventually
from tests.patience import PATIENT_SECONDS

_HOME = "eu"
"""Where the coordination table lies: not behind the laboratory, so that its calls are not part of what is measured."""

_LOOK_SECONDS = 0.05
_WRITING_SECONDS = 3600.0
_ROLLS_OF_ONE = 0.9
"""Share of rolls that are of one shard; the others are of all at once."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: shards at the start, changes in all, their rate, and the workers' times in seconds."""

    shards: int
    changes: int
    per_second: float
    lease: str = "10s"
    heartbeat: str = "3s"
    asleep_seconds: float = 30.0
    seed: int = 1


@dataclass(slots=True)
class Measures:
    """What was measured, in seconds and pieces."""

    first_claims: float = 0.0
    crash_takeover: float = 0.0
    sleep_takeover: float = 0.0
    join_share: float = 0.0
    hand_over: float = 0.0
    reshardings: int = 0
    shards: int = 0
    most_describes_per_second: int = 0
    skipped: int = 0
    read_early: int = 0
    shares: list[int] = field(default_factory=list)


class Owners:
    """Who owns which unfinished shard, by the coordination table."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def unfinished(self) -> dict[str, str | None]:
        """Shards that still have something to read, with their owner's worker id."""
        found: dict[str, str | None] = {}
        async with self._world.client(_HOME) as client:
            pages = client.get_paginator("scan").paginate(TableName="replicator-coordination", ConsistentRead=True)
            async for page in pages:
                for row in page["Items"]:
                    if row["sk"]["S"].startswith("shard|") and not _finished(row):
                        found[row["sk"]["S"].removeprefix("shard|")] = row.get("owner", {}).get("S")
        return found

    async def of(self, daemon: Daemon) -> set[str]:
        """Unfinished shards of one process."""
        mark = f"-{daemon.process.pid}-"
        return {shard for shard, owner in (await self.unfinished()).items() if owner is not None and mark in owner}

    async def shares(self, daemons: list[Daemon]) -> list[int]:
        """How many unfinished shards each process owns."""
        owners = [owner or "" for owner in (await self.unfinished()).values()]
        return [sum(f"-{daemon.process.pid}-" in owner for owner in owners) for daemon in daemons]


def _finished(row: Mapping[str, Any]) -> bool:
    """Whether every target is behind the shard's end."""
    places = [value["S"] for name, value in row.items() if name.startswith("at:")]
    return bool(places) and all(place == "SHARD_END" for place in places)


class Run:
    """One run: three workers, one killed, one asleep, a fourth that joins, one that leaves."""

    def __init__(self, world: World, plan: Plan, tell: Callable[[str], None] = lambda _: None) -> None:
        self._world = world
        self._plan = plan
        self._tell = tell
        self._owners = Owners(world)
        self._dice = random.Random(plan.seed)
        self.users = Users(world, seed=plan.seed, keys=200)
        self.measures = Measures()

    async def run(self, directory: Path) -> Measures:
        """All of it; raises `AssertionError` when something does not come about at all."""
        world, plan, measures = self._world, self._plan, self.measures
        await world.create_tables()
        with StreamLab.start(directory, world.endpoint, seed=plan.seed, shards=plan.shards) as lab:
            config = self._config(lab.url)
            world.initialise(config)
            began = time.monotonic()
            workers = [world.daemon(config) for _ in range(3)]
            await eventually("all shards owned", self._all_owned)
            measures.first_claims = time.monotonic() - began
            await eventually("fair shares", lambda: self._fair(workers))
            writing = asyncio.ensure_future(self.users.write(plan.changes, per_second=plan.per_second))
            resharding = asyncio.ensure_future(self._reshard(lab, writing))
            await self._disturb(config, workers)
            await writing
            await resharding
            await asyncio.to_thread(lab.command, "settle")
            await eventually("identical replicas", self._identical)
            measures.shares = await self._owners.shares(workers)
            for worker in workers:
                if worker.process.poll() is None:
                    assert worker.terminate() == 0, worker.log.read_text()[-2000:]
            self._read_laboratory(lab)
        return measures

    def _config(self, url: str) -> Path:
        settings = self._world.settings(
            coordination={"region": _HOME, "lease": self._plan.lease, "heartbeat": self._plan.heartbeat}
        )
        settings["regions"]["us"] = {"region": AWS_REGIONS["us"], "endpoint_url": url}
        return self._world.write_settings(settings)

    # -- what happens ----------------------------------------------------------------------------------------------

    async def _reshard(self, lab: StreamLab, writing: asyncio.Future[None]) -> None:
        """A split, a merge or a roll about every second; now and then all shards roll at once."""
        while not writing.done():
            command = self._dice.choice(["split", "split", "merge", "merge", "roll"])
            streams = await asyncio.to_thread(lab.streams)
            names = [shard["shard"] for stream in streams for shard in stream["shards"] if shard["open"]]
            one = (
                {"shard": self._dice.choice(names)} if command == "roll" and self._dice.random() < _ROLLS_OF_ONE else {}
            )
            await asyncio.to_thread(lambda name, more: lab.command(name, table="orders", **more), command, one)
            self.measures.reshardings += 1
            await asyncio.sleep(1)

    async def _disturb(self, config: Path, workers: list[Daemon]) -> None:
        """kill -9, SIGSTOP, a newcomer, SIGTERM, at eighths of the changes."""
        plan, measures = self._plan, self.measures
        await self._written(1 / 8)
        killed = workers.pop(0)
        left = await self._owners.of(killed)
        killed.kill()
        measures.crash_takeover = await self._taken_over(left, killed)
        self._tell(f"kill -9: {len(left)} shards taken over in {measures.crash_takeover:.1f} s")
        await self._written(3 / 8)
        asleep = workers[0]
        left = await self._owners.of(asleep)
        asleep.signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        measures.sleep_takeover = await self._taken_over(left, asleep)
        self._tell(f"SIGSTOP: {len(left)} shards taken over in {measures.sleep_takeover:.1f} s")
        await asyncio.sleep(max(0.0, plan.asleep_seconds - (time.monotonic() - stopped_at)))
        asleep.signal(signal.SIGCONT)
        await self._written(5 / 8)
        began = time.monotonic()
        workers.append(self._world.daemon(config))
        await eventually("a share for the newcomer", lambda: self._fair(workers))
        measures.join_share = time.monotonic() - began
        self._tell(f"a newcomer has its share after {measures.join_share:.1f} s")
        await self._written(6 / 8)
        leaving = workers[1]
        left = await self._owners.of(leaving)
        leaving.signal(signal.SIGTERM)
        measures.hand_over = await self._taken_over(left, leaving)
        self._tell(f"SIGTERM: {len(left)} shards handed over in {measures.hand_over:.1f} s")
        assert leaving.process.wait(PATIENT_SECONDS) == 0

    async def _written(self, share: float) -> None:
        await eventually("writing", lambda: self.users.written >= share * self._plan.changes, seconds=_WRITING_SECONDS)

    async def _taken_over(self, left: set[str], former: Daemon) -> float:
        """Seconds until each of these shards is finished or owned by another process."""
        began, mark = time.monotonic(), f"-{former.process.pid}-"

        async def over() -> bool:
            owners = await self._owners.unfinished()
            return all(owners[shard] is not None and mark not in str(owners[shard]) for shard in left & owners.keys())

        while not await over():
            assert time.monotonic() - began < PATIENT_SECONDS, "shards are not taken over"
            await asyncio.sleep(_LOOK_SECONDS)
        return time.monotonic() - began

    # -- what holds ------------------------------------------------------------------------------------------------

    async def _all_owned(self) -> bool:
        owners = await self._owners.unfinished()
        return len(owners) >= self._plan.shards and None not in owners.values()

    async def _fair(self, workers: list[Daemon]) -> bool:
        """No worker is far from the mean: shards come and go while we look."""
        shares = await self._owners.shares(workers)
        return min(shares) > 0 and max(shares) - min(shares) <= max(4, sum(shares) // 5)

    async def _identical(self) -> bool:
        return all(items == self.users.truth for items in (await self._world.replicas()).values())

    def _read_laboratory(self, lab: StreamLab) -> None:
        stats, measures = lab.stats(), self.measures
        measures.shards = sum(len(stream["shards"]) for stream in lab.streams())
        measures.most_describes_per_second = stats["calls"]["DescribeStream"]["most_per_second"]
        measures.skipped = sum(stats["skipped"].values())
        measures.read_early = stats["read_early"]
