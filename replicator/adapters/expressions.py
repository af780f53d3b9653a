"""Conditions as values, rendered as DynamoDB expressions. Expression strings live in this module only.

The contract suite proves on a real server that every expression means what the memory adapter evaluates.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import assert_never

import msgspec

from replicator.domain.requests import (
    Absent,
    AbsentOrStampBelow,
    Condition,
    StampBelow,
    TombstoneBelow,
    UnstampedOrStampBelow,
    VersionAtMost,
    VersionCondition,
    VersionIs,
)
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


# -- mode versioned ------------------------------------------------------------------------------------------------

# DynamoDB compares only like types: a comparison with a missing or mistyped attribute is false, so it is named apart.
_LOWEST = "attribute_not_exists(#ver) OR NOT attribute_type(#ver, :type)"


def version_condition(when: VersionCondition, key_attribute: str) -> bytes:
    """Members of a request body that state a condition of mode `versioned`."""
    match when:
        case Absent():
            return _stated("attribute_not_exists(#pk)", {"#pk": key_attribute}, {})
        case VersionIs(attribute, None):
            text = "attribute_exists(#pk) AND attribute_not_exists(#ver)"
            return _stated(text, {"#pk": key_attribute, "#ver": attribute}, {})
        case VersionIs(attribute, seen):
            return _stated("#ver = :seen", {"#ver": attribute}, {":seen": msgspec.Raw(seen)})
        case VersionAtMost(attribute, kind, None):
            return _stated(_LOWEST, {"#ver": attribute}, {":type": {"S": kind}})
        case VersionAtMost(attribute, kind, value):
            text = f"#ver <= :most OR {_LOWEST}"
            return _stated(text, {"#ver": attribute}, {":most": {kind: value}, ":type": {"S": kind}})
        case _:
            assert_never(when)


def _stated(text: str, names: Mapping[str, str], values: Mapping[str, object]) -> bytes:
    stated: dict[str, object] = {"ConditionExpression": text, "ExpressionAttributeNames": names}
    if values:
        stated["ExpressionAttributeValues"] = values
    return _ENCODE(stated)[1:-1]


# -- side rows -----------------------------------------------------------------------------------------------------

_RAISE = (
    b'"UpdateExpression":"SET #v = :v, #e = :e, #s = :s",'
    b'"ConditionExpression":"attribute_not_exists(#v) OR #v < :v",'
    b'"ExpressionAttributeNames":' + _ENCODE({"#v": TOMBSTONE_VERSION, "#e": TOMBSTONE_EXPIRY, "#s": SCHEMA_VERSION})
)


def raise_tombstone(version: str, expires_at: int, schema: int) -> bytes:
    """Members of an UpdateItem body that raises a tombstone; `expires_at` in seconds since 1970."""
    return b'%b,"ExpressionAttributeValues":{":v":{"S":%b},":e":{"N":"%d"},":s":{"N":"%d"}}' % (
        _RAISE,
        _ENCODE(version),
        expires_at,
        schema,
    )
