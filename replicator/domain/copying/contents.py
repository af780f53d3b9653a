"""What a rule wants a target to hold, and whether two items hold the same: by value, without stamps.

Invariant: equal digests mean equal content, however it is spelled: numbers by value, sets as sets, map keys in any
order, stamp and reserved attributes left out.
"""

from __future__ import annotations

import enum
from hashlib import sha256

from replicator.domain.image import Image, canonical, content_hash, same_content, unreserved
from replicator.domain.records import Event, ItemKey
from replicator.domain.rules import Rule, TtlDeletes
from replicator.domain.transforms import Transform
from replicator.domain.versions import STAMP


class Kind(enum.StrEnum):
    """How a target differs."""

    MISSING = "missing"
    EXTRA = "extra"
    DIFFERS = "differs"
    UNSTAMPED = "unstamped"  # an item is there without a version of the rule, whatever its content


def wanted(
    rule: Rule, source: Image | None, key: ItemKey | None = None, transform: Transform | None = None
) -> Image | None:
    """What the rule wants a replica to hold for what the source holds; None: nothing.

    `transform`: that of the replica, which needs the key. Raises `PoisonRecord` where the filter or the transform
    cannot be evaluated on the item.
    """
    if source is None or not rule.filter.matches(source):
        return None
    image = unreserved(source)
    return image if transform is None or key is None else transform.apply(key, image)


def digest(image: Image | None, stamp: str = STAMP) -> str | None:
    """Hash of an item's content; None when there is no item."""
    return None if image is None else content_hash(unreserved(image, stamp))


def print_of(image: Image | None) -> str | None:
    """Hash of an item's content and stamp: another one is another item."""
    return None if image is None else sha256(canonical(image, "")).hexdigest()


def is_same(one: Image | None, other: Image | None, stamp: str = STAMP) -> bool:
    """Whether two places hold the same."""
    if one is None or other is None:
        return one is other
    return one.wire == other.wire or same_content(one, other, stamp)


def is_asked_for(rule: Rule, kind: Kind) -> bool:
    """Whether the rule's own options leave such differences: events that it leaves out, expiries that it skips."""
    events = rule.filter.events
    match kind:
        case Kind.MISSING:
            return Event.INSERT not in events
        case Kind.EXTRA:
            return Event.REMOVE not in events or rule.ttl_deletes is TtlDeletes.SKIP
        case Kind.DIFFERS:
            return Event.MODIFY not in events or not events & {Event.INSERT, Event.REMOVE}
        case _:
            return False
