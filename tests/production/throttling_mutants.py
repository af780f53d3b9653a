"""Guards against throttling, taken out: `throttling`'s scenarios must not survive without them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from replicator.domain.pacing import AdaptiveLimit, Pace
from replicator.domain.shards.holdings import Holdings
from replicator.domain.write_units import UnitBucket
from replicator.engine.applying.jobs import Jobs
from replicator.engine.turns import Turns
from tests.production.guarantee import Mutant


def _at_every_throttle(original: Any) -> Any:
    def throttled(self: Any, number: int) -> None:
        self._lately = (1 << 100) - 1
        original(self, number)

    return throttled


def _always_the_tables(original: Any) -> Any:
    def throttled(self: Any, *args: Any) -> bool:
        original(self, *args)
        return False

    return throttled


def _in_every_answer(original: Any) -> Any:
    def throttled(self: Any, number: int) -> None:
        original(self, number + 10**9)

    return throttled


def _never(_: Any) -> Any:
    def throttled(self: Any, number: int) -> None:
        self.throttles += 1
        self.in_flight -= 1

    return throttled


def _no_growth(_: Any) -> Any:
    def taken(self: Any) -> None:
        self._lately = (self._lately << 1) & ((1 << 100) - 1)
        self.in_flight -= 1

    return taken


def _one_queue(_: Any) -> Any:
    def join(self: Any, lane: Any, wants: float = 1) -> Any:
        turn = asyncio.get_running_loop().create_future()
        self._lanes.setdefault("all", deque()).append((turn, wants))
        return turn

    return join


def _everything(_: Any) -> Any:
    return lambda self, tables: 1.0


def _as_at_first(original: Any) -> Any:
    """A share is known once and for all."""
    known: dict[int, float] = {}

    def share(self: Any, tables: Any) -> float:
        now: float = original(self, tables)
        return known.setdefault(id(self), now) if now < 0.9 else known.get(id(self), now)

    return share


def _no_wait(original: Any) -> Any:
    def wait(self: Any, now: float, share: float) -> float:
        original(self, now, share)
        return 0.0

    return wait


def _no(_: Any) -> Any:
    return lambda self: False


HOT = {
    "minorities_lower_nothing": Mutant(
        "the limit falls by a majority of throttles only", ((AdaptiveLimit, "throttled", _at_every_throttle),)
    ),
    "keys_are_told_from_tables": Mutant(
        "a throttled key is told from a throttled table", ((Pace, "throttled", _always_the_tables),)
    ),
}
PAGES = {
    "keys_are_carried_over": Mutant("pages go on without a throttled key", ((Jobs, "wait_by_themselves", _no),)),
}
TABLE = {
    "it_falls": Mutant("the limit falls", ((AdaptiveLimit, "throttled", _never),)),
    "once_a_round": Mutant("it falls once per round of requests", ((AdaptiveLimit, "throttled", _in_every_answer),)),
    "it_grows": Mutant("the limit grows", ((AdaptiveLimit, "taken", _no_growth),)),
}
CROWDED = {"turns": Mutant("shards have turns", ((Turns, "join", _one_queue),))}
CAPACITY = {
    "shares": Mutant("workers share a bound", ((Holdings, "share", _everything),)),
    "shares_that_move": Mutant("a share follows the shards", ((Holdings, "share", _as_at_first),)),
    "units": Mutant("requests wait for their units", ((UnitBucket, "wait", _no_wait),)),
}
