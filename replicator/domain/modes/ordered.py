"""Mode `ordered`: one writer region, replicas that only replicator writes.

Owns the decision how one change reaches one replica, as a generator of requests. Invariants (docs/protocol.md):
I1 the version of a replica's item only grows (present: its stamp; absent: at least its tombstone). I2 the tombstone is
written before the item is deleted. I3 a put onto a missing key is atomic with the check of the tombstone.
Leaves retries, fencing and caches to its driver.
"""

from __future__ import annotations

import enum
from collections.abc import Generator

import msgspec

from replicator.domain.conflicts import ConflictKind, LogConflict, Operation, Reason
from replicator.domain.errors import UnstampedItem
from replicator.domain.identifiers import RegionId
from replicator.domain.image import Image, canonical, same_content
from replicator.domain.modes.requests import (
    AbsentOrStampBelow,
    Condition,
    Delete,
    Done,
    Found,
    GetItem,
    GetTombstone,
    GuardedPut,
    Put,
    RaiseTombstone,
    Refused,
    Request,
    Response,
    StampBelow,
    TombstoneBelow,
    UnstampedOrStampBelow,
)
from replicator.domain.records import ItemKey
from replicator.domain.versions import is_ordered_version, is_tied


class InsertGuard(enum.Enum):
    """How a put onto a missing key is kept from resurrecting a deleted item."""

    TRANSACT = "transact"
    PROBE = "probe"


class Unstamped(enum.Enum):
    """What to do with an item on the replica that carries no stamp."""

    ADOPT = "adopt"
    STOP = "stop"


class OrderedPolicy(msgspec.Struct, frozen=True):
    """The choices that a rule makes for mode `ordered`."""

    insert_guard: InsertGuard = InsertGuard.TRANSACT
    unstamped: Unstamped = Unstamped.ADOPT


class Action(enum.Enum):
    """What a change asks of a replica."""

    PUT = "put"
    REMOVE = "remove"
    REMOVE_IF_PRESENT = "remove_if_present"


class Change(msgspec.Struct, frozen=True, gc=False):
    """One item's change, ready for a replica.

    `new` is the image to put (without reserved attributes), None for a removal; `old` is what the source held before,
    as it came, None when the item was created. `source` and `created_at` (seconds since 1970) are where and when it was
    written. `is_coarse`: its time counts milliseconds, so changes of one have versions that say nothing of their order;
    `replaced` is then what the first change of that millisecond replaced. It goes over what is older than `below`, or
    than itself where that is empty: over none of its millisecond but those that it is later than as the source says.
    """

    action: Action
    key: ItemKey
    version: str
    old: Image | None
    new: Image | None
    source: RegionId | None = None
    created_at: float | None = None
    is_coarse: bool = False
    replaced: Image | None = None
    below: str = ""

    @property
    def over(self) -> str:
        """The version below which something is older than this change."""
        return self.below or self.version


class Effect(enum.Enum):
    """How the replica answered."""

    __hash__ = object.__hash__  # counted for every record, and the one of enumerations is not compiled

    APPLIED = "applied"
    DELETED = "deleted"
    STALE = "stale"  # the replica already held this version or a newer one
    ABSENT = "absent"  # there was nothing to delete
    ECHO = "echo"  # a write of our own that came back, verified (meshes only)
    OWED = "owed"  # it was away or refused the change, and is owed its key (meshes only)


class Outcome(msgspec.Struct, frozen=True):
    """How a change ended at a replica; `adopted`: an item without a stamp was overwritten or deleted.

    `tied`: the version of another change of its millisecond that is there already. `follows`: that one left what this
    one replaced.
    """

    effect: Effect
    adopted: bool = False
    tied: str | None = None
    follows: bool = False


Steps = Generator[Request, Response, Outcome]


def replicate_ordered(change: Change, policy: OrderedPolicy) -> Steps:
    """Bring one change of the writer region to one replica."""
    return _put(change, policy) if change.action is Action.PUT else _removed(change, policy)


def _removed(change: Change, policy: OrderedPolicy) -> Steps:
    if change.action is Action.REMOVE_IF_PRESENT:
        standing = yield GetItem(change.key)
        if isinstance(standing, Found) and standing.item is None:
            return Outcome(Effect.ABSENT)
    return (yield from _remove(change, policy))


def _put(change: Change, policy: OrderedPolicy) -> Steps:
    if change.old is not None:
        answer = yield _plain_put(change, StampBelow(change.over))
        if isinstance(answer, Done):
            return Outcome(Effect.APPLIED)
        if _is_ours(_item_in_the_way(answer)):
            return (yield from _stale(change, answer))
    answer = yield from _insert(change, policy, AbsentOrStampBelow(change.over))
    if isinstance(answer, Done):
        return Outcome(Effect.APPLIED)
    if not _met_unstamped(answer):
        return (yield from _stale(change, answer))
    yield from _adopt(change, policy, _item_in_the_way(answer))
    answer = yield from _insert(change, policy, UnstampedOrStampBelow(change.over))
    if isinstance(answer, Done):
        return Outcome(Effect.APPLIED, adopted=True)
    _refuse_foreign(change, answer)
    return Outcome(Effect.STALE)


def _insert(change: Change, policy: OrderedPolicy, when: Condition) -> Generator[Request, Response, Response]:
    """Put onto a key that may be missing: never over a tombstone at or above this version."""
    if policy.insert_guard is InsertGuard.TRANSACT:
        return (yield GuardedPut(_plain_put(change, when), TombstoneBelow(change.over)))
    probe = yield GetTombstone(change.key)
    if isinstance(probe, Found) and probe.tombstone is not None and probe.tombstone >= change.over:
        return Refused(by_tombstone=True)
    return (yield _plain_put(change, when))


def _plain_put(change: Change, when: Condition) -> Put:
    assert change.new is not None, "a put carries an image"
    return Put(change.key, change.new, change.version, when)


def _remove(change: Change, policy: OrderedPolicy) -> Steps:
    yield RaiseTombstone(change.key, change.version)
    answer = yield Delete(change.key, AbsentOrStampBelow(change.over))
    if isinstance(answer, Done):
        return Outcome(Effect.DELETED)
    if not _met_unstamped(answer):
        return (yield from _stale(change, answer))
    yield from _adopt(change, policy, _item_in_the_way(answer))
    answer = yield Delete(change.key, UnstampedOrStampBelow(change.over))
    if isinstance(answer, Done):
        return Outcome(Effect.DELETED, adopted=True)
    _refuse_foreign(change, answer)
    return Outcome(Effect.STALE)


def _stale(change: Change, answer: Response) -> Steps:
    """The replica holds this version or a newer one; of a change of one millisecond it may be an older change."""
    if not change.is_coarse or not isinstance(answer, Refused):
        return Outcome(Effect.STALE)
    item, tombstone = answer.item, ""
    if answer.by_tombstone or item is None:
        row, found = (yield GetTombstone(change.key)), (yield GetItem(change.key))
        assert isinstance(row, Found), "a tombstone was read"
        assert isinstance(found, Found), "an item was read"
        item, tombstone = found.item, row.tombstone or ""
    if item is not None and change.new is not None and same_content(item, change.new):
        return Outcome(Effect.STALE)
    there = max(tombstone, (item and item.stamp) or "")
    if not there or not is_tied(there, change.version):
        return Outcome(Effect.STALE)
    follows = item is change.replaced is None or (
        item is not None and change.replaced is not None and same_content(item, change.replaced)
    )
    return Outcome(Effect.STALE, tied=there, follows=follows)


# -- items that replicator did not write ---------------------------------------------------------------------------


def _item_in_the_way(answer: Response) -> Image | None:
    return answer.item if isinstance(answer, Refused) else None


def _is_ours(item: Image | None) -> bool:
    return item is not None and item.stamp is not None and is_ordered_version(item.stamp)


def _met_unstamped(answer: Response) -> bool:
    """Whether the write was refused by an item that does not carry a version of ours, and by nothing else."""
    item = _item_in_the_way(answer)
    by_tombstone = isinstance(answer, Refused) and answer.by_tombstone
    return item is not None and not by_tombstone and not _is_ours(item)


def _adopt(change: Change, policy: OrderedPolicy, item: Image | None) -> Generator[Request, Response, None]:
    """Prepare to overwrite an unstamped item, or raise `UnstampedItem` when the rule forbids it."""
    assert item is not None, "only an item can be adopted"
    if policy.unstamped is Unstamped.STOP:
        raise UnstampedItem(f"The replica holds an item without a version under {change.key.shown}.")
    known = {canonical(image) for image in (change.old, change.new) if image is not None}
    if canonical(item) not in known:
        yield LogConflict(
            key=change.key,
            kind=ConflictKind.UNVERSIONED,
            winner_version=change.version,
            winner=change.new,
            loser=item,
            reason=Reason.VERSION,
            winner_region=change.source,
            winner_micros=None if change.created_at is None else int(change.created_at * 1_000_000),
            winner_op=Operation.DELETE if change.new is None else Operation.PUT,
        )


def _refuse_foreign(change: Change, answer: Response) -> None:
    if _met_unstamped(answer):
        raise UnstampedItem(
            f"The replica's item {change.key.shown} has an attribute `_rep` that is not a version of this mode.",
            advice="Remove that attribute or the item from the replica; nothing else may write `_rep` there.",
        )
