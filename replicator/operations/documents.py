"""What operations return, as JSON: the same document for scripts, the admin server and a console.

A value's fields are the members, in their order; a name that Python keeps for itself ends in `_`. A stream is three
members: its region, its table and its ARN.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from replicator.domain.progress import Position
from replicator.domain.shards.leases import StreamRef
from replicator.domain.targets import TargetId
from replicator.domain.values import field_names


def document(value: Any) -> Any:
    """A value of an operation as plain JSON."""
    if isinstance(value, Position | TargetId):
        return value.text
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if names := field_names(value):
        return dict(_members(value, names))
    if isinstance(value, Mapping):
        return {str(name): document(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [document(inner) for inner in value]
    return value


def _members(value: Any, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    for name in names:
        inner = getattr(value, name)
        if isinstance(inner, StreamRef):
            yield from (("region", inner.region), ("table", inner.table), ("stream", inner.arn))
        else:
            yield name.rstrip("_"), document(inner)
