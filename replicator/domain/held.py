"""What keeps a rule, or one of its targets, from running: its world is wrong, and it goes on when that is mended.

Invariant: only the world holds. What does not answer is waited for, and what is refused of one record is that record's.
"""

from __future__ import annotations

import enum

from msgspec import Struct

from replicator.domain.errors import (
    AccessRefused,
    ReplicatorError,
    SchemaMismatch,
    StreamUnusable,
    TableMissing,
    TableReplaced,
    WorldMismatch,
)
from replicator.domain.identifiers import RuleName, TableName
from replicator.domain.targets import TargetId


class Cause(enum.StrEnum):
    """Kinds of wrong worlds, for metrics and alerts."""

    MISSING = "missing"
    DENIED = "denied"
    SCHEMA = "schema"
    STREAM = "stream"
    REPLACED = "replaced"
    MISMATCH = "mismatch"
    """Anything else that contradicts the configuration."""


_BY_CLASS: tuple[tuple[type[ReplicatorError], Cause], ...] = (
    (TableMissing, Cause.MISSING),
    (AccessRefused, Cause.DENIED),
    (SchemaMismatch, Cause.SCHEMA),
    (StreamUnusable, Cause.STREAM),
    (TableReplaced, Cause.REPLACED),
    (WorldMismatch, Cause.MISMATCH),
)


def cause_of(error: ReplicatorError) -> Cause | None:
    """Which wrong world an error is of; None when it is of none."""
    return next((cause for kind, cause in _BY_CLASS if isinstance(error, kind)), None)


class HeldId(Struct, frozen=True):
    """What is held: a rule on one table, as the rule names it, or one target of that. A choice's own table is ""."""

    rule: RuleName
    table: TableName
    target: TargetId | None = None


class Hold(Struct, frozen=True):
    """Why something is held."""

    held: HeldId
    error: ReplicatorError

    @property
    def cause(self) -> Cause:
        """The kind of its wrong world."""
        return cause_of(self.error) or Cause.MISMATCH
