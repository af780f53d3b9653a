"""What an entry shows when it is read again a while behind the change that acted on it.

Invariant: an entry counts as inconsistent only when it is older than its table and a change that it lacks is older than
the horizon. Only an entry that could be judged counts as checked: nothing that is absent or opaque makes nines.
"""

from __future__ import annotations

import enum
from collections import Counter

from msgspec import Struct, field

from replicator.domain.copying.entries import EntryState, as_read, entry_state, item_version
from replicator.domain.copying.sureness import nines
from replicator.domain.image import Image
from replicator.domain.stamps import parse_version
from replicator.domain.versions import STAMP, UNSTAMPED

HORIZONS = (1.0, 5.0, 60.0)
"""Seconds behind an action."""


class Meaning(enum.StrEnum):
    """What one look at an entry means."""

    CONSISTENT = "consistent"
    INCONSISTENT = "inconsistent"
    ABSENT = "absent"  # no entry, or a reader is about to fill it
    OPAQUE = "opaque"  # of another format, or of an item without a version of ours
    OVERTAKEN = "overtaken"  # older than its table, by a change that may be younger than the horizon
    UNREAD = "unread"  # cache or table did not answer


class VerifyPolicy(Struct, frozen=True):
    """How much is read again: one of so many acted on, and reads of the table per second and worker."""

    every: int = 100
    reads: int = 5

    @property
    def most(self) -> int:
        """Samples that are kept at once, so that the reads of all horizons fit in."""
        return max(1, int(self.reads * HORIZONS[-1] / len(HORIZONS)))


class Horizon(Struct, frozen=True):
    """What was found at one horizon, so many seconds behind actions."""

    seconds: float
    found: Counter[Meaning] = field(default_factory=Counter)

    @property
    def checked(self) -> int:
        """Entries that were judged."""
        return self.found[Meaning.CONSISTENT] + self.found[Meaning.INCONSISTENT]

    @property
    def nines(self) -> float | None:
        """-log10 of the share that was inconsistent; without any, as much as so many entries can show."""
        return nines(self.checked, self.found[Meaning.INCONSISTENT])


def meaning(head: bytes, item: Image | None, made: str | None, before: float, stamp: str = STAMP) -> Meaning:
    """What the head of an entry means beside its item, which was read consistently and later.

    `made`: the version of the change that was acted on, None where it is not known; then the item's own version says
    when it was made. `before`: seconds since 1970, the beginning of the horizon.
    """
    shown = as_read(head)
    if not shown or shown.startswith(b"L:"):
        return Meaning.ABSENT
    if item is None:
        return _of_none(shown, made)
    version = item_version(item, stamp)
    match entry_state(head, version):
        case EntryState.CURRENT if made is not None or version != UNSTAMPED:
            return Meaning.CONSISTENT
        case EntryState.STALE if version is not None:
            return _of_older(head, version, made, before)
        case _:
            return Meaning.OPAQUE


def _of_older(head: bytes, version: str, made: str | None, before: float) -> Meaning:
    """The same of an entry that is older than its item."""
    if made is not None and len(made) == len(version):
        return Meaning.INCONSISTENT if entry_state(head, made) is EntryState.STALE else Meaning.OVERTAKEN
    written = parse_version(version)
    late = written is not None and written.micros / 1e6 <= before
    return Meaning.INCONSISTENT if late else Meaning.OVERTAKEN


def _of_none(shown: bytes, made: str | None) -> Meaning:
    """The same of an item that is not there."""
    if shown.startswith(b"T:"):
        return Meaning.CONSISTENT
    match entry_state(shown, made):
        case EntryState.STALE:
            return Meaning.INCONSISTENT
        case EntryState.CURRENT:
            return Meaning.OVERTAKEN  # it was deleted since
        case _:
            return Meaning.OPAQUE
