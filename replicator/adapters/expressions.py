"""Conditions as values, rendered as DynamoDB expressions. Expression strings live in this module only.

The contract suite proves on a real server that every expression means what the memory adapter evaluates.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from replicator.domain.requests import AbsentOrStampBelow, Condition, StampBelow, TombstoneBelow, UnstampedOrStampBelow
from replicator.domain.versions import STAMP

_ENCODE = msgspec.json.Encoder().encode

TOMBSTONE_VERSION = "v"
TOMBSTONE_KEY = "k"
TOMBSTONE_EXPIRY = "exp"
SCHEMA_VERSION = "sv"


@lru_cache(maxsize=1024)
def _condition_json(kind: type[object], key_attribute: str) -> bytes:
    names = {"#rep": STAMP}
    if kind is StampBelow:
        text, names = "attribute_exists(#pk) AND #rep < :v", {"#pk": key_attribute, **names}
    elif kind is AbsentOrStampBelow:
        text, names = "attribute_not_exists(#pk) OR #rep < :v", {"#pk": key_attribute, **names}
    elif kind is UnstampedOrStampBelow:
        text = "attribute_not_exists(#rep) OR #rep < :v"
    else:
        assert kind is TombstoneBelow, "every condition has its expression"
        text, names = "attribute_not_exists(#v) OR #v < :v", {"#v": TOMBSTONE_VERSION}
    return b'"ConditionExpression":%b,"ExpressionAttributeNames":%b' % (_ENCODE(text), _ENCODE(names))


def condition(when: Condition | TombstoneBelow, key_attribute: str) -> bytes:
    """Members of a request body that state a condition: expression, names, and the version as value.

    `key_attribute` is any attribute of the item's primary key. Built once per shape; only the version is spliced in.
    """
    return b'%b,"ExpressionAttributeValues":{":v":{"S":"%b"}}' % (
        _condition_json(type(when), key_attribute),  # type: ignore[arg-type]
        when.version.encode(),
    )


_RAISE = (
    b'"UpdateExpression":"SET #v = :v, #e = :e, #s = :s",'
    b'"ConditionExpression":"attribute_not_exists(#v) OR #v < :v",'
    b'"ExpressionAttributeNames":' + _ENCODE({"#v": TOMBSTONE_VERSION, "#e": TOMBSTONE_EXPIRY, "#s": SCHEMA_VERSION})
)


def raise_tombstone(version: str, expires_at: int, schema: int) -> bytes:
    """Members of an UpdateItem body that raises a tombstone; `expires_at` in seconds since 1970."""
    return b'%b,"ExpressionAttributeValues":{":v":{"S":"%b"},":e":{"N":"%d"},":s":{"N":"%d"}}' % (
        _RAISE,
        version.encode(),
        expires_at,
        schema,
    )
