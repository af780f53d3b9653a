"""Whose write a stream record shows: a user's, or the daemon's own. A pure table.

Invariant: a user's write is never taken for the daemon's, but for a byte-identical old image that was put back with
its old stamp (docs/protocol.md, limits). The daemon's own writes are never replicated, so there is no echo loop.
"""

from __future__ import annotations

import enum

from replicator.domain.stamps import Held, StampKind


class Origin(enum.Enum):
    """What a record is to mode `active-active`."""

    LOCAL_PUT = "local_put"
    LOCAL_DELETE = "local_delete"
    LOCAL_EXPIRY = "local_expiry"
    ECHO_INSERT = "echo_insert"
    ECHO_MODIFY = "echo_modify"
    ECHO_REMOVE = "echo_remove"


USERS = frozenset({Origin.LOCAL_PUT, Origin.LOCAL_DELETE, Origin.LOCAL_EXPIRY})
"""What users, or the expiry of a table, did in the region whose record it is."""


def classify(old: Held | None, new: Held | None, *, by_ttl: bool) -> Origin:
    """Whose write turned `old` into `new`; None means no item. Source: docs/protocol.md, Classification."""
    if new is None:
        if old is not None and old.kind is StampKind.MARK:
            return Origin.ECHO_REMOVE
        return Origin.LOCAL_EXPIRY if by_ttl else Origin.LOCAL_DELETE
    if not _is_echo(old, new):
        return Origin.LOCAL_PUT
    return Origin.ECHO_INSERT if old is None else Origin.ECHO_MODIFY


def _is_echo(old: Held | None, new: Held) -> bool:
    same_content = old is not None and old.content == new.content
    if new.stamp is None or not raises_stamp(old, new):
        return False
    if new.stamp.kind is StampKind.MARK:
        return same_content  # a mark neither inserts nor changes content
    if stamps_a_restored_image(old, new):
        return False
    return same_content or new.intact


def raises_stamp(old: Held | None, new: Held) -> bool:
    """Whether the stamp is higher than the one before: the daemon only ever raises stamps, users keep or lower them."""
    return old is None or old.version is None or (new.version is not None and new.version > old.version)


def stamps_a_restored_image(old: Held | None, new: Held) -> bool:
    """Whether a stamp-back landed on an old image that a user had put back together with its old stamp."""
    return old is not None and old.intact and old.content == new.content and not new.intact
