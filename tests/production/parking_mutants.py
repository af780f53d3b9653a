"""Guards of parking, taken out: `parking`'s scenarios must not survive without them."""

from __future__ import annotations

import asyncio
from typing import Any

from replicator.domain.owed_keys import RetryBy
from replicator.engine.applying import retrying
from replicator.engine.applying.parking import Parking
from replicator.engine.applying.set_aside import SetAside
from replicator.laboratory.memory import owed
from tests.production.guarantee import Mutant

_LATER: set[asyncio.Task[None]] = set()


def _later(original: Any) -> Any:
    """The deed comes behind the position, unless the process is gone by then."""

    async def deferred(self: Any, *args: Any) -> None:
        task = asyncio.get_running_loop().create_task(original(self, *args))
        _LATER.add(task)
        task.add_done_callback(_LATER.discard)

    return deferred


def _anything_settles(_: Any) -> Any:
    return lambda applied, owed: True


def _by_the_image(_: Any) -> Any:
    return lambda owed, now, tombstone_seconds: RetryBy.CHANGE


def _always_room(_: Any) -> Any:
    async def make_room(self: Any, book: Any, error: Any) -> None:
        return

    return make_room


def _unknown(_: Any) -> Any:
    async def load(self: Any) -> None:
        return

    return load


REFUSED = {
    "row_before_position": Mutant("a row is durable before its record counts as done", ((SetAside, "change", _later),)),
    "settled_before_position": Mutant(
        "a row is settled before what settles it counts as done", ((SetAside, "taken", _later),)
    ),
    "rows_are_loaded": Mutant("rows are known before the first record is applied", ((Parking, "load", _unknown),)),
}
NEWEST = {
    "versions_are_compared": Mutant("an older version settles nothing", ((owed, "settles", _anything_settles),)),
}
DELETED = {
    "images_grow_old": Mutant(
        "an image is trusted as long as tombstones live", ((retrying, "retry_by", _by_the_image),)
    ),
}
BOUND = {
    "bound_of_a_target": Mutant("rows of a target are bounded", ((Parking, "_make_room", _always_room),)),
}
