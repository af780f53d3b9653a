"""Cache entries beside compared items: whether one is older than the item that it stands for.

Invariant: only an entry that carries a version of the item's own form is judged; every other one is opaque.
"""

from __future__ import annotations

import enum

from replicator.domain.image import Image
from replicator.domain.stamps import parse_stamp
from replicator.domain.versions import STAMP, UNSTAMPED, is_ordered_version

_VALUE, _MARKER, _LEASE = b"V:", b"T:", b"L:"


class EntryState(enum.Enum):
    """What an entry is, beside its item."""

    NONE = "none"  # nothing, or a reader is about to fill it
    CURRENT = "current"
    STALE = "stale"  # of an older version than the item
    OPAQUE = "opaque"  # of another format, so nothing can be said


def item_version(item: Image, stamp: str = STAMP) -> str | None:
    """The version that entries of this item carry; None of one whose stamp is none of ours."""
    typed = item.attributes.get(stamp)
    if typed is None:
        return UNSTAMPED
    text = typed.get("S")
    if not isinstance(text, str):
        return None
    if is_ordered_version(text):
        return text
    active = parse_stamp(text)
    return None if active is None else active.version.text


def as_read(entry: bytes) -> bytes:
    """What readers are given: an entry, or the one that the lease of its renewal carries."""
    lease, bar, carried = entry.partition(b"|")
    return carried if bar and lease.startswith(_LEASE) else entry


def entry_state(head: bytes, version: str | None) -> EntryState:
    """What the first bytes of an entry say, beside the version of its item (`item_version`)."""
    head = as_read(head)
    if not head or head.startswith(_LEASE):
        return EntryState.NONE
    kind, rest = head[:2], head[2:]
    wide = 0 if version is None else len(version)
    ours = (kind == _VALUE and rest[wide : wide + 1] == b"|") or (kind == _MARKER and len(rest) == wide)
    if version is None or not ours:
        return EntryState.OPAQUE
    return EntryState.STALE if rest[:wide] < version.encode() else EntryState.CURRENT
