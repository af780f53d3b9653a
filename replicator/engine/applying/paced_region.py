"""A region's table as all shards of this process write it: so many requests in flight as it takes, shard after shard.

It stands before the adapter of one table and decides nothing about requests. Invariant: a request waits here before its
fence is checked, never behind it; a shard waits for its turn, not until another shard's queue is empty; and requests
that hang keep none from finding out that the table is back; while its gate is closed nothing is begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

from replicator.domain.errors import Disposition, KeyThrottled, ReplicatorError, Throttled
from replicator.domain.modes.requests import Done, GuardedPut, Put, Request, Response
from replicator.domain.pacing import AdaptiveLimit, Pace
from replicator.domain.write_units import units_of, units_taken
from replicator.engine.applying.gate import Gate
from replicator.engine.applying.write_budget import WriteBudget
from replicator.engine.turns import Turns
from replicator.ports.clock import Clock
from replicator.ports.targets import Chains, Fence, Following, Region

_LOOK_SECONDS = 0.5


class _Flow:
    """Requests of one kind: their limit, and those that wait for it."""

    __slots__ = ("limit", "turns")

    def __init__(self, limit: AdaptiveLimit) -> None:
        self.limit = limit
        self.turns = Turns()


class _UnderWay:
    """A request that is under way, by itself or as the last one of a chain."""

    __slots__ = ("counts", "limit", "number")

    def __init__(self, limit: AdaptiveLimit, number: int) -> None:
        self.limit = limit
        self.number = number
        self.counts = True
        """Whether its end is still to be told to the limit."""


class PacedRegion:
    """One table of a rule's target; shared by every shard that writes there."""

    def __init__(
        self, region: Region, pace: Pace, clock: Clock, budget: WriteBudget | None = None, *, gate: Gate | None = None
    ) -> None:
        """`budget`: what may be taken of the region's write units, if that is bounded.

        `gate`: of a region of a mesh, which has one of its own; while that is closed, the region does not answer.
        """
        self._budget = budget
        self._gate = gate
        self._region = region
        is_plain = budget is None and gate is None
        self._chains = region if is_plain and isinstance(region, Chains) else None
        self._pace = pace
        self._clock = clock
        self._singles, self._transactions = _Flow(pace.singles), _Flow(pace.transactions)
        self._next_first, self._next_second = self._singles, self._transactions
        self._looking = False
        self._waiting = 0

    def execute(self, request: Request, fence: Fence) -> Coroutine[Any, Any, Response]:
        """Carry a request out when it may be sent; `KeyThrottled` when only the partition of its key is throttled.

        Raises at once why nothing is sent there.
        """
        if self._gate is not None and self._gate.error is not None and (refusal := self._gate.refusal()) is not None:
            raise refusal
        return self._send(request, fence) if self._budget is None else self._send_within(self._budget, request, fence)

    async def _send_within(self, budget: WriteBudget, request: Request, fence: Fence) -> Response:
        units = units_of(request)
        if units:
            await budget.take(units, id(fence))
        try:
            response = await self._send(request, fence)
        except Throttled:
            budget.settle(units, 0)
            raise
        budget.settle(units, units_taken(request, units, response))
        return response

    async def _send(self, request: Request, fence: Fence) -> Response:
        flow = self._transactions if type(request) is GuardedPut else self._singles  # asked for every write
        limit, pace, monotonic = flow.limit, self._pace, self._clock.monotonic
        if pace.may_begin(limit):
            number = pace.begin(limit, monotonic())
        else:
            number = await self._turn(flow, fence)
        try:
            response = await self._region.execute(request, fence)
        except Throttled as error:
            if pace.throttled(limit, number, monotonic()):
                raise KeyThrottled(error.message) from error
            raise
        except ReplicatorError as error:
            if self._gate is not None:
                self._gate.doubt(error)
            if error.disposition is Disposition.PARK:
                pace.taken(limit, monotonic())
            else:
                limit.unanswered()
            raise
        except BaseException:
            limit.unanswered()
            raise
        else:
            pace.taken(limit, monotonic())
            return response
        finally:
            if self._waiting:
                self._admit()

    # -- chains: requests that each begin in the place of the one before -----------------------------------------------

    async def execute_chain(self, first: Put | GuardedPut, fence: Fence, following: Following) -> Response:
        """Carry out writes, each behind one that took effect, and each when it may be sent."""
        if self._chains is not None:
            under_way = await self._begin(first, fence)
            chain = self._chains.execute_chain(first, fence, partial(self._follow, under_way, following))
            return await self._ended(under_way, chain)
        response = await self.execute(first, fence)
        while isinstance(response, Done) and (request := following()) is not None:
            response = await self.execute(request, fence)
        return response

    async def _begin(self, request: Request, fence: Fence) -> _UnderWay:
        """A request begins as soon as it may."""
        flow = self._transactions if type(request) is GuardedPut else self._singles  # asked for every write
        if self._pace.may_begin(flow.limit):
            return _UnderWay(flow.limit, self._pace.begin(flow.limit, self._clock.monotonic()))
        return _UnderWay(flow.limit, await self._turn(flow, fence))

    def _follow(self, under_way: _UnderWay, following: Following) -> Put | GuardedPut | None:
        """The write behind one that took effect, which begins in its place; it is not asked for where others wait."""
        limit = under_way.limit
        if self._waiting or not self._pace.may_follow(limit):
            return None
        try:
            then = following()
        except BaseException:
            under_way.counts = False
            self._pace.taken(limit, self._clock.monotonic())
            raise
        if then is not None:
            under_way.limit = self._pace.transactions if type(then) is GuardedPut else self._pace.singles
            under_way.number = self._pace.follow(limit, under_way.limit, self._clock.monotonic())
        return then

    async def _ended(self, under_way: _UnderWay, doing: Coroutine[Any, Any, Response]) -> Response:
        """The response to what is under way, which ends by that."""
        try:
            response = await doing
        except Throttled as error:
            number, now = under_way.number, self._clock.monotonic()
            if under_way.counts and self._pace.throttled(under_way.limit, number, now):
                raise KeyThrottled(error.message) from error
            raise
        except BaseException as error:
            if under_way.counts:
                self._failed(under_way.limit, error)
            raise
        else:
            self._pace.taken(under_way.limit, self._clock.monotonic())
            return response
        finally:
            if self._waiting:
                self._admit()

    def _failed(self, limit: AdaptiveLimit, error: BaseException) -> None:
        """A request ended by an error that is no throttle: a refusal is an answer, too."""
        if isinstance(error, ReplicatorError) and error.disposition is Disposition.PARK:
            self._pace.taken(limit, self._clock.monotonic())
        else:
            limit.unanswered()

    async def _turn(self, flow: _Flow, fence: Fence) -> int:
        """Wait for a turn: a shard is known by its fence."""
        turn = flow.turns.join(id(fence))
        self._waiting += 1
        try:
            self._look()
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                flow.limit.unanswered()
                self._admit()
            raise
        finally:
            self._waiting -= 1

    def _admit(self) -> None:
        """Let begin who waits, as far as there is room; the two kinds take turns at what they share."""
        while self._admit_one(self._next_first) or self._admit_one(self._next_second):
            self._next_first, self._next_second = self._next_second, self._next_first

    def _look(self) -> None:
        """While requests wait: let one begin now and then, when everything under way seems to hang."""
        flow = self._next_first if self._next_first.turns else self._next_second
        if self._pace.hangs(self._clock.monotonic()) and self._call_one(flow):
            self._next_first, self._next_second = self._next_second, self._next_first
        if (self._singles.turns or self._transactions.turns) and not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self._looking = False
        self._look()

    def _admit_one(self, flow: _Flow) -> bool:
        return bool(flow.turns) and self._pace.may_begin(flow.limit) and self._call_one(flow)

    def _call_one(self, flow: _Flow) -> bool:
        if not flow.turns:
            return False
        if flow.turns.call_next(self._pace.begin(flow.limit, self._clock.monotonic())) is not None:
            return True
        flow.limit.unanswered()  # who waited was cancelled
        return False
