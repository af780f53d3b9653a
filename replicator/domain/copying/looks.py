"""Mode `ordered`: two looks at a key at source and target, and what they agree on.

What differs at the first look is a candidate, since it may be merely in flight. The caller lets the stream catch up
with the look (`fences.has_passed`), then looks again. Invariant: a difference is what the second look shows while both
sides are as they were at the first. The second look reads the target's item, then its side row, then the source's item:
the other way round, a change that arrives between the reads would be overwritten by what was before it.
"""

from __future__ import annotations

import enum
from collections.abc import Generator

from msgspec import Struct

from replicator.domain.copying.contents import Kind, digest, is_asked_for, is_same, print_of, wanted
from replicator.domain.image import Image
from replicator.domain.modes.requests import Found, GetItem, GetTombstone, OrderedRequest, Response
from replicator.domain.records import ItemKey
from replicator.domain.rules import Rule
from replicator.domain.transforms import Transform
from replicator.domain.values import replace
from replicator.domain.versions import is_ordered_version

MOST_LOOKS = 5
"""How often a key is looked at while it changes between the looks."""


class Side(enum.Enum):
    """Whom a copier asks."""

    SOURCE = "source"
    TARGET = "target"


class On(Struct, frozen=True):
    """Carry a request out at the source or at the target; reads are consistent."""

    side: Side
    request: OrderedRequest


class Seen(Struct, frozen=True):
    """What a second look found under a key: the target's item and tombstone, and the source's item."""

    key: ItemKey
    target: Image | None
    tombstone: str | None
    source: Image | None


class Candidate(Struct, frozen=True):
    """A key that differed: what the rule wanted and the target held, when, and how many looks there were.

    `looked_at`: when the later of both was read, by the source's time, in seconds since 1970: what was brought to the
    target between the reads must have been passed, too. `in_order`: the target was read before the source.
    """

    key: ItemKey
    wanted: str | None
    found: str | None
    looked_at: float
    looks: int = 1
    tombstone: str | None = None
    in_order: bool = False


class Difference(Struct, frozen=True):
    """What two looks agree on: `wanted` should be there, and is not."""

    key: ItemKey
    kind: Kind
    wanted: Image | None
    seen: Seen


class Ended(enum.Enum):
    """How a candidate ended that is no difference."""

    SAME = "same"
    MOVING = "moving"  # one side changed between all looks


def is_versioned(item: Image | None) -> bool:
    """Whether an item at a replica carries a version of mode `ordered`."""
    return item is not None and item.stamp is not None and is_ordered_version(item.stamp)


def kind_of(rule: Rule, image: Image | None, target: Image | None) -> Kind | None:
    """How a target differs from what the rule wants it to hold; None: it does not, or the rule's options want it so."""
    if image is None:
        kind = None if target is None else Kind.EXTRA
    elif target is None:
        kind = Kind.MISSING
    elif not is_versioned(target):
        kind = Kind.UNSTAMPED
    else:
        kind = None if is_same(image, target) else Kind.DIFFERS
    return None if kind is None or is_asked_for(rule, kind) else kind


def first_look(  # noqa: PLR0913, PLR0917 - what was seen of one key
    rule: Rule,
    key: ItemKey,
    source: Image | None,
    target: Image | None,
    looked_at: float,
    transform: Transform | None = None,
) -> Candidate | None:
    """Whether a key is to be looked at again. Source and target may be read in any order, however far apart.

    `transform` is that of the target.
    """
    image = wanted(rule, source, key, transform)
    differs = kind_of(rule, image, target) is not None
    return Candidate(key, digest(image), print_of(target), looked_at) if differs else None


def second_look(key: ItemKey) -> Generator[On, Response, Seen]:
    """Look at a candidate again, in the order that matters."""
    target = yield On(Side.TARGET, GetItem(key))
    row = yield On(Side.TARGET, GetTombstone(key))
    source = yield On(Side.SOURCE, GetItem(key))
    assert isinstance(target, Found), "an item was read"
    assert isinstance(row, Found), "a tombstone was read"
    assert isinstance(source, Found), "an item was read"
    return Seen(key, target.item, row.tombstone, source.item)


def judge(  # noqa: PLR0913 - what was seen of one key, and how strictly it is taken
    rule: Rule,
    candidate: Candidate,
    seen: Seen,
    looked_at: float,
    *,
    strict: bool = False,
    transform: Transform | None = None,
) -> Difference | Candidate | Ended:
    """What another look makes of a candidate; another `Candidate`: look once more, when its look has passed.

    `looked_at`: the source's time of this look. `strict`: name only what no change in flight can explain, which takes
    one look more. The reads of a first look are in no order, so an item that came and went while they were made may
    look like a difference twice. Repairing that does no harm, as every write is conditional; naming it would be wrong.
    """
    image = wanted(rule, seen.source, candidate.key, transform)
    kind = kind_of(rule, image, seen.target)
    if kind is None:
        return Ended.SAME
    again = replace(
        candidate,
        wanted=digest(image),
        found=print_of(seen.target),
        looked_at=looked_at,
        looks=candidate.looks + 1,
        tombstone=seen.tombstone,
        in_order=True,
    )
    agreed = (again.wanted, again.found) == (candidate.wanted, candidate.found)
    if agreed and (not strict or (candidate.in_order and again.tombstone == candidate.tombstone)):
        return Difference(candidate.key, kind, image, seen)
    return Ended.MOVING if again.looks > MOST_LOOKS else again
