"""Changes as events: what one says, when a rule lets it out, and whose place it is in the order. No calls.

Invariant: an event follows from its record and the stream alone, so a replay makes the same one with the same id; every
change is an event of its own, and nothing of an item is in it but what the shape lets out.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

import msgspec

from replicator.domain.errors import MalformedRecord
from replicator.domain.filters import Filter
from replicator.domain.image import unreserved
from replicator.domain.modes.active_active.classify import USERS, classify
from replicator.domain.records import ChangeRecord, Event, ItemKey
from replicator.domain.rules import Rule, TtlDeletes
from replicator.domain.shards.leases import StreamRef
from replicator.domain.stamps import held
from replicator.domain.transforms import Transform, shaped
from replicator.domain.versions import STAMP

_STREAM = "/stream/"
_HASH_DIGITS = 32
_NO_ACCOUNT = "000000000000"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TYPES = {Event.INSERT: "inserted", Event.MODIFY: "modified", Event.REMOVE: "removed"}
_ENCODE = msgspec.json.Encoder(order="deterministic").encode


class Numbers(enum.StrEnum):
    """How plain JSON shows numbers."""

    STRING = "string"  # exact, as DynamoDB writes them
    NUMBER = "number"  # with all digits, too; a reader that takes them for doubles loses some


class EventShape(msgspec.Struct, frozen=True):
    """What a sink is brought, and what an event shows of an item.

    As DynamoDB JSON (`typed`) or as plain JSON, behind a transform. `filter`: beside that of the rule.
    """

    typed: bool = False
    numbers: Numbers = Numbers.STRING
    transform: Transform | None = None
    filter: Filter = msgspec.field(default_factory=Filter)


class ItemEvent(msgspec.Struct, frozen=True):
    """One change as the attributes of a CloudEvent; `time` in seconds since 1970, 0 when it is not known."""

    id: str
    source: str
    type: str
    subject: str
    time: float
    partition_key: str
    data: msgspec.Raw
    dataref: str = ""
    """Where its data is, when it is too long to be sent with it; then it has none itself."""

    def stored_at(self, place: str) -> ItemEvent:
        """The same event with a reference in place of its data."""
        return msgspec.structs.replace(self, dataref=place, data=msgspec.Raw(b"null"))

    @property
    def digest(self) -> str:
        """64 hexadecimal digits that name it: its id, which is one among those of its source, and that source."""
        return sha256(f"{self.source} {self.id}".encode()).hexdigest()

    @property
    def moment(self) -> datetime | None:
        """Its time."""
        return _EPOCH + timedelta(seconds=self.time) if self.time else None

    @property
    def cloud_event(self) -> bytes:
        """The event as structured JSON. What XML cannot hold, and some services refuse, is escaped."""
        text = _ENCODE(
            _CloudEvent(
                self.id,
                self.source,
                self.type,
                self.subject,
                self.partition_key,
                msgspec.UNSET if self.dataref else self.data,
                dataref=self.dataref or msgspec.UNSET,
                time=self._time,
            )
        )
        for character, escaped in _NOT_IN_XML:
            text = text.replace(character, escaped)
        return text

    @property
    def _time(self) -> str | msgspec.UnsetType:
        return msgspec.UNSET if self.moment is None else self.moment.isoformat().replace("+00:00", "Z")

    def __repr__(self) -> str:
        """Its id only: item values never reach a log."""
        return f"ItemEvent({self.id})"


class _CloudEvent(msgspec.Struct):
    id: str
    source: str
    type: str
    subject: str
    partitionkey: str
    data: msgspec.Raw | msgspec.UnsetType
    specversion: str = "1.0"
    datacontenttype: str = "application/json"
    time: str | msgspec.UnsetType = msgspec.UNSET
    dataref: str | msgspec.UnsetType = msgspec.UNSET


CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
_NOT_IN_XML = ((b"\xef\xbf\xbe", b"\\ufffe"), (b"\xef\xbf\xbf", b"\\uffff"))
_KEPT = msgspec.json.Decoder(ItemEvent)


def kept(event: ItemEvent) -> bytes:
    """An event as a parked row keeps it."""
    return msgspec.json.encode(event)


def from_kept(body: bytes) -> ItemEvent:
    """An event from what was kept of it."""
    try:
        return _KEPT.decode(body)
    except (msgspec.DecodeError, ValueError) as error:
        raise MalformedRecord(f"A kept event is damaged ({error}).") from error


def is_let_out(rule: Rule, record: ChangeRecord, shape: EventShape) -> bool:
    """Whether a sink is brought a change: what the item was or is passes the filters of the rule and of the sink."""
    if record.by_ttl and rule.ttl_deletes is TtlDeletes.SKIP:
        return False
    filters = (rule.filter, shape.filter)
    return all(record.event in each.events for each in filters) and any(
        image is not None and all(each.matches(image) for each in filters) for image in (record.new, record.before)
    )


def is_of_a_user(rule: Rule, record: ChangeRecord) -> bool:
    """Whether a change was made where its record was read: in a mesh what was brought there is no change of its own.

    Nor is a write there that leaves everything but the stamp as it was.
    """
    if rule.mesh is None:
        return True
    if record.partial:
        raise MalformedRecord(f"Record {record.sequence} has no old image, so its writer is not known.")
    old, new = held(record.old, rule.stamp), held(record.new, rule.stamp)
    if old is not None and new is not None and old.content == new.content:
        return False
    return classify(old, new, by_ttl=record.by_ttl) in USERS


def change_id(record: ChangeRecord) -> str:
    """What names a change of its table: its place, or in a source that repeats changes what it says itself."""
    if record.event_id or not record.micros:
        return record.event_id or record.sequence
    return f"{record.micros}-{_key_hash(record.key)}"


def _key_hash(key: ItemKey) -> str:
    return sha256(_ENCODE(key.parts)).hexdigest()[:_HASH_DIGITS]


def event_of(record: ChangeRecord, stream: StreamRef, shape: EventShape, stamp: str = STAMP) -> ItemEvent:
    """A change of a stream as an event; `stamp` is the attribute that carries versions, which none shows."""
    arn, _, label = stream.arn.partition(_STREAM)
    if not label:  # an endpoint that writes no ARN, or a row that was parked: the label is the stream's creation
        label = (_EPOCH + timedelta(milliseconds=stream.generation)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        arn = _arn(stream)
    kind = "expired" if record.by_ttl and record.event is Event.REMOVE else _TYPES[record.event]
    key = {name: {of: value} for name, of, value in record.key.parts}
    images = (("old", record.old), ("new", record.new))
    try:
        data = {"key": _shown(key, shape)}
        data |= {
            name: _shown(shaped(shape.transform, record.key, unreserved(image, stamp)).attributes, shape)
            for name, image in images
            if image is not None
        }
    except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise MalformedRecord(
            f"Record {record.sequence} has an image that is no item ({type(error).__name__})."
        ) from error
    return ItemEvent(
        id=f"{stream.table}/{label}/{change_id(record)}",
        source=arn,
        type=f"dynamodb.item.{kind}",
        subject=_ENCODE({name: value for name, _, value in record.key.parts}).decode(),
        time=record.created_at,
        partition_key=_key_hash(record.key),
        data=msgspec.Raw(_ENCODE(data)),
    )


def _arn(stream: StreamRef) -> str:
    """A table's ARN: of one whose changes come by Kinesis in the account of that stream."""
    partition, _, region, account = (*stream.arn.split(":")[1:5], "", "", "", "")[:4]
    return f"arn:{partition or 'aws'}:dynamodb:{region or stream.region}:{account or _NO_ACCOUNT}:table/{stream.table}"


def _shown(attributes: dict[str, dict[str, Any]], shape: EventShape) -> dict[str, Any]:
    if shape.typed:
        return attributes
    return {name: _plain(value, shape.numbers) for name, value in attributes.items()}


def _plain(typed: dict[str, Any], numbers: Numbers) -> Any:
    """A value as plain JSON: sets are lists, binary stays base64."""
    ((kind, value),) = typed.items()
    match kind:
        case "N":
            return _number(value, numbers)
        case "NS":
            return [_number(number, numbers) for number in value]
        case "L":
            return [_plain(element, numbers) for element in value]
        case "M":
            return {name: _plain(element, numbers) for name, element in value.items()}
        case "NULL":
            return None
        case _:
            return value


def _number(text: str, numbers: Numbers) -> str | msgspec.Raw:
    return text if numbers is Numbers.STRING else msgspec.Raw(str(Decimal(text)).encode())
