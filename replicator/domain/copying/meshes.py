"""What the modes of a mesh share in copying: how an undecidable difference is decided, and how one ended."""

from __future__ import annotations

import enum
from collections.abc import Generator
from dataclasses import replace
from typing import Any, TypeVar

from replicator.domain.conflicts import ConflictKind, LogConflict

T = TypeVar("T")


class Missing(enum.StrEnum):
    """What an item that one region lacks, without a delete that says why, is taken for."""

    KEEP = "keep"  # its put was lost: it is copied
    DELETE = "delete"  # its delete was lost: it is deleted everywhere
    MANUAL = "manual"  # neither: it is listed


class MeshMended(enum.Enum):
    """How a repair of one key ended, in all regions."""

    PUT = "put"
    DELETED = "deleted"
    LEFT = "left"  # undecided, as the operator wants
    CHANGED = "changed"  # it is not as it was seen any more: look anew


def logged_as(kind: ConflictKind, steps: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
    """The same steps, with what they log under another kind."""
    try:
        request = next(steps)
        while True:
            named = replace(request, kind=kind) if isinstance(request, LogConflict) else request
            request = steps.send((yield named))
    except StopIteration as end:
        result: T = end.value
        return result
