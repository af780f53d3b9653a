"""Changes of items as text: taken from MiniStack's answers, written as DynamoDB Streams does.

Invariant: keys and images pass as untouched JSON; only the partition key is read, to find the shard that it belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import msgspec

HASH_SPACE: Final = 1 << 64
"""Hashes of partition keys lie below this number."""

_IDENTITIES: Final = {
    # The service's model and its documentation spell the names differently.
    "model": b'"userIdentity":{"PrincipalId":"dynamodb.amazonaws.com","Type":"Service"},',
    "documentation": b'"userIdentity":{"principalId":"dynamodb.amazonaws.com","type":"Service"},',
}


@dataclass(frozen=True, slots=True)
class Change:
    """One change of an item; images are JSON, empty when there is none. `created_at`: whole seconds since 1970."""

    event: str
    keys: bytes
    new: bytes
    old: bytes
    created_at: int
    hashed: int
    by_ttl: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """Changes as they came: one page, and where the next one begins (None: the source has ended)."""

    changes: list[Change]
    following: str | None
    last: str | None
    """The number of the last one in the source."""


class _Data(msgspec.Struct):
    Keys: msgspec.Raw
    SequenceNumber: str
    ApproximateCreationDateTime: float = 0.0
    NewImage: msgspec.Raw = msgspec.Raw()
    OldImage: msgspec.Raw = msgspec.Raw()


class _Record(msgspec.Struct):
    eventName: str  # noqa: N815 - the wire's name
    dynamodb: _Data


class _Page(msgspec.Struct):
    Records: list[_Record]
    NextShardIterator: str | None = None


_PAGE = msgspec.json.Decoder(_Page)
_KEYS = msgspec.json.Decoder(dict[str, dict[str, Any]])
_ENCODE = msgspec.json.Encoder(order="sorted").encode


def changes_of(body: bytes, partition_key: str) -> Source:
    """The changes of a GetRecords answer, in their order."""
    page = _PAGE.decode(body)
    changes = [
        Change(
            event=record.eventName,
            keys=bytes(record.dynamodb.Keys),
            new=bytes(record.dynamodb.NewImage),
            old=bytes(record.dynamodb.OldImage),
            created_at=int(record.dynamodb.ApproximateCreationDateTime),
            hashed=hash_of(_KEYS.decode(record.dynamodb.Keys), partition_key),
        )
        for record in page.Records
    ]
    last = page.Records[-1].dynamodb.SequenceNumber if page.Records else None
    return Source(changes, page.NextShardIterator, last)


def hash_of(key: dict[str, Any], partition_key: str) -> int:
    """The place of a key among the shards: equal for all items of one partition key."""
    value = key.get(partition_key, key)
    return int.from_bytes(blake2b(_ENCODE(value), digest_size=8).digest(), "big")


def canonical(keys: bytes) -> bytes:
    """A key as text that is equal for equal keys."""
    return _ENCODE(_KEYS.decode(keys))


def record_text(change: Change, number: int, view: str, region: str, identity: str) -> bytes:
    """The record of a change as GetRecords sends it."""
    size = len(change.keys) + len(change.new) + len(change.old)
    return b"".join(
        (
            f'{{"eventID":"{number % (1 << 128):032x}","eventName":"{change.event}","eventVersion":"1.1",'
            f'"eventSource":"aws:dynamodb","awsRegion":"{region}",'.encode(),
            _IDENTITIES[identity] if change.by_ttl else b"",
            f'"dynamodb":{{"ApproximateCreationDateTime":{change.created_at},"Keys":'.encode(),
            change.keys,
            b',"NewImage":' + change.new if change.new else b"",
            b',"OldImage":' + change.old if change.old else b"",
            f',"SequenceNumber":"{number}","SizeBytes":{size},"StreamViewType":"{view}"}}}}'.encode(),
        )
    )
