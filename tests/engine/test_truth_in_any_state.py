"""Whatever fails, the greatest lag over all workers is never less than the truth for longer than a take-over takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
import structlog

from replicator.domain.errors import Unreachable
from replicator.domain.identifiers import RegionId, RuleName
from replicator.domain.rules import Rule
from replicator.engine.limits import Limits
from replicator.observability.metrics import Metrics
from replicator.observability.observer import LiveObserver
from replicator.observability.readiness import unready
from replicator.observability.status_board import Board
from replicator.ports.clock import Clock
from tests.engine.world import AP, EPOCH_SECONDS, EU, Process, World, rule, target
from tests.seeds import seeds

RULE = rule("orders", target("orders", EU), target("orders", AP))
LIMITS = Limits(lease_seconds=5.0, heartbeat_seconds=1.5, drained_seconds=3.0, backoff_seconds=5.0)
EXACT_SECONDS = 2.5
"""Times of records are whole seconds, and what is written is on its way for a moment."""
TAKE_OVER_SECONDS = 15.0
"""The lease, until a worker counts as dead; then until the one that reports for all has looked."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


class Live(LiveObserver):
    """The observer of a daemon, with its board in sight."""

    def __init__(self, clock: Clock, rules: Sequence[Rule]) -> None:
        self.board = Board("test", rules, clock)
        super().__init__(self.board, Metrics(), clock)


@dataclass
class Story:
    """Writes, workers and what they report; time is virtual."""

    world: World
    dice: Random
    processes: list[Process] = field(default_factory=list)
    written: dict[str, float] = field(default_factory=dict)
    short_since: dict[RegionId, float] = field(default_factory=dict)
    paused: bool = False
    events: list[str] = field(default_factory=list)

    @property
    def now(self) -> float:
        return EPOCH_SECONDS + asyncio.get_running_loop().time()

    def start(self) -> None:
        self.processes.append(self.world.process(RULE, limits=LIMITS, observed_by=Live).start())

    def write(self) -> None:
        name = f"k{len(self.written)}"
        self.written[name] = self.now
        self.world.put(name, 0)

    def truth(self, region: RegionId) -> float:
        """The age of the oldest write that a replica does not have."""
        holds = self.world.holds(region)
        return self.now - min((at for name, at in self.written.items() if name not in holds), default=self.now)

    def reported(self, region: RegionId) -> float | None:
        """The greatest lag over all workers; None when none reports any, or one says that it is not known."""
        figures = [
            each
            for process in self.processes
            for each in process.observer.board.figures()
            if each.target.region == region
        ]
        lags = [each.lag for each in figures if each.lag is not None]
        return max(lags) if lags and len(lags) == len(figures) else None

    def look(self) -> None:
        for region in (EU, AP):
            truth, lag = self.truth(region), self.reported(region)
            unknown = [each for each in self.processes if _says_unknown(each, region)]
            fits = (lag is not None and lag >= truth - EXACT_SECONDS) or (lag is None and unknown)
            if fits or truth < EXACT_SECONDS or not self.processes:
                self.short_since.pop(region, None)
            since = self.short_since.setdefault(region, self.now) if not fits else self.now
            if truth >= EXACT_SECONDS and self.processes:
                assert self.now - since <= TAKE_OVER_SECONDS, self.described(region, truth, lag)

    def described(self, *said: object) -> str:
        """What happened, and what each process shows."""
        boards = [process.observer.board for process in self.processes]
        shown = [
            (board.worker, [(each.shard_id, each.state, each.lag) for each in board.figures()], unready(board))
            for board in boards
        ]
        owners = {shard: row.owner for shard, row in self.world.coordination.rows(self.world.ref).items()}
        return f"{said} behind {self.events}: {shown}, owners {owners}"

    async def live_on(self, seconds: int, *, writes: bool) -> None:
        for _ in range(seconds):
            if writes and self.dice.random() < 0.7:
                self.write()
            await asyncio.sleep(1.0)
            self.look()

    async def happen(self) -> None:
        world, dice = self.world, self.dice
        event = dice.choice(["eu", "ap", "table", "stream", "pause", "kill", "drain", "heal", "join"])
        self.events.append(event)
        if event in {"eu", "ap"}:
            faults = world.regions[RegionId(event)].faults
            faults.outage = None if faults.outage else Unreachable
        elif event == "table":
            for faults in (world.membership.faults, world.coordination.faults, world.registry.faults):
                faults.outage = None if faults.outage else Unreachable
        elif event == "stream":
            world.streams.faults.outage = None if world.streams.faults.outage else Unreachable
        elif event == "pause":
            self.pause(paused=not self.paused)
        elif event == "kill":
            await self.processes.pop(dice.randrange(len(self.processes))).kill()
            self.start()
        elif event == "drain" and not world.coordination.faults.outage:
            process = self.processes.pop(dice.randrange(len(self.processes)))
            self.start()
            process.stop.set()
            await asyncio.sleep(3)
            await process.kill()
        elif event == "join" and len(self.processes) < 3:
            self.start()
        elif event == "heal":
            self.heal()

    def pause(self, *, paused: bool) -> None:
        self.paused = paused
        if paused:
            self.world.membership.pause(RuleName("orders"), self.now)
        else:
            self.world.membership.resume(RuleName("orders"))

    def heal(self) -> None:
        world = self.world
        stores = (world.membership.faults, world.coordination.faults, world.registry.faults, world.streams.faults)
        for faults in (*stores, *(region.faults for region in world.regions.values())):
            faults.outage = None
        self.pause(paused=False)


def _says_unknown(process: Process, region: RegionId) -> bool:
    figures = process.observer.board.figures()
    return any(each.lag is None for each in figures if each.target.region == region)


@pytest.mark.parametrize("seed", seeds(2, 14))
async def test_the_greatest_lag_is_never_less_than_the_truth_and_goes_when_all_is_well(seed: int) -> None:
    story = Story(World("s0", "s1", seed=seed), Random(seed))
    story.start()
    await story.live_on(10, writes=True)
    for _ in range(14):
        await story.happen()
        await story.live_on(story.dice.choice([5, 20, 60]), writes=story.dice.random() < 0.7)
    story.heal()
    await story.live_on(60, writes=False)
    for region in (EU, AP):
        assert story.truth(region) == 0.0
        assert story.reported(region) == 0.0
    assert [process.observer.board.overview is None for process in story.processes].count(False) == 1
    for process in story.processes:
        await process.kill()
