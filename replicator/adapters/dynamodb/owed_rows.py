"""Rows of the owed table as values, read strictly.

Rows (hash `pk`, range `sk`), each with a schema version `sv`:

    <group>|<source table>|<target>   key|<row id>      what is owed: one row a key; small, because a shard loads them
    <group>|<table>|<target>|away     key|<row id>      the same, of what a region of a mesh missed while it was away
    <group>|<source table>|<target>   body|<row id>     the image, or the record that cannot be read, compressed
    <group>|<source table>|<target>   settled|<row id>  what was owed, and how it was settled, for a while
    <group>|targets                   <table>|<target>  who was ever owed something; with |away, what it missed

Invariant: a row is either understood as a whole or named as corrupt, with the attribute and a remedy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from replicator.domain.errors import MalformedRecord, NewerLayout, WorldMismatch
from replicator.domain.identifiers import SequenceNumber, ShardId, TableName
from replicator.domain.owed_keys import MOST_REPLACED, BodyState, OwedFor, OwedKey, OwedTo, SettledKey, Settlement
from replicator.domain.records import Event, item_key
from replicator.domain.targets import parse_target

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef

    Row = Mapping[str, AttributeValueTypeDef]

SCHEMA = 1
"""Version of the layout of these rows."""

PARTITION, SORT, EXPIRY = "pk", "sk", "exp"
KEY, BODY, SETTLED = "key|", "body|", "settled|"
"""What sort keys begin with."""

REPLACED = ("replaced", *(f"replaced{number}" for number in range(1, MOST_REPLACED)))
"""Attributes of `OwedKey.replaced`, in its order."""


class OwedRows(Struct, frozen=True):
    """Makes values of rows; `where` names the table in messages."""

    where: str

    def target(self, row: Row) -> OwedTo:
        """Who was ever owed something."""
        return self._to(row, SORT, self.text(row, SORT))

    def owed(self, row: Row) -> OwedKey:
        """What is owed; a settled row tells what was."""
        self.check_schema(row)
        to = self._to(row, PARTITION, self.text(row, PARTITION).partition("|")[2])
        try:
            return OwedKey(
                to=to,
                key=item_key(self.text(row, "k").encode()) if "k" in row else None,
                version=self.text(row, "v"),
                shard=ShardId(self.text(row, "shard")),
                sequence=SequenceNumber(self.text(row, "seq")),
                event=Event(self.text(row, "event")) if "event" in row else None,
                why=self.text(row, "why"),
                changed_at=self.number(row, "changed"),
                first=self.number(row, "first"),
                last=self.number(row, "last"),
                by=self.text(row, "by"),
                tries=int(self.number(row, "tries")),
                size=int(self.number(row, "size")) if "size" in row else None,
                body=BodyState(self.text(row, "body")),
                replaced=tuple(dict.fromkeys(filter(None, (self.text(row, each) for each in REPLACED if each in row)))),
                left=self.text(row, "left") if "left" in row else None,
            )
        except (ValueError, MalformedRecord) as error:
            raise self._corrupt(row, "event, for, body or k") from error

    def settled(self, row: Row) -> SettledKey:
        """What was owed, and how that was settled."""
        owed = self.owed(row)
        try:
            how = Settlement(self.text(row, "how"))
        except ValueError as error:
            raise self._corrupt(row, "how") from error
        return SettledKey(owed, how, self.text(row, "settled_by"), self.number(row, "settled_at"))

    def check_schema(self, row: Row) -> None:
        """Refuse a row of a newer program."""
        if self.number(row, "sv") > SCHEMA:
            name = " / ".join(self.text(row, part) for part in (PARTITION, SORT))
            raise NewerLayout.of(name, self.where, layout=int(self.number(row, "sv")), known=SCHEMA)

    def _to(self, row: Row, name: str, text: str) -> OwedTo:
        table, _, rest = text.partition("|")
        target, _, reason = rest.partition("|")
        target_id = parse_target(target)
        if target_id is None or reason not in _REASONS:
            raise self._corrupt(row, name)
        return OwedTo(TableName(table), target_id, _REASONS[reason])

    def text(self, row: Row, name: str) -> str:
        """A string attribute."""
        value = row.get(name, {}).get("S")
        if not isinstance(value, str):
            raise self._corrupt(row, name)
        return value

    def number(self, row: Row, name: str) -> float:
        """A finite number."""
        value = row.get(name, {}).get("N")
        try:
            number = float(value) if isinstance(value, str) else math.nan
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self._corrupt(row, name)
        return number

    def _corrupt(self, row: Row, name: str) -> WorldMismatch:
        partition, sort = (row.get(part, {}).get("S") for part in (PARTITION, SORT))
        return WorldMismatch(
            f"The row {partition} / {sort} of the {self.where} is corrupt: attribute {name} is missing or unreadable.",
            advice="Delete the row (a backlog entry), then compare its item with `replicator inspect`.",
        )


def owner(to: OwedTo) -> str:
    """To whom keys are owed, as text: a part of a row's key."""
    reason = "" if to.owed_for is OwedFor.REFUSED else f"|{to.owed_for}"
    return f"{to.table}|{to.target_id.text}{reason}"


_REASONS = {"": OwedFor.REFUSED, **{each.value: each for each in OwedFor if each is not OwedFor.REFUSED}}


def attributes(owed: OwedKey, body: BodyState) -> dict[str, AttributeValueTypeDef]:
    """A row's attributes beside its key; what is None is left out."""
    row: dict[str, AttributeValueTypeDef] = {
        "sv": {"N": str(SCHEMA)},
        "v": {"S": owed.version},
        "shard": {"S": owed.shard},
        "seq": {"S": owed.sequence},
        "for": {"S": owed.owed_for.value},
        "why": {"S": owed.why},
        "changed": seconds(owed.changed_at),
        "first": seconds(owed.first),
        "last": seconds(owed.last),
        "by": {"S": owed.by},
        "tries": {"N": str(owed.tries)},
        "body": {"S": body.value},
    }
    if owed.key is not None:
        row["k"] = {"S": owed.key.wire.decode()}
    if owed.event is not None:
        row["event"] = {"S": owed.event.value}
    if owed.size is not None:
        row["size"] = {"N": str(owed.size)}
    if owed.left is not None:
        row["left"] = {"S": owed.left}
    return row | {name: {"S": mark} for name, mark in zip(REPLACED, owed.replaced, strict=False)}


def seconds(value: float) -> AttributeValueTypeDef:
    """A number of seconds, to the millisecond."""
    return {"N": f"{value:.3f}"}
