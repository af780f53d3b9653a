"""What an uninstallation takes away: stamps that are ours, and side rows of a table. Decisions about values.

Invariant: nothing is taken that another use could have put there, and no item that a delete has marked loses the mark:
what is left is counted by name.
"""

from __future__ import annotations

import enum
from collections.abc import Collection

import msgspec

from replicator.domain.image import Image
from replicator.domain.modes.requests import StampIs
from replicator.domain.stamps import StampKind, parse_stamp
from replicator.domain.versions import is_ordered_version

_ENCODE = msgspec.json.Encoder().encode
_BEHIND_THE_TABLE = ("[", "sha256:")
"""How the rest of a side row's key begins: with the item's key, or its digest."""


class Kept(enum.StrEnum):
    """Why a stamp stays. The names are those of the counts."""

    CHANGED = "left"
    """It changed between the look and the write, so something stamps items still."""
    MARKED = "unfinished"
    """A delete has marked the item and did not come to its end: without the mark it would be there again."""
    FOREIGN = "foreign"
    """The attribute holds no stamp of ours."""


def stamp_of(item: Image, attribute: str) -> StampIs | Kept | None:
    """The condition under which an item's stamp is taken away, or why it stays; None: it has none."""
    typed = item.attribute(attribute)
    if typed is None:
        return None
    text = typed.get("S")
    if not isinstance(text, str):
        return Kept.FOREIGN
    stamp = parse_stamp(text)
    if stamp is None and not is_ordered_version(text):
        return Kept.FOREIGN
    if stamp is not None and stamp.kind is StampKind.MARK:
        return Kept.MARKED
    return StampIs(_ENCODE(typed))


def is_side_row(side_key: str, tables: Collection[str]) -> bool:
    """Whether a row of a side table is about an item of one of these tables."""
    table, _, rest = side_key.partition("|")
    return table in tables and rest.startswith(_BEHIND_THE_TABLE)
