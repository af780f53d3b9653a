"""Draining: a region of a mesh that was away is brought what it missed, and is probed until it is back.

Invariant: a row is settled only as it was read before its key was looked at, so what became owed meanwhile stays owed.
It goes on beside new changes of the same keys, and versions decide.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from msgspec import Struct

from replicator.domain.errors import Disposition, ReplicatorError, Throttled
from replicator.domain.identifiers import WorkerId
from replicator.domain.modes.requests import GetItem, Request, Response
from replicator.domain.owed_keys import OwedKey, Settlement, is_refusal
from replicator.domain.presence import Reason
from replicator.domain.rules import Rule
from replicator.domain.shards.leases import StreamRef
from replicator.domain.values import replace
from replicator.domain.versions import generation_in
from replicator.engine.applying.bringing import bring
from replicator.engine.applying.context import TargetContext, TargetPorts
from replicator.engine.applying.look_ahead import ReadAhead
from replicator.engine.applying.owing import Owing
from replicator.engine.applying.partner import Missing
from replicator.engine.limits import Limits
from replicator.engine.waiting import backoff, pause
from replicator.ports.clock import Clock
from replicator.ports.events import Observer, Place
from replicator.ports.targets import Fence, Region

_MOST_ROWS = 50_000
"""Rows that are held in memory at once; behind them the others are read again."""

_AT_ONCE = 16
"""Keys that are brought at once, beside live traffic."""

_TRIES = 6
"""How often a throttled key is tried before it is left for the next reading."""

_READING_SHARE = 20
"""Reading takes at most this part of the time, unless rows are drained."""

_SOON_SECONDS = 1.0
_LEAST_SECONDS = 0.05


class DrainPorts(Struct, frozen=True):
    """What a drainer works with. `stop` ends what is under way."""

    clock: Clock
    observer: Observer
    fence: Fence
    limits: Limits
    stop: asyncio.Event
    by: WorkerId


class Drainer:
    """What one worker does for one home region of a rule about another region that is away, or was."""

    def __init__(  # noqa: PLR0913 - its collaborators, given once
        self,
        rule: Rule,
        owing: Owing,
        ports: TargetPorts,
        shared: DrainPorts,
        *,
        seated: Callable[[], bool],
        is_paused: Callable[[], bool],
    ) -> None:
        """`seated`: whether this worker drains for all; every worker probes for itself."""
        self._rule = rule
        self._owing = owing
        self._partner = owing.partner
        self._ports = ports
        self._shared = shared
        self._clock = shared.clock
        self._seated = seated
        self._is_paused = is_paused
        self._read_at = float("-inf")
        self._read_took = 0.0

    async def look(self) -> float:
        """Count, probe or drain, whatever is due; returns in how many seconds to look again."""
        return max(_LEAST_SECONDS, await self._look())

    async def _look(self) -> float:
        self._partner.hold(Reason.DECLARED, holds=self._is_paused())
        seated = self._seated()
        if self._owing.owes and self._reads_in() <= 0 and (self._partner.is_missing or not seated):
            await self._read(1)
        if self._partner.is_missing and not self._partner.is_held and self._partner.probe_in() <= 0:
            await self._probe()
        if self._partner.is_held:
            return self._owing.looks.seconds
        if self._partner.is_missing:
            return self._partner.probe_in()
        if seated:
            return await self._drain()
        return self._owing.looks.seconds

    def _reads_in(self) -> float:
        """In how many seconds rows are read again, as long as none is known to be there."""
        rest = max(self._owing.looks.seconds, _READING_SHARE * self._read_took)
        return max(0.0, self._read_at + rest - self._clock.monotonic())

    async def _read(self, most: int) -> tuple[OwedKey, ...]:
        """Read rows, and judge by their age."""
        began = self._clock.monotonic()
        found = await self._owing.missed(most, tells=self._seated())
        self._read_at = self._clock.monotonic()
        self._read_took = self._read_at - began
        age = 0.0 if found.oldest is None else self._clock.now() - found.oldest
        self._partner.hold(Reason.OVERDUE, holds=age > self._shared.limits.overdue_seconds)
        return found.rows

    # -- away ----------------------------------------------------------------------------------------------------------

    async def _probe(self) -> None:
        """Bring one key as a drain does: that shows that the region is back, and that it may be written."""
        last = self._owing.last
        if last is None and self._owing.owes:
            await self._owing.any()
            last = self._owing.last
        key = self._partner.key if last is None else last.key
        if key is None:
            return

        async def deed(region: Region) -> None:
            asked = _Asked(region)
            if last is not None:
                await self._bring(last, asked)
            if not asked.count:
                await region.execute(GetItem(key), self._shared.fence)

        await self._partner.probe(deed)

    # -- back ----------------------------------------------------------------------------------------------------------

    async def _drain(self) -> float:
        """Bring what is owed, oldest first, until nothing is left or the region is missing again."""
        if not self._owing.owes and self._reads_in() > 0:
            return self._reads_in()
        rows = deque(await self._read(_MOST_ROWS))
        if not rows:
            return self._reads_in()
        count = len(rows)
        brought: list[bool] = []
        failed: list[ReplicatorError] = []
        async with asyncio.TaskGroup() as group:
            for number in range(min(_AT_ONCE, count)):
                group.create_task(self._work(rows, brought, failed), name=f"drain-{number}")
        if failed:
            raise failed[0]
        return 0.0 if sum(brought) == count else _SOON_SECONDS

    async def _work(self, rows: deque[OwedKey], brought: list[bool], failed: list[ReplicatorError]) -> None:
        """Bring one key after the other, until rows cannot be settled; notes which were brought."""
        while rows and self._goes_on() and not failed:
            row = rows.popleft()
            try:
                brought.append(await self._deliver(row))
            except Missing:
                continue
            except ReplicatorError as error:
                failed.append(error)

    def _goes_on(self) -> bool:
        return self._seated() and not self._partner.is_missing and not self._shared.stop.is_set()

    async def _deliver(self, row: OwedKey) -> bool:
        """Bring one key, and settle its row; what is refused is parked instead, and what fails stays owed."""
        for attempt in range(_TRIES):
            try:
                with self._partner.awaited():
                    await self._bring(row, self._partner)
            except Throttled:
                if await pause(self._shared.stop, backoff(attempt + 1, self._shared.limits.backoff_seconds)):
                    return False
                continue
            except ReplicatorError as error:
                if error.disposition is Disposition.RELINQUISH:
                    raise
                if not is_refusal(error) or self._owing.refused is None:
                    return False
                parked = replace(row, to=self._owing.refused.to, why=error.message, by=self._shared.by)
                stood = await self._owing.refused.put(parked, None, error, self._shared.fence)
                self._shared.observer.parked(self._place(row), stood)
                await self._owing.drained(row, self._shared.by, self._shared.fence)
            else:
                await self._settle_refused(row)
            return True
        return False

    async def _settle_refused(self, row: OwedKey) -> None:
        """What the region refused of the key before is settled by what it took now."""
        refused = self._owing.refused
        if row.key is None or refused is None or refused.owes(row.key) is None:
            return
        parked = replace(row, to=refused.to, by=self._shared.by)
        if await refused.settle(parked, Settlement.APPLIED, self._shared.fence):
            self._shared.observer.unparked(self._place(row), parked, Settlement.APPLIED)

    # -- one key -------------------------------------------------------------------------------------------------------

    async def _bring(self, row: OwedKey, region: Region) -> None:
        """Bring what stands at home, and settle the row."""
        assert row.key is not None, "what a region missed is of a key"
        shared = self._shared
        context = TargetContext(
            self._rule,
            self._place(row),
            self._ports,
            ReadAhead(),
            shared.limits,
            shared.clock,
            shared.observer,
            shared.fence,
            shared.stop,
        )
        async with self._owing.alone(row.key):
            await bring(context, row, self._partner.name, region)
            await self._owing.drained(row, shared.by, shared.fence)

    def _place(self, row: OwedKey) -> Place:
        stream = StreamRef(self._rule.source, self._rule.table, "", generation_in(row.version))
        return Place(stream, row.shard, self._rule.targets[0])


class _Asked:
    """A region, and how often it was asked."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self.count = 0

    async def execute(self, request: Request, fence: Fence) -> Response:
        self.count += 1
        return await self._region.execute(request, fence)
