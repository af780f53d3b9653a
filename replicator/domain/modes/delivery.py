"""When a record of a mesh is done for the regions other than its own, and what became of a key that one was owed.

Invariant: a record is done only when every other region has answered, or holds more, or is owed its key in a durable
row with the record's version or a greater one.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping

from replicator.domain.identifiers import RegionId


class Drained(enum.Enum):
    """What was brought to a region that had been owed a key; with each of these its row is settled, if unchanged."""

    PUT = "put"  # the item that stands at home, or something greater was there
    DELETED = "deleted"  # the delete that home remembers, or something greater was there
    NOTHING = "nothing"  # what stands at home now is brought by a record of its own


def is_done(
    version: str, others: Iterable[RegionId], answered: Collection[RegionId], owed: Mapping[RegionId, str]
) -> bool:
    """Whether a record of this version may be passed.

    `owed`: the version of the key's durable row, by region. Versions are texts that sort as their mode orders them:
    `Settled.owed_version` of either mode.
    """
    return all(region in answered or (region in owed and owed[region] >= version) for region in others)
