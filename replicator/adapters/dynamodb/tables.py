"""A region's table and its side table: requests carried out on DynamoDB.

Invariant: one request is one call, sent only while the fence holds; a refusal carries what the key holds.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from os import urandom
from typing import TYPE_CHECKING, Any, assert_never
from uuid import uuid4

import msgspec

from replicator.adapters.aws import wire
from replicator.adapters.aws.errors import refused
from replicator.adapters.dynamodb.expressions import (
    SIDE_CONTENT,
    SIDE_FLOOR,
    SIDE_PARENT,
    SIDE_REMOVED,
    SIDE_REMOVED_AT,
    SIDE_SCHEMA,
    TOMBSTONE_KEY,
    TOMBSTONE_VERSION,
    as_far_as_version,
    condition,
    marked_by,
    raise_tombstone,
    restamp,
    stamp_condition,
    unstamp,
    version_condition,
    write_row,
)
from replicator.domain.conflicts import LogConflict
from replicator.domain.errors import ReplicatorError, Throttled, Unreachable, WorldMismatch
from replicator.domain.image import STAMP_MEMBER, Image, stamped
from replicator.domain.modes.requests import (
    AbsentOrStampBelow,
    Delete,
    DeleteMarked,
    Done,
    Found,
    FoundRow,
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
    RefusedRow,
    Remove,
    Replace,
    Request,
    Response,
    Restamp,
    SettleTombstone,
    StampBelow,
    StampedPut,
    Unstamp,
    VersionedRequest,
)
from replicator.domain.records import ItemKey
from replicator.domain.stamps import NO_ROW, NONCE_BYTES, URL_SAFE, SideRow, Tombstone, Version, parse_version
from replicator.domain.versions import STAMP

if TYPE_CHECKING:
    from replicator.adapters.aws.wire import Wire
    from replicator.ports.clock import Clock
    from replicator.ports.targets import Fence, Following

_ENCODE = msgspec.json.Encoder().encode
_ALL_OLD = b'"ReturnValuesOnConditionCheckFailure":"ALL_OLD"'
_DONE = Done()
_NO_ROW_FOUND = FoundRow(NO_ROW)
_NOTHING = b"{}"
_TELL_CONSUMED = b',"ReturnConsumedCapacity":"TOTAL"'


class _Reason(msgspec.Struct):
    Code: str | None = None
    Message: str | None = None
    Item: msgspec.Raw = msgspec.Raw()


class _Consumed(msgspec.Struct):
    CapacityUnits: float = 0.0
    ReadCapacityUnits: float = 0.0


class _Answer(msgspec.Struct):
    Item: msgspec.Raw = msgspec.Raw()
    Attributes: msgspec.Raw = msgspec.Raw()
    CancellationReasons: list[_Reason] = []
    ConsumedCapacity: _Consumed | list[_Consumed] | None = None


_ANSWER = msgspec.json.Decoder(_Answer)
_EMPTY = (b"", b"null", b"{}")


def _item(raw: msgspec.Raw) -> Image | None:
    wire_json = bytes(raw)
    if wire_json in _EMPTY:
        return None
    if not wire_json.startswith(b"{"):
        raise Unreachable("An answer contains an invalid item, so it is not DynamoDB's.")
    return Image(wire_json)


def fresh_nonce() -> str:
    """Eight characters that no other write of a stamp carries."""
    return b2a_base64(urandom(NONCE_BYTES), newline=False).translate(URL_SAFE).decode()


class DynamoRegion:
    """One replica table with the side table of its region, for one target."""

    def __init__(  # noqa: PLR0913 - a composition root fills it once
        self,
        calls: Wire,
        *,
        region_id: str,
        table: str,
        side_table: str,
        tombstone_ttl: timedelta,
        clock: Clock,
        stamp_attribute: str = STAMP,
        nonce: Callable[[], str] = fresh_nonce,
        metered: bool = False,
    ) -> None:
        """`metered`: whether every write tells the units that it took."""
        self._calls = calls
        self._stamp = stamp_attribute
        self._nonce = nonce
        where = self._where = f"{table} in {region_id}"
        self._side_where = f"{side_table} in {region_id}"
        self._what = {
            operation: f"{operation} on {where}"
            for operation in ("PutItem", "UpdateItem", "DeleteItem", "GetItem", "TransactWriteItems")
        }
        self._side_what = {operation: f"{operation} on {self._side_where}" for operation in ("UpdateItem", "GetItem")}
        self._table = table
        self._side_table = side_table
        self._table_json = b'"TableName":' + _ENCODE(table)
        self._side_json = b'"TableName":' + _ENCODE(side_table)
        self._ttl_seconds = int(tombstone_ttl.total_seconds())
        self._clock = clock
        self._tell = _TELL_CONSUMED if metered else b""
        self._ways: Mapping[type[Any], Callable[[Any, Fence], Coroutine[Any, Any, Response]]] = {
            **dict.fromkeys((Put, GuardedPut), self._write_puts),
            Delete: self._delete,
            RaiseTombstone: self._raise_tombstone,
            GetItem: self._get_item,
            GetTombstone: self._get_tombstone,
            GetSideRow: self._get_side_row,
            **dict.fromkeys((Replace, Remove), self._write_versioned),
            StampedPut: self._put_stamped,
            Restamp: self._restamp,
            Unstamp: self._unstamp,
            DeleteMarked: self._delete_marked,
            **dict.fromkeys((MergeTombstone, SettleTombstone, RaiseFloor, NoteRemoval), self._write_row),
            LogConflict: self._misdirected,
        }

    def execute(self, request: Request, fence: Fence) -> Coroutine[Any, Any, Response]:
        """Carry a request out; the fence is checked right at the send."""
        return self._ways[type(request)](request, fence)

    def execute_chain(
        self, first: Put | GuardedPut, fence: Fence, following: Following
    ) -> Coroutine[Any, Any, Response]:
        """Carry out writes, each behind one that took effect, on the connection of the first one."""
        return self._write_puts(first, fence, following)

    async def _write_puts(self, write: Put | GuardedPut, fence: Fence, following: Following | None = None) -> Response:
        def proceed() -> tuple[str, bytes] | None:
            nonlocal write
            assert following is not None, "else nothing follows"
            then = following()
            if then is None:
                return None
            write = then
            return self._call(then)

        def what() -> str:
            return self._what["PutItem" if isinstance(write, Put) else "TransactWriteItems"]

        operation, body = self._call(write)
        hints = {"TableName": self._table} if type(write) is Put else {}
        behind = None if following is None else proceed
        try:
            answer = await self._calls.call(operation, body, fence, what, following=behind, **hints)
        except wire.Refusal as refusal:
            found = wire.decoded(_ANSWER, refusal.body, what())
            if isinstance(write, GuardedPut):
                return _cancelled(found.CancellationReasons, what())
            return Refused(item=_item(found.Item))
        return self._done(answer.body, what())

    def _call(self, write: Put | GuardedPut) -> tuple[str, bytes]:
        """Operation and body of a write."""
        if type(write) is Put:  # asked for every record
            return "PutItem", b"{%b%b}" % (self._put_json(write), self._tell)
        assert isinstance(write, GuardedPut), "there are two kinds"
        return "TransactWriteItems", self._guarded_put_json(write)

    def _put_json(self, put: Put) -> bytes:
        when = put.when
        if type(when) is StampBelow or type(when) is AbsentOrStampBelow:  # nearly always: the same in one step
            return b'%b,"Item":%b%b%b}},%b%b"}},%b' % (
                self._table_json,
                put.image.wire[:-1],
                STAMP_MEMBER,
                _ENCODE(put.version),
                as_far_as_version(type(when), put.key.parts[0][0]),
                when.version.encode(),
                _ALL_OLD,
            )
        return b'%b,"Item":%b,%b,%b' % (
            self._table_json,
            stamped(put.image, put.version),
            condition(put.when, put.key.parts[0][0]),
            _ALL_OLD,
        )

    def _guarded_put_json(self, request: GuardedPut) -> bytes:
        check = b'%b,"Key":%b,%b' % (
            self._side_json,
            self._side_key(request.put.key),
            condition(request.guard, TOMBSTONE_KEY),
        )
        return b'{"ClientRequestToken":"%b","TransactItems":[{"ConditionCheck":{%b}},{"Put":{%b}}]%b}' % (
            str(uuid4()).encode(),
            check,
            self._put_json(request.put),
            self._tell,
        )

    async def _delete(self, request: Delete, fence: Fence) -> Response:
        key = request.key
        stated = condition(request.when, key.parts[0][0])
        body = b'{%b,"Key":%b,%b,%b%b}' % (self._table_json, key.wire, stated, _ALL_OLD, self._tell)
        what = self._what["DeleteItem"]
        try:
            answer = await self._calls.call("DeleteItem", body, fence, what, TableName=self._table)
        except wire.Refusal as refusal:
            return Refused(item=_item(wire.decoded(_ANSWER, refusal.body, what).Item))
        return self._done(answer.body, what)

    async def _write_versioned(self, request: VersionedRequest, fence: Fence) -> Response:
        """A put or delete that returns what it took away."""
        match request:
            case Replace(key, image, when):
                operation, subject = "PutItem", b'"Item":%b' % image.wire
            case Remove(key, when):
                operation, subject = "DeleteItem", b'"Key":%b' % key.wire
            case _:
                assert_never(request)
        what = self._what[operation]
        stated = version_condition(when, key.parts[0][0])
        body = b'{%b,%b,%b,%b,"ReturnValues":"ALL_OLD"%b}' % (self._table_json, subject, stated, _ALL_OLD, self._tell)
        try:
            answer = await self._calls.call(operation, body, fence, what, TableName=self._table)
        except wire.Refusal as refusal:
            return Refused(item=_item(wire.decoded(_ANSWER, refusal.body, what).Item))
        given = wire.decoded(_ANSWER, answer.body, what)
        return Done(_item(given.Attributes), _units(given.ConsumedCapacity))

    # -- writes that set, or depend on, a stamp; every call gets a nonce of its own ------------------------------------

    def _put_stamped(self, request: StampedPut, fence: Fence) -> Coroutine[Any, Any, Response]:
        item = stamped(request.image, request.stamp.sealed(self._nonce()), self._stamp)
        stated = stamp_condition(request.when, request.key.parts[0][0], self._stamp)
        return self._write("PutItem", b'"Item":%b,%b' % (item, stated), fence)

    def _restamp(self, request: Restamp, fence: Fence) -> Coroutine[Any, Any, Response]:
        sealed = request.stamp.sealed(self._nonce())
        change = restamp(sealed, request.when, request.key.parts[0][0], self._stamp)
        return self._write("UpdateItem", b'"Key":%b,%b' % (request.key.wire, change), fence)

    def _unstamp(self, request: Unstamp, fence: Fence) -> Coroutine[Any, Any, Response]:
        change = unstamp(request.when, request.key.parts[0][0], self._stamp)
        return self._write("UpdateItem", b'"Key":%b,%b' % (request.key.wire, change), fence)

    def _delete_marked(self, request: DeleteMarked, fence: Fence) -> Coroutine[Any, Any, Response]:
        stated = marked_by(request.version, self._stamp)
        return self._write("DeleteItem", b'"Key":%b,%b' % (request.key.wire, stated), fence)

    async def _write(self, operation: str, members: bytes, fence: Fence) -> Response:
        """A write of an item whose body has these members."""
        what = self._what[operation]
        body = b"{%b,%b,%b%b}" % (self._table_json, members, _ALL_OLD, self._tell)
        try:
            answer = await self._calls.call(operation, body, fence, what, TableName=self._table)
        except wire.Refusal as refusal:
            return Refused(item=_item(wire.decoded(_ANSWER, refusal.body, what).Item))
        return self._done(answer.body, what)

    async def _write_row(
        self, request: MergeTombstone | SettleTombstone | RaiseFloor | NoteRemoval, fence: Fence
    ) -> Response:
        change = write_row(request, int(self._clock.now()) + self._ttl_seconds, SIDE_SCHEMA)
        body = b'{%b,"Key":%b,%b,%b%b}' % (self._side_json, self._side_key(request.key), change, _ALL_OLD, self._tell)
        what = self._side_what["UpdateItem"]
        try:
            answer = await self._calls.call("UpdateItem", body, fence, what, TableName=self._side_table)
        except wire.Refusal as refusal:
            return RefusedRow(_row(_item(wire.decoded(_ANSWER, refusal.body, what).Item), self._side_where))
        return self._done(answer.body, what)

    async def _raise_tombstone(self, request: RaiseTombstone, fence: Fence) -> Response:
        expires_at = int(self._clock.now()) + self._ttl_seconds
        body = b'{%b,"Key":%b,%b%b}' % (
            self._side_json,
            self._side_key(request.key),
            raise_tombstone(request.version, expires_at, SIDE_SCHEMA),
            self._tell,
        )
        what = self._side_what["UpdateItem"]
        try:
            answer = await self._calls.call("UpdateItem", body, fence, what, TableName=self._side_table)
        except wire.Refusal:
            return Refused(by_tombstone=True)
        return self._done(answer.body, what)

    def _done(self, answer: bytes, what: str) -> Done:
        """The write took effect; with what it took, if that was asked for."""
        return Done(units=_units(wire.decoded(_ANSWER, answer, what).ConsumedCapacity)) if self._tell else _DONE

    async def _get_item(self, request: GetItem, fence: Fence) -> Found:
        body = b'{%b,"Key":%b,"ConsistentRead":true}' % (self._table_json, request.key.wire)
        what = self._what["GetItem"]
        answer = await self._calls.call("GetItem", body, fence, what, TableName=self._table)
        return Found(item=_item(wire.decoded(_ANSWER, answer.body, what).Item))

    async def _get_tombstone(self, request: GetTombstone, fence: Fence) -> Found:
        row = await self._get_row(request.key, fence)
        return Found(tombstone=None if row is None else row.attributes.get(TOMBSTONE_VERSION, {}).get("S"))

    async def _get_side_row(self, request: GetSideRow, fence: Fence) -> FoundRow:
        row = await self._get_row(request.key, fence)
        return _NO_ROW_FOUND if row is None else FoundRow(_row(row, self._side_where))

    async def _get_row(self, key: ItemKey, fence: Fence) -> Image | None:
        body = b'{%b,"Key":%b,"ConsistentRead":true}' % (self._side_json, self._side_key(key))
        what = self._side_what["GetItem"]
        answer = await self._calls.call("GetItem", body, fence, what, TableName=self._side_table)
        if answer.body == _NOTHING:
            return None
        return _item(wire.decoded(_ANSWER, answer.body, what).Item)

    @staticmethod
    def _misdirected(_request: LogConflict, _fence: Fence) -> Coroutine[Any, Any, Response]:
        raise ReplicatorError("A conflict entry was sent to a table; it belongs to the conflict log.")

    def _side_key(self, key: ItemKey) -> bytes:
        return _ENCODE({TOMBSTONE_KEY: {"S": key.side_key(self._table)}})


def _units(consumed: _Consumed | list[_Consumed] | None) -> float | None:
    """Write units of all tables and indexes together; None when the service did not tell."""
    if consumed is None:
        return None
    tables = consumed if isinstance(consumed, list) else [consumed]
    return sum(table.CapacityUnits - table.ReadCapacityUnits for table in tables)


def _row(item: Image | None, where: str) -> SideRow:
    """A side row of mode `active-active`."""
    if item is None:
        return NO_ROW
    texts = {name: str(typed.get("S", "")) for name, typed in item.attributes.items()}

    def version(name: str) -> Version | None:
        text = texts.get(name)
        found = None if text is None else parse_version(text)
        if text is not None and found is None:
            raise WorldMismatch(
                f"{where} holds a row whose `{name}` is no version of mode active-active.",
                advice="Tombstones of another mode are there: give the rule a side table of its own, or empty it.",
            )
        return found

    deleted, removed_at = version(TOMBSTONE_VERSION), texts.get(SIDE_REMOVED_AT)
    return SideRow(
        tombstone=None if deleted is None else Tombstone(deleted, texts[SIDE_PARENT], texts[SIDE_CONTENT]),
        floor=version(SIDE_FLOOR),
        removed_at=None if removed_at is None else int(removed_at),
        removed=version(SIDE_REMOVED),
    )


_CONDITION = "ConditionalCheckFailed"
_HARMLESS = {"None", _CONDITION}
_TRANSACTION_POISON = {"ValidationError", "ItemCollectionSizeLimitExceeded"}
_TRANSACTION_THROTTLE = {"ThrottlingError", "ProvisionedThroughputExceeded"}


def _cancelled(reasons: list[_Reason], what: str) -> Refused:
    """A cancelled transaction as a refusal, or the error that cancelled it; reasons: tombstone check, put."""
    codes = [reason.Code or "None" for reason in reasons]
    given = "; ".join(
        reason.Message or code for reason, code in zip(reasons, codes, strict=True) if code not in _HARMLESS
    )
    if any(code in _TRANSACTION_POISON for code in codes):
        raise refused(f"{what} failed: {given}.")
    if any(code in _TRANSACTION_THROTTLE for code in codes):
        raise Throttled(f"{what} failed: {given}.")
    if given or _CONDITION not in codes:  # a cancellation that no condition explains says nothing about the item
        raise Unreachable(f"{what} was cancelled: {given or 'no reason given'}.", advice="It is repeated by itself.")
    return Refused(item=_item(reasons[-1].Item), by_tombstone=codes[0] != "None")
