"""The records of the measured stream: the same ones for every consumer, made from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import msgspec

from benchmarks.hot_path.mixes import Mix
from replicator.domain.image import Image
from replicator.domain.stamps import NO_PARENT, Stamp, StampKind, Version, content_of

FIRST_SEQUENCE = 100_000_000_000_000_000_000
STAMP = "_rep"
CREATED_AT = 1_700_000_000
_FILLING = 200
_ENCODE = msgspec.json.Encoder().encode

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """A user's write: a key, and its items before and after as the wire has them; None: there was none."""

    key: str
    old: bytes | None
    new: bytes | None


def changes(count: int, mix: Mix, seed: int, *, stamped: bool = False) -> list[Change]:
    """So many changes; an item is about 300 bytes. A repeated key is one of the fifty before it.

    `stamped`: what was there before has the stamp of a daemon in mode `active-active`, and an update keeps it.
    """
    dice = random.Random(seed)
    keys: list[int] = []
    made = []
    for number in range(count):
        repeated = len(keys) > 1 and dice.random() < mix.repeats
        key = dice.choice(keys[-50:]) if repeated else number
        keys.append(key)
        kind = "MODIFY" if repeated else dice.choices(("INSERT", "MODIFY", "REMOVE"), mix.weights)[0]
        name = f"order-{key:09d}"
        old = None if kind == "INSERT" else _item(name, number - 1)
        new = None if kind == "REMOVE" else _item(name, number)
        if stamped and old is not None:
            stamp = {STAMP: {"S": _stamp(old, number)}}
            old, new = old | stamp, None if new is None else new | stamp
        made.append(Change(name, _wire(old), _wire(new)))
    return made


def _wire(item: Item | None) -> bytes | None:
    return None if item is None else _ENCODE(item)


def _stamp(item: Item, number: int) -> str:
    version = Version(1_600_000_000_000_000 + number, 0, "us", number)
    return Stamp(version, StampKind.VALUE, content_of(Image(_ENCODE(item))), NO_PARENT).sealed("AAAAAAAA")


def record(place: int, region: str, change: Change) -> bytes:
    """The record of a change, as the wire has it; `place` counts from 0 in its stream."""
    kind = "INSERT" if change.old is None else "REMOVE" if change.new is None else "MODIFY"
    images = b"".join(
        b',"%b":%b' % (name, image)
        for name, image in ((b"NewImage", change.new), (b"OldImage", change.old))
        if image is not None
    )
    return (
        b'{"eventID":"%032x","eventName":"%b","eventVersion":"1.1","eventSource":"aws:dynamodb","awsRegion":"%b",'
        b'"dynamodb":{"ApproximateCreationDateTime":%d,"Keys":{"pk":{"S":"%b"}},"SequenceNumber":"%d","SizeBytes":600,'
        b'"StreamViewType":"NEW_AND_OLD_IMAGES"%b}}'
    ) % (
        place,
        kind.encode(),
        region.encode(),
        CREATED_AT + place // 1000,
        change.key.encode(),
        FIRST_SEQUENCE + place,
        images,
    )


def _item(key: str, number: int) -> Item:
    return {
        "pk": {"S": key},
        "n": {"N": str(number)},
        "state": {"S": "shipped"},
        "total": {"N": "149.90"},
        "lines": {"L": [{"M": {"sku": {"S": "A-1"}, "count": {"N": "2"}}}]},
        "filling": {"S": "x" * _FILLING},
    }
