"""Conditions as values, rendered as DynamoDB expressions. Expression strings live in this module only.

The contract suite proves on a real server that every expression means what the memory adapter evaluates.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import assert_never

import msgspec

from replicator.domain.modes.requests import (
    Absent,
    AbsentOrStampBelow,
    Condition,
    ContentIs,
    MergeTombstone,
    NoteRemoval,
    RaiseFloor,
    SeenCondition,
    SettleTombstone,
    StampBelow,
    StampCondition,
    StampIs,
    TombstoneBelow,
    TombstoneIs,
    UnstampedOrBelow,
    UnstampedOrStampBelow,
    VersionAtMost,
    VersionCondition,
    VersionIs,
)
from replicator.domain.stamps import SideRow, Tombstone, Version, mark_prefix
from replicator.domain.versions import STAMP

_ENCODE = msgspec.json.Encoder().encode

TOMBSTONE_VERSION = "v"
TOMBSTONE_KEY = "k"
TOMBSTONE_EXPIRY = "exp"
SCHEMA_VERSION = "sv"

SIDE_SCHEMA = 1
"""Version of the layout of side rows."""


_OF_A_VERSION = (StampBelow, AbsentOrStampBelow, UnstampedOrStampBelow, TombstoneBelow, TombstoneIs)


@lru_cache(maxsize=1024)
def as_far_as_version(kind: type[object], key_attribute: str) -> bytes:
    """Members of a request body that state a condition on a version, as far as that; `"}}` ends it."""
    names = {"#rep": STAMP}
    if kind is StampBelow:
        text, names = "attribute_exists(#pk) AND #rep < :v", {"#pk": key_attribute, **names}
    elif kind is AbsentOrStampBelow:
        text, names = "attribute_not_exists(#pk) OR #rep < :v", {"#pk": key_attribute, **names}
    elif kind is UnstampedOrStampBelow:
        text = "attribute_not_exists(#rep) OR #rep < :v"
    elif kind is TombstoneIs:
        text, names = "#v = :v", {"#v": TOMBSTONE_VERSION}
    else:
        assert kind is TombstoneBelow, "every condition has its expression"
        text, names = "attribute_not_exists(#v) OR #v < :v", {"#v": TOMBSTONE_VERSION}
    return b'"ConditionExpression":%b,"ExpressionAttributeNames":%b,"ExpressionAttributeValues":{":v":{"S":"' % (
        _ENCODE(text),
        _ENCODE(names),
    )


def condition(when: Condition | SeenCondition | TombstoneBelow | TombstoneIs, key_attribute: str) -> bytes:
    """Members of a request body that state a condition: expression, names, and the version as value.

    `key_attribute` is any attribute of the item's primary key. Built once per shape; only the version is spliced in.
    """
    if isinstance(when, _OF_A_VERSION):
        return b'%b%b"}}' % (as_far_as_version(type(when), key_attribute), when.version.encode())
    if isinstance(when, ContentIs):
        return as_shown(when.seen.attributes, {}, key_attribute, without=STAMP)
    return stamp_condition(when, key_attribute, STAMP)


# -- mode versioned ------------------------------------------------------------------------------------------------

# DynamoDB compares only like types: a comparison with a missing or mistyped attribute is false, so it is named apart.
_LOWEST = "attribute_not_exists(#ver) OR NOT attribute_type(#ver, :type)"


def version_condition(when: VersionCondition, key_attribute: str) -> bytes:
    """Members of a request body that state a condition of mode `versioned`."""
    match when:
        case Absent():
            return _stated("attribute_not_exists(#pk)", {"#pk": key_attribute}, {})
        case VersionIs(attribute, seen):
            if seen is None:
                text = "attribute_exists(#pk) AND attribute_not_exists(#ver)"
                return _stated(text, {"#pk": key_attribute, "#ver": attribute}, {})
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


# -- what an operator was shown ------------------------------------------------------------------------------------

LONGEST_EXPRESSION = 4096
"""Bytes of one expression that DynamoDB takes."""

MOST_OPERATORS = 300
"""Operators and functions of one expression that DynamoDB takes; `AND` is one too."""

_AND = " AND "


def as_shown(
    shown: Mapping[str, object] | None, written: Mapping[str, object], key_attribute: str, *, without: str = ""
) -> bytes:
    """Members of a request body that state that an item still has these attributes, and none of the others written.

    `shown`: typed attributes, None when there was no item; `written`: those of the item that takes its place;
    `without`: an attribute that it must not have, which is stated first. What does
    not fit into one expression is left out: first of what the write would leave as it is, then of what it adds. That,
    and an attribute with a name that is neither shown nor written, the writer sees in what the write replaced.
    """
    if shown is None:
        return _stated("attribute_not_exists(#pk)", {"#pk": key_attribute}, {})
    lost = sorted(name for name, typed in shown.items() if written.get(name) != typed)
    kept = sorted(shown.keys() - set(lost))
    texts: list[str] = []
    names: dict[str, str] = {}
    values: dict[str, object] = {}
    room = LONGEST_EXPRESSION
    for name in [*filter(None, [without]), *lost, *sorted(written.keys() - shown.keys()), *kept]:
        place = len(texts)
        text = f"#{place} = :{place}" if name in shown else f"attribute_not_exists(#{place})"
        room -= len(text) + len(_AND)
        if room < 0 or 2 * place >= MOST_OPERATORS:
            break
        texts.append(text)
        names[f"#{place}"] = name
        if name in shown:
            values[f":{place}"] = shown[name]
    return _stated(_AND.join(texts), names, values)


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


# -- mode active-active --------------------------------------------------------------------------------------------


_STAMP_IS = "#rep = :seen"


@lru_cache(maxsize=64)
def _stamp_is_json(stamp: str) -> bytes:
    """Members that state that a stamp is what was seen, as far as their values."""
    return _stated(_STAMP_IS, {"#rep": stamp}, {"": None}).removesuffix(b'{"":null}')


@lru_cache(maxsize=64)
def _restamp_json(stamp: str) -> bytes:
    return b'"UpdateExpression":"SET #rep = :stamp",%b' % _stamp_is_json(stamp)


def stamp_condition(when: StampCondition, key_attribute: str, stamp: str) -> bytes:
    """Members of a request body that state a condition on the attribute `stamp`."""
    if isinstance(when, StampIs) and when.seen is not None:
        return b'%b{":seen":%b}' % (_stamp_is_json(stamp), when.seen)
    return _stated(*_stamp_terms(when, key_attribute, stamp))


def restamp(sealed: str, when: StampIs, key_attribute: str, stamp: str) -> bytes:
    """Members of an UpdateItem body that sets nothing but the stamp."""
    if when.seen is not None:
        return b'%b{":stamp":{"S":"%b"},":seen":%b}' % (_restamp_json(stamp), sealed.encode(), when.seen)
    text, names, values = _stamp_terms(when, key_attribute, stamp)
    stated = _stated(text, {"#rep": stamp, **names}, {":stamp": {"S": sealed}, **values})
    return b'"UpdateExpression":"SET #rep = :stamp",%b' % stated


def unstamp(when: StampIs, key_attribute: str, stamp: str) -> bytes:
    """Members of an UpdateItem body that takes the stamp away, and nothing else."""
    text, names, values = _stamp_terms(when, key_attribute, stamp)
    return b'"UpdateExpression":"REMOVE #rep",%b' % _stated(text, {"#rep": stamp, **names}, values)


def marked_by(version: Version, stamp: str) -> bytes:
    """Members of a request body that state that the delete of this version marked the item."""
    # The same as `begins_with`, which some servers refuse on an attribute of another type instead of calling it false.
    first = mark_prefix(version)
    behind = first[:-1] + chr(ord(first[-1]) + 1)
    text = "#rep >= :first AND #rep < :behind"
    return _stated(text, {"#rep": stamp}, {":first": {"S": first}, ":behind": {"S": behind}})


_Terms = tuple[str, dict[str, str], dict[str, object]]


def _stamp_terms(when: StampCondition, key_attribute: str, stamp: str) -> _Terms:
    key, rep = {"#pk": key_attribute}, {"#rep": stamp}
    match when:
        case Absent():
            return "attribute_not_exists(#pk)", key, {}
        case StampIs(seen):
            if seen is None:
                return "attribute_exists(#pk) AND attribute_not_exists(#rep)", {**key, **rep}, {}
            return _STAMP_IS, rep, {":seen": msgspec.Raw(seen)}
        case UnstampedOrBelow(version):
            text = "attribute_exists(#pk) AND (attribute_not_exists(#rep) OR #rep < :v)"
            return text, {**key, **rep}, {":v": {"S": version.text}}
        case _:
            assert_never(when)


SIDE_PARENT = "p"
SIDE_CONTENT = "h"
SIDE_REMOVED_AT = "ls"
SIDE_REMOVED = "lv"
SIDE_FLOOR = "f"


def write_row(
    request: MergeTombstone | SettleTombstone | RaiseFloor | NoteRemoval, expires_at: int, schema: int
) -> bytes:
    """Members of an UpdateItem body that changes a side row; `expires_at` in seconds since 1970."""
    sets: dict[str, str]
    match request:
        case MergeTombstone(_, tombstone):
            sets, terms = _tombstone(tombstone), _below(TOMBSTONE_VERSION, "<", tombstone.version)
        case SettleTombstone(_, seen, tombstone, removed_at):
            sets, terms = _tombstone(tombstone), _row_is(seen)
            if removed_at is not None:
                sets |= _removal(removed_at, tombstone.version)
        case RaiseFloor(_, seen, floor):
            sets, terms = {SIDE_FLOOR: floor.text}, _row_is(seen)
        case NoteRemoval(_, removed_at, removed):
            sets, terms = _removal(removed_at, removed), _below(SIDE_REMOVED, "<=", removed)
        case _:
            assert_never(request)
    text, names, values = terms
    numbers = {TOMBSTONE_EXPIRY: expires_at, SCHEMA_VERSION: schema}
    changes: dict[str, object] = {name: {"S": value} for name, value in sets.items()}
    changes |= {name: {"N": str(value)} for name, value in numbers.items()}
    stated = _stated(
        text,
        {**names, **{f"#{name}": name for name in changes}},
        {**values, **{f":{name}": value for name, value in changes.items()}},
    )
    update = "SET " + ", ".join(f"#{name} = :{name}" for name in changes)
    return b'"UpdateExpression":%b,%b' % (_ENCODE(update), stated)


def _tombstone(tombstone: Tombstone) -> dict[str, str]:
    return {
        TOMBSTONE_VERSION: tombstone.version.text,
        SIDE_PARENT: tombstone.parent,
        SIDE_CONTENT: tombstone.content,
    }


def _removal(removed_at: int, removed: Version) -> dict[str, str]:
    return {SIDE_REMOVED_AT: f"{removed_at:053d}", SIDE_REMOVED: removed.text}


def _below(name: str, comparison: str, version: Version) -> _Terms:
    text = f"attribute_not_exists(#{name}) OR #{name} {comparison} :most"
    return text, {f"#{name}": name}, {":most": {"S": version.text}}


def _row_is(seen: SideRow) -> _Terms:
    """Tombstone and floor are exactly as they were read."""
    texts: list[str] = []
    values: dict[str, object] = {}
    for name, version in ((TOMBSTONE_VERSION, seen.deleted), (SIDE_FLOOR, seen.floor)):
        if version is None:
            texts.append(f"attribute_not_exists(#{name})")
        else:
            texts.append(f"#{name} = :seen_{name}")
            values[f":seen_{name}"] = {"S": version.text}
    return " AND ".join(texts), {f"#{name}": name for name in (TOMBSTONE_VERSION, SIDE_FLOOR)}, values
