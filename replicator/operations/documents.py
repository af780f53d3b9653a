"""What operations return, as JSON: the same document for scripts, the admin server and a console.

A value's fields are the members, in their order; a name that Python keeps for itself ends in `_`. A stream is three
members: its region, its table and its ARN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

from replicator.domain.progress import Position
from replicator.domain.shards.leases import StreamRef
from replicator.domain.targets import TargetId


def document(value: Any) -> Any:
    """A value of an operation as plain JSON."""
    if isinstance(value, Position | TargetId):
        return value.text
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if is_dataclass(value):
        return dict(_members(value))
    if isinstance(value, Mapping):
        return {str(name): document(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [document(inner) for inner in value]
    return value


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    for member in fields(value):
        inner = getattr(value, member.name)
        if isinstance(inner, StreamRef):
            yield from (("region", inner.region), ("table", inner.table), ("stream", inner.arn))
        else:
            yield member.name.rstrip("_"), document(inner)
