"""JSON schemas of what operations return, as `document` writes it: made of the types themselves."""

from __future__ import annotations

import enum
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NewType

from replicator.domain import identifiers, targets
from replicator.domain.progress import Position
from replicator.domain.shards.leases import StreamRef
from replicator.domain.targets import TargetId
from replicator.domain.values import field_names

_NAMES: dict[str, Any] = {
    **{name: each for name, each in vars(identifiers).items() if isinstance(each, NewType)},
    "TargetId": targets.TargetId,
    "Position": Position,
    "StreamRef": StreamRef,
    "datetime": datetime,
    "Any": Any,
}
"""What modules import for the type checker alone."""

_PLAIN: Mapping[Any, dict[str, Any]] = {
    Any: {},
    object: {},
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    datetime: {"type": "string", "format": "date-time"},
    Position: {"type": "string"},
    TargetId: {"type": "string"},
}
_TEXT = {"type": "string"}


class Schemas:
    """Schemas by the names of types; `found`: those that were asked for, and theirs."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def of(self, kind: Any) -> dict[str, Any]:  # noqa: PLR0911 - one for each kind of type
        """The schema of a type, or of the members of a document."""
        while isinstance(kind, NewType):
            kind = kind.__supertype__
        if isinstance(kind, Mapping):
            return _members({name: self.of(each) for name, each in kind.items()})
        if kind in _PLAIN:
            return dict(_PLAIN[kind])
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        if origin in {typing.Union, types.UnionType}:
            return {"anyOf": [self.of(each) for each in inner]}
        if origin in {list, tuple, Sequence}:
            return {"type": "array", "items": self.of(inner[0]) if inner else {}}
        if origin in {dict, Mapping}:
            return {"type": "object", "additionalProperties": self.of(inner[1])}
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return {"type": "string", "enum": [each.value for each in kind]}
        return self._value(kind, field_names(kind))

    def _value(self, kind: Any, names: Sequence[str]) -> dict[str, Any]:
        assert names, f"{kind} has no schema"
        if kind.__name__ not in self.found:
            self.found[kind.__name__] = {}  # it may be part of itself
            known = typing.get_type_hints(kind, {**vars(sys.modules[kind.__module__]), **_NAMES})
            schemas: dict[str, Any] = {}
            for name in names:
                if known[name] is StreamRef:
                    schemas |= {"region": _TEXT, "table": _TEXT, "stream": _TEXT}
                else:
                    schemas[name.rstrip("_")] = self.of(known[name])
            self.found[kind.__name__] = _members(schemas)
        return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _members(schemas: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(schemas), "required": list(schemas)}
