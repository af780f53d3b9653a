"""The key that an operator types, as the key that DynamoDB knows: typed by the table's key schema."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from decimal import Decimal, DecimalException
from itertools import permutations
from typing import Any

from replicator.domain.errors import EXIT_USAGE, ReplicatorError
from replicator.domain.image import normal_number
from replicator.domain.records import ItemKey

_DIGITS, _SMALLEST, _GREATEST = 38, -130, 125  # what a DynamoDB number may have


class KeyInvalid(ReplicatorError):
    """The key is not one of this table."""

    exit_code = EXIT_USAGE


def parse_key(text: str, schema: tuple[tuple[str, str], ...]) -> ItemKey:
    """A key from plain JSON, DynamoDB JSON, as it is shown (`pk=a, sk=1`) or, for a simple key, its bare value.

    `schema` holds (attribute, type), the hash key first.
    """
    wanted = ", ".join(f"{name} ({kind})" for name, kind in schema)
    advice = f"The key is {wanted}: write '{_shown(schema)}', or '{_example(schema)}'."
    given = _mapping(text, schema, advice)
    if set(given) != {name for name, _ in schema}:
        raise KeyInvalid(f"The key {text} has not the attributes of the table's key.", advice=advice)
    try:
        parts = [(name, kind, _value(given[name], kind)) for name, kind in schema]
    except (TypeError, ValueError, DecimalException, binascii.Error) as error:
        raise KeyInvalid(f"The key {text} has a value of the wrong type.", advice=advice) from error
    return ItemKey(tuple(sorted(parts)))


def _example(schema: tuple[tuple[str, str], ...]) -> str:
    return json.dumps({name: 1 if kind == "N" else "a" for name, kind in schema})


def _shown(schema: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{name}={1 if kind == 'N' else 'a'}" for name, kind in schema)


def _mapping(text: str, schema: tuple[tuple[str, str], ...], advice: str) -> Mapping[str, Any]:
    if text.lstrip().startswith("{"):
        try:
            decoded = json.loads(text, parse_int=Decimal, parse_float=Decimal)
        except ValueError:
            decoded = None
        if isinstance(decoded, dict):
            return decoded
    for names in permutations(sorted(name for name, _ in schema)):
        shown = re.fullmatch(", *".join(f"{re.escape(name)}=(.*)" for name in names), text)
        if shown is not None:
            return dict(zip(names, shown.groups(), strict=True))
    if len(schema) != 1:
        raise KeyInvalid(f"The key {text} is neither JSON nor a value for each attribute.", advice=advice)
    return {schema[0][0]: text}


def _value(given: object, kind: str) -> str:
    """A value as DynamoDB writes it; numbers in normal form, binary as base64."""
    if isinstance(given, dict):
        ((typed, given),) = given.items()
        if typed != kind:
            raise ValueError(typed)
    if kind == "N" and isinstance(given, Decimal | str):
        number = Decimal(normal_number(str(given)))
        fits = _SMALLEST <= number.adjusted() <= _GREATEST and len(number.as_tuple().digits) <= _DIGITS
        if not (number.is_finite() and fits):
            raise ValueError(kind)
        return f"{number:f}"
    if kind == "N" or not isinstance(given, str):
        raise TypeError(kind)
    if kind == "B":
        base64.b64decode(given, validate=True)
    return given
