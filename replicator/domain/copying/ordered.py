"""Mode `ordered`: bring a replica what stood at the source before its stream, and repair what two looks agree on.

Invariants: what is seeded lies below every record of the stream (`base_version`), so a record always wins. A repair
writes only if the replica still is what the second look saw, under the version that stands there: the next record is
greater. So nothing depends on waiting, but what readers see for a moment.
"""

from __future__ import annotations

import enum
from collections.abc import Generator

from replicator.domain import versions
from replicator.domain.conflicts import ConflictKind, LogConflict, Operation
from replicator.domain.copying.looks import Difference, On, Side, is_versioned
from replicator.domain.image import Image
from replicator.domain.modes.ordered import Action, Change, OrderedPolicy, Steps, Unstamped, replicate_ordered
from replicator.domain.modes.requests import (
    Absent,
    ContentIs,
    Delete,
    Done,
    GuardedPut,
    OrderedRequest,
    Put,
    RaiseTombstone,
    Response,
    SeenCondition,
    StampIs,
    TombstoneBelow,
    TombstoneIs,
)
from replicator.domain.records import ItemKey
from replicator.domain.stamps import held

RepairSteps = Generator[On | LogConflict, Response, "Mended"]
"""Requests to source and target, and entries of the conflict log, which are durable before the write."""


class Extra(enum.StrEnum):
    """What becomes of items without a version that only the replica holds."""

    KEEP = "keep"
    DELETE = "delete"
    LIST = "list"


class Mended(enum.Enum):
    """How a repair ended."""

    PUT = "put"
    DELETED = "deleted"
    LEFT = "left"  # what the rule or the operator wants to stay
    CHANGED = "changed"  # it is not as it was seen any more: look anew


def base_version(epoch: int, generation: int) -> str:
    """v0: the version of what stood at the source before its stream's first record."""
    return versions.ordered_version(epoch, generation, 0)


def seed_ordered(key: ItemKey, image: Image, base: str, policy: OrderedPolicy) -> Steps:
    """Bring a scanned item to a replica unless something newer is there. `image`: what the rule wants there.

    The requests are the mode's own, and go to the replica. `Effect.STALE`: something newer is there, so it is done.
    Only for readers the caller waits first until the replica has passed the scan (`fences.has_passed`).
    """
    return replicate_ordered(Change(Action.PUT, key, base, old=None, new=image), policy)


def repair_ordered(difference: Difference, base: str, policy: OrderedPolicy, extra: Extra = Extra.LIST) -> RepairSteps:
    """Mend one difference. `base`: `base_version` of the stream that the rule reads now.

    Puts onto a missing key are always one transaction with the check of the tombstone, also with `insert_guard: probe`:
    no other record need follow that would show a resurrected item.
    """
    if difference.wanted is None:
        return (yield from _delete(difference, extra))
    target, tombstone = difference.seen.target, difference.seen.tombstone
    buried = tombstone is not None and tombstone >= base
    version = tombstone if tombstone is not None and buried else base
    guard = TombstoneIs(version) if buried else TombstoneBelow(base)
    if target is None:
        return (yield from _put(difference, version, Absent(), guard))
    if is_versioned(target):
        assert target.stamp is not None, "a versioned item has a stamp"
        return (yield from _put(difference, target.stamp, _as_seen(target), None))
    if policy.unstamped is Unstamped.STOP:
        return Mended.LEFT
    return (yield from _put(difference, version, _as_seen(target), guard))


def _put(
    difference: Difference, version: str, when: SeenCondition, guard: TombstoneBelow | TombstoneIs | None
) -> RepairSteps:
    assert difference.wanted is not None, "a put carries an image"
    yield from _log(difference, version)
    put = Put(difference.key, difference.wanted, version, when)
    answer = yield _at_target(put if guard is None else GuardedPut(put, guard))
    return Mended.PUT if isinstance(answer, Done) else Mended.CHANGED


def _delete(difference: Difference, extra: Extra) -> RepairSteps:
    target = difference.seen.target
    assert target is not None, "only an item is extra"
    if is_versioned(target):
        assert target.stamp is not None, "a versioned item has a stamp"
        yield from _log(difference, target.stamp)
        yield _at_target(RaiseTombstone(difference.key, target.stamp))
        answer = yield _at_target(Delete(difference.key, _as_seen(target)))
    elif extra is Extra.DELETE:
        yield from _log(difference, "")
        answer = yield _at_target(Delete(difference.key, _foreign(target)))
    else:
        return Mended.LEFT
    return Mended.DELETED if isinstance(answer, Done) else Mended.CHANGED


def _at_target(request: OrderedRequest) -> On:
    return On(Side.TARGET, request)


def _as_seen(target: Image) -> StampIs:
    seen = held(target)
    assert seen is not None, "an item was seen"
    return StampIs(seen.seen)


def _foreign(target: Image) -> SeenCondition:
    """An item that another program wrote: as it was seen, or at least with what stands in place of a version."""
    when = _as_seen(target)
    return ContentIs(target) if when.seen is None else when


def _log(difference: Difference, version: str) -> Generator[On | LogConflict, Response, None]:
    """Keep what is replaced, so that it can be promoted; what was missing replaces nothing."""
    loser = difference.seen.target
    if loser is not None:
        yield LogConflict(
            key=difference.key,
            kind=ConflictKind.REPAIR,
            winner_version=version,
            winner=difference.wanted,
            loser=loser,
            winner_op=Operation.DELETE if difference.wanted is None else Operation.PUT,
        )
