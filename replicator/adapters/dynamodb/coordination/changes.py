"""One conditional change of a row, as a value; and its expressions.

Invariant: a condition compares whole attributes with what the caller saw, so a change happens on the row that was seen
or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from replicator.adapters.dynamodb.coordination.names import SCHEMA

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef

    Value = AttributeValueTypeDef
    When = Mapping[str, Value | None]


def text(value: str) -> Value:
    """A string attribute."""
    return {"S": value}


def texts(values: Iterable[str]) -> Value:
    """A set of strings, of which there is one at least."""
    return {"SS": sorted(values)}


def number(value: int) -> Value:
    """A number attribute."""
    return {"N": str(value)}


def seconds(value: float) -> Value:
    """A number of seconds, to the millisecond."""
    return {"N": f"{value:.3f}"}


def binary(value: bytes) -> Value:
    """Bytes."""
    return {"B": value}


def flag() -> Value:
    """An attribute that is set or not there."""
    return {"BOOL": True}


def schema() -> Value:
    """The version of the layout, which every row bears."""
    return number(SCHEMA)


class Change(Struct, frozen=True):
    """What happens to a row, if it is as it should be.

    `sets`: attributes to set. `defaults`: attributes to set where they are missing. `merges`: strings to add to sets.
    `takes`: strings to take from sets. `removes`: attributes to take away. `when`: attributes that must have a value,
    or (None) be missing. `present`: attributes that must be there.
    """

    sets: Mapping[str, Value] = field(default_factory=dict)
    defaults: Mapping[str, Value] = field(default_factory=dict)
    merges: Mapping[str, Sequence[str]] = field(default_factory=dict)
    takes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    removes: Iterable[str] = ()
    when: When = field(default_factory=dict)
    present: Sequence[str] = ()

    def request(self) -> dict[str, Any]:
        """The change as members of UpdateItem."""
        words = _Words()
        sets = [f"{words.name(name)} = {words.value(value)}" for name, value in self.sets.items()]
        for name, value in self.defaults.items():
            sets.append(f"{words.name(name)} = if_not_exists({words.name(name)}, {words.value(value)})")
        removes = [words.name(name) for name in self.removes]
        adds = [f"{words.name(name)} {words.value({'SS': list(some)})}" for name, some in self.merges.items() if some]
        takes = [f"{words.name(name)} {words.value({'SS': list(some)})}" for name, some in self.takes.items() if some]
        parts = (("SET", sets), ("REMOVE", removes), ("ADD", adds), ("DELETE", takes))
        update = " ".join(f"{verb} {', '.join(clauses)}" for verb, clauses in parts if clauses)
        return {"UpdateExpression": update, **words.condition(self.when, self.present)}


def condition(when: When, present: Sequence[str]) -> dict[str, Any]:
    """A condition as members of DeleteItem; nothing when it asks for nothing."""
    return _Words().condition(when, present)


class _Words:
    """Placeholders for the names and values of one request."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._values: dict[str, Value] = {}

    def name(self, name: str) -> str:
        return self._names.setdefault(name, f"#n{len(self._names)}")

    def value(self, value: Value) -> str:
        placeholder = f":v{len(self._values)}"
        self._values[placeholder] = value
        return placeholder

    def condition(self, when: When, present: Sequence[str]) -> dict[str, Any]:
        """The condition, and with it every placeholder that was used."""
        clauses = [
            f"attribute_not_exists({self.name(name)})" if value is None else f"{self.name(name)} = {self.value(value)}"
            for name, value in when.items()
        ]
        clauses += [f"attribute_exists({self.name(name)})" for name in present]
        request: dict[str, Any] = {
            "ConditionExpression": " AND ".join(clauses),
            "ExpressionAttributeNames": {placeholder: name for name, placeholder in self._names.items()},
            "ExpressionAttributeValues": self._values,
        }
        return {member: value for member, value in request.items() if value}
