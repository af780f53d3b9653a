"""Write units: what a request takes of a table's capacity, and a bucket that bounds them per second.

A unit is a kibibyte, begun counts as whole; in a transaction everything counts twice. What a request takes is estimated
before it is sent, and set right by what the service says it took (indexes count too). Invariant: over any time `t` a
bucket grants at most `rate * (t + BURST_SECONDS)` and one request more.
"""

from __future__ import annotations

import math
from typing import assert_never

from replicator.domain.conflicts import LogConflict
from replicator.domain.errors import MalformedRecord
from replicator.domain.image import Image
from replicator.domain.item_size import STAMP_BYTES, item_size
from replicator.domain.modes.requests import (
    Delete,
    DeleteMarked,
    Done,
    GetItem,
    GetSideRow,
    GetTombstone,
    GuardedPut,
    MergeTombstone,
    NoteRemoval,
    Put,
    RaiseFloor,
    RaiseTombstone,
    Refused,
    Remove,
    Replace,
    Request,
    Response,
    Restamp,
    SettleTombstone,
    StampedPut,
    Unstamp,
)

BURST_SECONDS = 0.25
"""What a bucket holds at most, as seconds of its rate: work comes in pages, a quarter of a second apart."""

_UNIT_BYTES = 1024
_MESH_STAMP_BYTES = 130
"""What a stamp of mode `active-active` adds to an item, about."""

_IN_TRANSACTIONS = 2
_RATE_SECONDS = 10.0
"""Over how long the shown rate is averaged."""

_FUZZ = 1e-9
_SLOWED_SECONDS = 10.0


def units_of(request: Request) -> int:
    """What a request takes, as far as the request shows: at least what a delete takes of an item unseen; reads none."""
    match request:
        case Put(_, image):
            return _of_item(image, STAMP_BYTES)
        case StampedPut(_, image):
            return _of_item(image, _MESH_STAMP_BYTES)
        case Replace(_, image):
            return _of_item(image, 0)
        case GuardedPut(put):
            return _IN_TRANSACTIONS * (_of_item(put.image, STAMP_BYTES) + 1)
        case (
            Delete()
            | Remove()
            | DeleteMarked()
            | Restamp()
            | Unstamp()
            | RaiseTombstone()
            | MergeTombstone()
            | SettleTombstone()
            | RaiseFloor()
            | NoteRemoval()
        ):
            return 1
        case GetItem() | GetTombstone() | GetSideRow() | LogConflict():
            return 0
        case _:
            assert_never(request)


def units_taken(request: Request, estimated: int, response: Response) -> float:
    """What a request took, as its answer tells; a refused write is charged by the greater of both items."""
    match response:
        case Done(units=units) if units is not None:
            return units
        case Refused(item) if item is not None:
            times = _IN_TRANSACTIONS if isinstance(request, GuardedPut) else 1
            return max(estimated, times * _of_item(item, 0))
        case _:
            return estimated


def _of_item(image: Image, more: int) -> int:
    """Units of an item and `more` bytes. No encoding is shorter than what it encodes, so few items are looked at."""
    size = len(image.wire) + more
    if size > _UNIT_BYTES:
        try:
            size = item_size(image) + more
        except MalformedRecord:
            return math.ceil(size / _UNIT_BYTES)  # it will be refused
    return max(1, math.ceil(size / _UNIT_BYTES))


class UnitBucket:
    """Units as they become free, and what was taken of them. All times are monotonic seconds."""

    __slots__ = ("_at", "_left", "_rate", "_shown_at", "_slowed_at", "per_second", "taken", "waiting")

    def __init__(self, per_second: int, now: float) -> None:
        """`per_second`: units of all workers together."""
        self.per_second = per_second
        self.taken = 0.0
        """Units since the start."""
        self.waiting = 0
        """Requests that wait for units now."""
        self._left = 0.0
        self._at = self._shown_at = now
        self._rate = 0.0
        self._slowed_at = float("-inf")

    def wait(self, now: float, share: float) -> float:
        """In how many seconds a request may take its units, given the share of `per_second` that is ours; 0: now.

        A request goes when nothing is owed, whatever it takes: so what is larger than the bucket goes, too.
        """
        rate = self.per_second * share
        self._left = min(rate * BURST_SECONDS, self._left + rate * max(0.0, now - self._at)) if rate else self._left
        self._at = now
        if self._left >= -_FUZZ:
            return 0.0
        return -self._left / rate if rate else float("inf")

    def take(self, units: float, now: float) -> None:
        """Take units, or give them back (a negative number): a table that threw a request back took none."""
        self._left -= units
        self.taken += units
        self._rate = self.rate(now) + units / _RATE_SECONDS
        self._shown_at = now

    def slowed(self, now: float) -> None:
        """A request has to wait for its units."""
        self._slowed_at = now

    def rate(self, now: float) -> float:
        """Units a second, over the last seconds."""
        return max(0.0, self._rate * math.exp((self._shown_at - now) / _RATE_SECONDS))

    def is_slowing(self, now: float) -> bool:
        """Whether requests wait, or did lately, for no other reason than this bound."""
        return self.waiting > 0 or now - self._slowed_at < _SLOWED_SECONDS
