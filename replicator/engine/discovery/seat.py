"""A stream's seat: which worker lists the stream for all.

Invariant: the seat is with a worker that lives and lists. Its holder renews it while it reads pages of the listing; a
seat that is not renewed for long, or whose owner is dead, is taken by another worker. Two that list at once cost calls,
and nothing else.
"""

from __future__ import annotations

from replicator.domain.shards.leases import Seat, StreamRef
from replicator.engine.limits import Limits
from replicator.engine.membership.members import Members
from replicator.ports.clock import Clock
from replicator.ports.coordination import Coordination

_RENEWAL_SECONDS = 30.0
_LISTINGS_PER_RENEWAL = 3
_RENEWALS_MISSED = 3


class SeatHolder:
    """What one session knows of a stream's seat."""

    def __init__(
        self, ref: StreamRef, coordination: Coordination, members: Members, *, limits: Limits, clock: Clock
    ) -> None:
        self._ref = ref
        self._coordination = coordination
        self._members = members
        self._clock = clock
        self._renewal = max(_RENEWAL_SECONDS, _LISTINGS_PER_RENEWAL * limits.discovery_seconds)
        self._seen: Seat | None = None
        self._since = clock.monotonic()
        """Since when the seat has been as it was seen last."""
        self._listed = False
        """Whether a page of the listing was read since the seat was renewed."""
        self.held: Seat | None = None
        """The seat, while it is ours."""

    def listed(self) -> None:
        """A page of the listing was read."""
        self._listed = True

    async def claim(self, seat: Seat | None) -> bool:
        """Take the seat if that is due, or renew it; returns whether it is ours and was not. `seat`: what is stored."""
        now, before = self._clock.monotonic(), self.held
        if seat != self._seen:
            self._seen, self._since = seat, now
        if seat is not None and seat.owner == self._members.me:  # a call without an answer may have taken it
            self.held = seat
            if self._listed and now - self._since >= self._renewal:
                await self._take(seat)
        else:
            self.held = None
            if self._may_be_taken(seat, now):
                await self._take(seat)
        return self.held is not None and before is None

    def _may_be_taken(self, seat: Seat | None, now: float) -> bool:
        if seat is None or seat.owner is None or self._members.is_expired(seat.owner):
            return True
        return now - self._since >= _RENEWALS_MISSED * self._renewal

    async def _take(self, seat: Seat | None) -> None:
        if await self._coordination.take_seat(self._ref, seat, self._members.me):
            self.held = Seat(self._members.me, 1 if seat is None else seat.epoch + 1)
            self._seen, self._since, self._listed = self.held, self._clock.monotonic(), False

    async def leave(self) -> None:
        """Let another worker take the seat."""
        if self.held is not None:
            await self._coordination.take_seat(self._ref, self.held, None)
            self.held = None
            self._members.announce()
