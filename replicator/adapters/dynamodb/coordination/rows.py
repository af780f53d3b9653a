"""Rows of the coordination table as values, read strictly.

Invariant: a row is either understood as a whole or named as corrupt, with the attribute and a remedy; nothing is
guessed. Lineage that is missing is no corruption: a listing brings it again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct, field

from replicator.adapters.dynamodb.coordination.names import (
    CHECKPOINT,
    DRAINED_FOR,
    DRIVEN_BY,
    DRIVEN_SINCE,
    FORMERLY,
    KEEPS,
    MEMBERS,
    REPAIRED_BY,
    REWIND,
    SCHEMA,
    SEAT,
    SHARD,
    STATEMENTS,
    TARGET,
    THROUGH,
    Names,
)
from replicator.adapters.dynamodb.coordination.statements import unpacked
from replicator.domain.drivers import Drivers
from replicator.domain.driving import Driving
from replicator.domain.errors import NewerLayout, WorldMismatch
from replicator.domain.gaps import Gap, OpenGap
from replicator.domain.identifiers import RegionId, RuleName, SequenceNumber, ShardId, TableName, WorkerId
from replicator.domain.progress import Position, parse_position, reached
from replicator.domain.shards.leases import KnownStream, LeaseRow, Pulse, Rewind, Seat, StreamRef, TargetStart
from replicator.domain.shards.lineage import Shard
from replicator.domain.targets import TargetId, parse_target

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef

    Row = Mapping[str, AttributeValueTypeDef]

_ADVICE_SHARD = "Delete the row: its shard is then read again from the trim horizon, which is safe."
_ADVICE_TARGET = "Delete the row: the target's start is then recorded again; its checkpoints stay."
_ADVICE_SEAT = "Delete the row: a worker then takes the seat again."
_ADVICE_BY_PARTITION = {
    "workers": "Delete the row: a running worker writes it again.",
    "streams": "Delete the row: the table's present stream is recorded again; the rest of an older stream is not read.",
    "gaps": "Delete the row: a gap that still stops a target is detected and recorded again.",
    "rules": "Delete the row: its rule is then not paused.",
    "tables": "Delete the row: the table is then assumed to be the one that its rule wrote before, and recorded again.",
    "regions": "Delete the row: its region is then not paused for the rule.",
    "audit": "Delete the row: it is an audit record of the admin API, and nothing else depends on it.",
    "jobs": "Delete the row and all others of its partition, then start the job again.",
}

_STREAM_PARTS = 3
_OURS = str(SCHEMA)


def rewind_text(rewind: Rewind) -> str:
    """How a rewind is stored."""
    return f"{rewind.before!r} {rewind.until.text}"


def parse_rewind(text: str) -> Rewind | None:
    """A stored rewind, or None when the text is none."""
    before, _, until = text.partition(" ")
    position = parse_position(until)
    seconds = _finite(before)
    return None if position is None or seconds is None else Rewind(seconds, position)


def through_text(position: Position) -> str:
    """How the time of a position is stored: with the position, so that it counts for none that lies before it."""
    return f"{position.through:.3f} {position.text}"


def _timed(position: Position, text: str) -> Position:
    """A position with the time that is stored of it, or of a place before it; a time that cannot be read is none."""
    told, _, at = text.partition(" ")
    place, seconds = parse_position(at), _finite(told)
    return position if place is None or seconds is None or place.order > position.order else reached(position, seconds)


def _finite(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


class CorruptRow(WorldMismatch):
    """A row of ours that cannot be read."""


class StreamRows(Struct):
    """A stream's rows as values, and what is wrong with those that are none.

    `corrupt`: rows of shards and of the seat that cannot be read, which hide no other; `strange`: a row of a newer
    program, or a start that cannot be read, so that nothing may be concluded from what is missing.
    """

    shards: dict[ShardId, LeaseRow] = field(default_factory=dict)
    seat: Seat | None = None
    starts: dict[TargetId, TargetStart] = field(default_factory=dict)
    corrupt: list[CorruptRow] = field(default_factory=list)
    strange: list[WorldMismatch] = field(default_factory=list)


class RowReader(Struct, frozen=True):
    """Makes values of rows; `where` names the table in messages.

    It is as long as the layout has kinds of rows: one method for each.
    """

    names: Names
    where: str

    # -- kinds of rows ---------------------------------------------------------------------------------------------

    def lease_row(self, row: Row) -> LeaseRow:
        """A shard's row. Without lineage it is a shard of which nothing is known yet."""
        self.check_schema(row)
        return LeaseRow(
            shard=Shard(
                shard_id=ShardId(self.text(row, "sk").removeprefix(SHARD)),
                parents=tuple(ShardId(parent) for parent in self._texts(row, "parents")),
                closed=self._flag(row, "closed"),
                first=self._sequence(row, "first"),
            ),
            owner=WorkerId(self.text(row, "owner")) if "owner" in row else None,
            epoch=self.number(row, "epoch"),
            checkpoints={
                target: _timed(self._position(row, name), row.get(f"{THROUGH}{target.text}", {}).get("S", ""))
                for name, target in self._targets(row, CHECKPOINT)
            },
            rewinds={target: self._rewind(row, name) for name, target in self._targets(row, REWIND)},
            serves=frozenset(target for text in self._texts(row, "serves") if (target := parse_target(text))),
            found_at=self.seconds(row, "found_at") if "found_at" in row else 0.0,
            vanished=self._flag(row, "vanished"),
            vanished_at=self.seconds(row, "vanished_at") if "vanished_at" in row else None,
            seized_at=self.seconds(row, "seized_at") if "seized_at" in row else None,
            # What cannot be read names no entries, so they are dropped.
            keeps={target: row[name].get("S", "") for name, target in self._targets(row, KEEPS)},
        )

    def seat(self, row: Row) -> Seat:
        """The worker that discovers a stream's shards."""
        self.check_schema(row)
        owner = WorkerId(self.text(row, "owner")) if "owner" in row else None
        return Seat(owner, self.number(row, "epoch"))

    def target_start(self, row: Row) -> TargetStart:
        """When a target first started on a stream."""
        self.check_schema(row)
        target_id = parse_target(self.text(row, "sk").removeprefix(TARGET))
        if target_id is None:
            raise self.corrupt(row, "sk")
        return TargetStart(
            target_id,
            self.number(row, "started_at"),
            members=frozenset(self._texts(row, MEMBERS)),
        )

    def pulse(self, row: Row) -> Pulse:
        """A worker's sign of life."""
        return Pulse(
            beat=self.number(row, "beat"),
            news=self.number(row, "news") if "news" in row else 0,
            admin=self.text(row, "admin") if "admin" in row else "",
            through=unpacked(row.get(STATEMENTS, {}).get("B")),
        )

    def stream(self, row: Row) -> StreamRef:
        """The stream that a row of the streams' partition is about."""
        parts = self.text(row, "sk").split("|")
        if len(parts) != _STREAM_PARTS or not _is_decimal(parts[2]):
            raise self.corrupt(row, "sk")
        return StreamRef(RegionId(parts[0]), TableName(parts[1]), self.text(row, "arn"), int(parts[2]))

    def known_stream(self, row: Row) -> KnownStream:
        """What a row of the streams' partition says; a flag of earlier versions counts for every rule."""
        noted = {name: parse_target(name) for name in self._texts(row, DRAINED_FOR)}
        targets = frozenset(target_id for target_id in noted.values() if target_id is not None)
        rules = frozenset(RuleName(name) for name, target_id in noted.items() if target_id is None)
        kept = self.seconds(row, "kept_seconds") if "kept_seconds" in row else None
        return KnownStream(self.stream(row), targets, rules, closed="drained" in row, kept_seconds=kept)

    def rule_and_region(self, row: Row) -> tuple[RuleName, RegionId]:
        """Whose region a row is about."""
        rule, _, region = self.text(row, "sk").partition("|")
        return RuleName(rule), RegionId(region)

    def former_names(self, row: Row) -> frozenset[RuleName]:
        """The names that a rule had before."""
        return frozenset(map(RuleName, self._texts(row, FORMERLY)))

    def driving(self, row: Row, now: float) -> Driving:
        """What drives a rule that was handed over; `now`: the server's time."""
        self.check_schema(row)
        by, since = self.text(row, DRIVEN_BY), self.seconds(row, DRIVEN_SINCE)
        if by not in set(Drivers):
            raise self.corrupt(row, DRIVEN_BY)
        return Driving(Drivers(by), since, now - since)

    def gap(self, row: Row) -> Gap:
        """A loss interval."""
        self.check_schema(row)
        stream = StreamRef(
            region=RegionId(self.text(row, "region")),
            table=TableName(self.text(row, "table")),
            arn=self.text(row, "stream"),
            generation=self.number(row, "generation"),
        )
        target_id = parse_target(self.text(row, "target"))
        if target_id is None:
            raise self.corrupt(row, "target")
        return Gap(
            stream=stream,
            shard_id=ShardId(self.text(row, "shard")),
            target_id=target_id,
            after=self._position(row, "after"),
            until=self._position(row, "until") if "until" in row else None,
            found_at=self.seconds(row, "found_at"),
            why=self.text(row, "why"),
        )

    def open_gap(self, row: Row) -> OpenGap:
        """A loss interval that is not closed."""
        gap = self.gap(row)
        grown = self.seconds(row, "grown_at") if "grown_at" in row else gap.found_at
        return OpenGap(gap, grown, self.text(row, REPAIRED_BY) if REPAIRED_BY in row else None)

    def add(self, found: StreamRows, row: Row) -> None:
        """Take in a row of a stream's partition; one of a target that never started says nothing."""
        sort = self.text(row, "sk")
        try:
            if sort.startswith(SHARD):
                lease = self.lease_row(row)
                found.shards[lease.shard_id] = lease
            elif sort == SEAT:
                found.seat = self.seat(row)
            elif sort.startswith(TARGET) and "started_at" in row:
                start = self.target_start(row)
                found.starts[start.target_id] = start
        except WorldMismatch as error:
            if isinstance(error, CorruptRow) and not sort.startswith(TARGET):
                found.corrupt.append(error)
            else:
                found.strange.append(error)

    # -- attributes ------------------------------------------------------------------------------------------------

    def text(self, row: Row, name: str) -> str:
        """A string attribute."""
        value = row.get(name, {}).get("S")
        if not isinstance(value, str):
            raise self.corrupt(row, name)
        return value

    def number(self, row: Row, name: str) -> int:
        """A whole number."""
        value = row.get(name, {}).get("N")
        if not isinstance(value, str) or not _is_decimal(value.removeprefix("-")):
            raise self.corrupt(row, name)
        return int(value)

    def seconds(self, row: Row, name: str) -> float:
        """A number of seconds."""
        value = row.get(name, {}).get("N")
        number = _finite(value) if isinstance(value, str) else None
        if number is None:
            raise self.corrupt(row, name)
        return number

    def corrupt(self, row: Row, name: str) -> CorruptRow:
        """The error that names a row, its attribute, and a remedy."""
        partition, sort = (str(row.get(part, {}).get("S")) for part in ("pk", "sk"))
        advice = _ADVICE_BY_PARTITION.get(partition.removeprefix(f"{self.names.group}|"))
        if advice is None and sort == SEAT:
            advice = _ADVICE_SEAT
        if advice is None:
            advice = _ADVICE_SHARD if sort.startswith(SHARD) else _ADVICE_TARGET
        return CorruptRow(
            f"The row {partition} / {sort} of the {self.where} is corrupt:"
            f" attribute {name!r} is missing or unreadable.",
            advice=advice,
        )

    def check_schema(self, row: Row) -> None:
        """Refuse a row of a newer program, and one that does not say of which layout it is."""
        self.number(row, "sv")
        self.refuse_newer(row)

    def refuse_newer(self, row: Row) -> None:
        """Refuse a row of a newer program."""
        layout = row.get("sv", {}).get("N", "")
        if layout != _OURS and _is_decimal(layout) and int(layout) > SCHEMA:
            partition, sort = (str(row.get(part, {}).get("S")) for part in ("pk", "sk"))
            raise NewerLayout.of(f"{partition} / {sort}", self.where, layout=int(layout), known=SCHEMA)

    def _flag(self, row: Row, name: str) -> bool:
        if name in row and not isinstance(row[name].get("BOOL"), bool):
            raise self.corrupt(row, name)
        return row.get(name, {}).get("BOOL", False)

    def _texts(self, row: Row, name: str) -> list[str]:
        """A set of strings, sorted; none when the attribute is missing."""
        values = row[name].get("SS") if name in row else []
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self.corrupt(row, name)
        return sorted(values)

    def _targets(self, row: Row, prefix: str) -> Iterator[tuple[str, TargetId]]:
        """Attributes that are named by targets."""
        for name in row:
            if name.startswith(prefix):
                target_id = parse_target(name.removeprefix(prefix))
                if target_id is None:
                    raise self.corrupt(row, name)
                yield name, target_id

    def _sequence(self, row: Row, name: str) -> SequenceNumber | None:
        if name not in row:
            return None
        if not _is_decimal(self.text(row, name)):
            raise self.corrupt(row, name)
        return SequenceNumber(self.text(row, name))

    def _position(self, row: Row, name: str) -> Position:
        position = parse_position(self.text(row, name))
        if position is None:
            raise self.corrupt(row, name)
        return position

    def _rewind(self, row: Row, name: str) -> Rewind:
        rewind = parse_rewind(self.text(row, name))
        if rewind is None:
            raise self.corrupt(row, name)
        return rewind


def _is_decimal(text: str) -> bool:
    return text.isascii() and text.isdecimal()
