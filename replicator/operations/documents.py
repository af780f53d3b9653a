"""What operations return, as JSON: the same document for scripts, the admin server and a console.

A value's fields are the members, in their order; a name that Python keeps for itself ends in `_`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

from replicator.domain.progress import Position
from replicator.domain.targets import TargetId


def document(value: Any) -> Any:
    """A value of an operation as plain JSON."""
    if isinstance(value, Position | TargetId):
        return value.text
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if is_dataclass(value):
        return {member.name.rstrip("_"): document(getattr(value, member.name)) for member in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): document(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [document(inner) for inner in value]
    return value
