"""The records of the measured stream: the same ones for every consumer, made from a seed."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from benchmarks.hot_path.mixes import Mix

_FIRST_SEQUENCE = 100_000_000_000_000_000_000
_CREATED_AT = 1_700_000_000
_FILLING = 200


@dataclass(frozen=True, slots=True)
class Written:
    """A record as the wire has it."""

    sequence: int
    wire: bytes


def records(count: int, mix: Mix, seed: int) -> list[Written]:
    """So many records; an item is about 300 bytes. A repeated key is one of the fifty before it."""
    dice = random.Random(seed)
    keys: list[int] = []
    made = []
    for number in range(count):
        repeated = len(keys) > 1 and dice.random() < mix.repeats
        key = dice.choice(keys[-50:]) if repeated else number
        keys.append(key)
        kind = "MODIFY" if repeated else dice.choices(("INSERT", "MODIFY", "REMOVE"), mix.weights)[0]
        made.append(Written(_FIRST_SEQUENCE + number, _record(number, key, kind)))
    return made


def _record(number: int, key: int, kind: str) -> bytes:
    keys = {"pk": {"S": f"order-{key:09d}"}}
    change: dict[str, object] = {
        "ApproximateCreationDateTime": _CREATED_AT + number // 1000,
        "Keys": keys,
        "SequenceNumber": str(_FIRST_SEQUENCE + number),
        "SizeBytes": 600,
        "StreamViewType": "NEW_AND_OLD_IMAGES",
    }
    if kind != "REMOVE":
        change["NewImage"] = _item(keys, number)
    if kind != "INSERT":
        change["OldImage"] = _item(keys, number - 1)
    record = {
        "eventID": f"{number:032x}",
        "eventName": kind,
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "dynamodb": change,
    }
    return json.dumps(record, separators=(",", ":")).encode()


def _item(keys: dict[str, dict[str, str]], number: int) -> dict[str, object]:
    return {
        **keys,
        "n": {"N": str(number)},
        "state": {"S": "shipped"},
        "total": {"N": "149.90"},
        "lines": {"L": [{"M": {"sku": {"S": "A-1"}, "count": {"N": "2"}}}]},
        "filling": {"S": "x" * _FILLING},
    }
