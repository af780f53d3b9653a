"""Guards of regions that are away, taken out: `away`'s scenarios must not survive without them."""

from __future__ import annotations

import asyncio
from typing import Any

from replicator.domain.presence import Reason
from replicator.engine.applying.owing import Owing
from replicator.engine.applying.partner import Partner
from replicator.laboratory.memory import owed
from tests.production.guarantee import Mutant

_LATER: set[asyncio.Task[Any]] = set()


def _later(original: Any) -> Any:
    """The deed comes behind the position, unless the process is gone by then."""

    async def deferred(self: Any, *args: Any) -> None:
        task = asyncio.get_running_loop().create_task(original(self, *args))
        _LATER.add(task)
        task.add_done_callback(_LATER.discard)

    return deferred


def _never(_: Any) -> Any:
    return property(lambda self: False)


def _anything_settles(_: Any) -> Any:
    return lambda applied, owed: True


def _never_overdue(original: Any) -> Any:
    def hold(self: Any, reason: Reason, *, holds: bool) -> None:
        original(self, reason, holds=holds and reason is not Reason.OVERDUE)

    return hold


AWAY = {
    "missed_before_position": Mutant(
        "what a region misses is durable before its record is done", ((Owing, "miss", _later),)
    ),
    "nothing_waits": Mutant("nothing waits for a region that is late or away", ((Partner, "is_missing", _never),)),
}
DRAINED = {
    "rows_are_compared": Mutant("a row is settled only by its own version", ((owed, "settles", _anything_settles),)),
}
OVERDUE = {
    "overdue_regions_wait": Mutant(
        "a region that is owed keys for too long is held", ((Partner, "hold", _never_overdue),)
    ),
}
