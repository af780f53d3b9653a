"""What a target is owed of a shard, and whether a page hides that some of it is lost. No calls: values in, values out.

A target is judged by its own place, whatever the others of its rule have read. Invariant: where reading goes on at the
horizon, which begins behind whatever was lost before, no target passes the first record there before its own place was
compared with it.
"""

from __future__ import annotations

import enum

from msgspec import Struct

from replicator.domain.identifiers import SequenceNumber
from replicator.domain.progress import BEGINNING, END, HORIZON, Position
from replicator.domain.shards.leases import LeaseRow, Rewind
from replicator.domain.shards.lineage import RETENTION_SECONDS
from replicator.domain.targets import TargetId

START_TOLERANCE_SECONDS = 60
"""A shard that is found so soon after a target's start was there before it, and is not owed as a whole."""


def is_owed(row: LeaseRow, target_id: TargetId, started_at: float) -> bool:
    """Whether a target must get a shard's very first record: the shard came to be after the target's start."""
    return row.found_at > started_at + START_TOLERANCE_SECONDS and target_id not in row.rewinds


def may_stand_whole(row: LeaseRow, target_id: TargetId, started_at: float) -> bool:
    """Whether a new target begins at the shard's first record if that can be read, though it is not owed it."""
    return row.shard.first is not None and target_id not in row.rewinds and not is_owed(row, target_id, started_at)


def beginning(row: LeaseRow, target_id: TargetId, started_at: float, *, whole: bool) -> Position:
    """Where a new target begins: at the shard's first record, if it is owed or still there (`whole`)."""
    if row.shard.first is None or target_id in row.rewinds:
        return HORIZON
    return BEGINNING if whole or is_owed(row, target_id, started_at) else HORIZON


def place_of(position: Position, rewind: Rewind | None) -> Position:
    """Up to where a target read everything once, though a rewind may have moved it back behind that."""
    if rewind is None:
        return position
    return rewind.until if position == HORIZON else max(position, rewind.until, key=lambda place: place.order)


def is_overdue(
    row: LeaseRow, target_id: TargetId, started_at: float, now: float, kept: float = RETENTION_SECONDS
) -> bool:
    """Whether what was at the horizon when a target was to begin there may have aged away since, `kept` for so long.

    Where the shard's first record is not known, nothing shows it. A rewind at the horizon excuses what was gone then.
    """
    rewind = row.rewinds.get(target_id)
    excused = rewind.before if rewind is not None and rewind.until == HORIZON else 0.0
    since = max(started_at, excused, row.found_at if is_owed(row, target_id, started_at) else 0.0)
    return row.shard.first is not None and now - since > kept


class Mark(Struct, frozen=True):
    """The record that was first at the horizon for a target at `place`, when it was last shown; None: not known."""

    place: Position
    first: SequenceNumber | None


class Verdict(enum.Enum):
    """Whether the first page at the horizon begins behind records that a target has not got."""

    WHOLE = "whole"
    LOST = "lost"
    ASK = "ask"
    """Only the stream knows whether the target's place can still be read from."""


def judge(place: Position, behind: Position, mark: Mark | None, first: SequenceNumber | None) -> Verdict:
    """What a page that was read behind the horizon or the beginning means for a target whose own place is `place`.

    `first`: the page's first record; None: the shard is empty. To be judged after the page was read: what can be read
    from later could be read from then.
    """
    # At a finished shard nothing is owed, behind `first` nothing is missing, and a page that was read from the target's
    # own place cannot hide anything, unless that place is the horizon, which moves.
    if place == END or is_covered(place, first) or (place == behind and behind != HORIZON):
        return Verdict.WHOLE
    if mark is not None and mark.place == place:
        # The same place once showed another first record: what lay before the new one aged away in between.
        jumped = mark.first is not None and (first is None or int(first) > int(mark.first))
        return Verdict.LOST if jumped else Verdict.WHOLE
    return Verdict.WHOLE if place == HORIZON else Verdict.ASK


def is_covered(place: Position, first: SequenceNumber | None) -> bool:
    """Whether a target got the page's first record already, so that nothing is missing between its place and that."""
    return first is not None and place.covers(int(first))
