"""Another region of a mesh as one process sees it: asked through here, so that its silence and its return are noticed.

Invariant: nothing waits for a region that is late or away; what waited is let go when it becomes so. What a region
answers, and when it must have answered, is decided in `domain/presence.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from replicator.domain.errors import Disposition, ReplicatorError, Throttled, Unreachable
from replicator.domain.identifiers import RegionId, RuleName
from replicator.domain.modes.requests import Request, Response
from replicator.domain.owed_keys import is_refusal
from replicator.domain.presence import Presence, Reason, Standing
from replicator.domain.records import ItemKey
from replicator.engine.waiting import jitter
from replicator.ports.events import Observer, RegionState
from replicator.ports.targets import Fence, Region

_TICK_SECONDS = 0.25
_TOLERATED_SECONDS = 0.05
"""A timer that comes later than that shows that this process stood still."""

_PROBE_SECONDS = 2.0
"""Time between two probes of a region that does not answer at most."""


class Missing(Exception):
    """The region is late or away, so what it misses is owed to it."""


class Partner:
    """One other region of a rule's mesh, shared by all streams of the rule in this process."""

    def __init__(
        self,
        rule: RuleName,
        name: RegionId,
        region: Region,
        *,
        away_after: float,
        observer: Observer,
    ) -> None:
        self.rule = rule
        self.name = name
        self.key: ItemKey | None = None
        """What it was asked about last: a probe asks about it again."""
        self._region = region
        self._presence = Presence(away_after)
        self._observer = observer
        self._waiting: set[_Awaiting] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._stalled = 0.0
        self._told: tuple[Standing, Reason, str] | None = None
        self._probe_at = float("-inf")
        self._listeners: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        """Asked for once: until Python 3.12 every question is a call of the system."""

    # -- how it stands -------------------------------------------------------------------------------------------------

    @property
    def is_missing(self) -> bool:
        """Whether nothing waits for it now."""
        return self._standing() is not Standing.HERE

    @property
    def is_held(self) -> bool:
        """Whether it is away whatever it answers."""
        return self._presence.is_held()

    @property
    def why(self) -> str:
        """What it said last, or that it said nothing."""
        if self._presence.is_held():
            return _HELD[self._presence.reason()]
        return self._presence.why or "It does not answer."

    def listen(self, changed: asyncio.Event) -> None:
        """Set an event whenever it stands otherwise than before."""
        self._listeners.add(changed)

    def unlisten(self, changed: asyncio.Event) -> None:
        """Its listener is gone."""
        self._listeners.discard(changed)

    def tell(self) -> None:
        """Let listeners look."""
        for each in self._listeners:
            each.set()

    def hold(self, reason: Reason, *, holds: bool) -> None:
        """Something else than silence keeps it away, or no longer does."""
        self._presence.hold(reason, self._now(), holds=holds)
        self._look()

    def _now(self) -> float:
        """Seconds of a clock that stands still while this process does: its own stalls are no region's silence."""
        return (self._loop or self._running()).time() - self._stalled

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def _standing(self) -> Standing:
        return self._presence.standing(self._now())

    def _look(self) -> None:
        """Tell how it stands, let go what waits for it in vain, and look again when that may change."""
        now = self._now()
        standing = self._presence.standing(now)
        told = (standing, self._presence.reason(), self._presence.why)
        if self._told is None or told[:2] != self._told[:2]:
            since = self._presence.since()
            seconds = 0.0 if since is None else max(0.0, now - since)
            self._observer.region_stands(RegionState(self.rule, self.name, standing, told[1], self.why, seconds))
            self.tell()
        self._told = told
        if standing is not Standing.HERE:
            for each in self._waiting:
                each.let_go()
        self._arm(now)

    def _arm(self, now: float) -> None:
        """Look again when silence becomes too long."""
        wait = self._presence.changes_in(now)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wait is not None:
            loop = asyncio.get_running_loop()
            due = loop.time() + min(wait + 0.001, _TICK_SECONDS)
            self._timer = loop.call_at(due, self._tick, due)

    def _tick(self, due: float) -> None:
        late = asyncio.get_running_loop().time() - due
        if late > _TOLERATED_SECONDS:
            self._stalled += late
        self._look()

    # -- asking it -----------------------------------------------------------------------------------------------------

    async def execute(self, request: Request, fence: Fence) -> Response:
        """Carry a request out there, and note what that shows."""
        presence = self._presence
        number = presence.asked(now := self._now())
        if self._timer is None:
            self._arm(now)
        try:
            response = await self._region.execute(request, fence)
        except ReplicatorError as error:
            self._take(number, error)
            raise
        except BaseException:
            presence.given_up(number, silent=True)
            raise
        self._answered(number)
        return response

    def _answered(self, number: int) -> None:
        self._presence.answered(number, self._now())
        if self._told is not None and self._told[0] is not Standing.HERE:
            self._look()

    def awaited(self) -> _Awaiting:
        """Ask it something, as long as it is here; raises `Missing` when it is not, or is not any more."""
        return _Awaiting(self, self._waiting, self._running())

    def probe_in(self) -> float:
        """In how many seconds it may be probed again."""
        return max(0.0, self._probe_at - self._now())

    async def probe(self, deed: Callable[[Region], Awaitable[None]]) -> None:
        """Try something there as a whole: it is back only when all of that succeeded, in time."""
        self._probe_at = self._now() + _PROBE_SECONDS * (0.5 + 0.5 * jitter())
        number = self._presence.asked(self._now())
        probed = _Probed(self._region)
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await deed(probed)
        except TimeoutError:
            self._presence.given_up(number, silent=True)
        except ReplicatorError as error:
            self._take(number, error, of_region=probed.failed)
            if error.disposition is Disposition.RELINQUISH:
                raise
        except BaseException:
            self._presence.given_up(number, silent=False)
            raise
        else:
            self._answered(number)

    def _take(self, number: int, error: ReplicatorError, *, of_region: bool = True) -> None:
        """Note what an error shows: nothing, when it is not the region's."""
        if not of_region or error.disposition is Disposition.RELINQUISH:
            self._presence.given_up(number, silent=False)
        elif isinstance(error, Throttled) or is_refusal(error):
            self._answered(number)
        else:
            self._presence.failed(number, error.message, said_no=not isinstance(error, Unreachable))
            self._look()


class _Awaiting:
    """Something that is asked of a region, and let go when that becomes missing.

    It is let go as a timeout of the standard library lets go: by a cancellation of its task with the loop's next turn,
    which is taken back. Every change is brought to a region through here, and making such a timeout cost as much as
    all else here.
    """

    __slots__ = ("_cancelling", "_is_let_go", "_letting_go", "_loop", "_partner", "_task", "_waiting")

    def __init__(self, partner: Partner, waiting: set[_Awaiting], loop: asyncio.AbstractEventLoop) -> None:
        self._partner = partner
        self._waiting = waiting
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._letting_go: asyncio.Handle | None = None
        self._is_let_go = False

    def __enter__(self) -> None:
        if self._partner.is_missing:
            raise Missing
        task = self._task = asyncio.current_task(self._loop)
        assert task is not None, "what is awaited is awaited by a task"
        self._cancelling = task.cancelling()
        self._waiting.add(self)

    def let_go(self) -> None:
        """Give up what is asked, unless it is answered before the loop's next turn."""
        if self._letting_go is None:
            self._letting_go = self._loop.call_soon(self._cancel)

    def _cancel(self) -> None:
        assert self._task is not None, "it was entered"
        self._is_let_go = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.discard(self)
        if self._letting_go is None:
            return
        self._letting_go.cancel()
        if self._is_let_go and self._task is not None:
            is_ours = self._task.uncancel() <= self._cancelling
            if is_ours and kind is asyncio.CancelledError:
                raise Missing from None


class _Probed:
    """A region while it is probed, and whether it was what failed."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self.failed = False

    async def execute(self, request: Request, fence: Fence) -> Response:
        try:
            return await self._region.execute(request, fence)
        except ReplicatorError:
            self.failed = True
            raise


_HELD = {
    Reason.DECLARED: "An operator paused it.",
    Reason.OVERDUE: "It missed so much for so long that deletes may be forgotten: it must be rebuilt.",
}
