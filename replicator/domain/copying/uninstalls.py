"""What an uninstallation takes away: stamps that are ours, and side rows of a table. Decisions about values.

Invariant: nothing is taken that another use could have put there, and no item that a delete has marked loses the mark:
what is left is counted by name.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from replicator.domain.image import Image
from replicator.domain.key_mapping import KeyMapping
from replicator.domain.modes.requests import StampIs
from replicator.domain.records import ItemKey
from replicator.domain.stamps import StampKind, parse_stamp
from replicator.domain.versions import is_ordered_version

_ENCODE = msgspec.json.Encoder().encode
_PARTS = msgspec.json.Decoder(tuple[tuple[str, str, str], ...])
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


def is_side_row(side_key: str, tables: Mapping[str, KeyMapping | None]) -> bool:
    """Whether a row of a side table is about an item of one of these tables.

    Of a table with a mapping: about an item whose key is made so, for others there are other rules'. A long key's
    digest does not tell that, so its row is left; it expires by itself.
    """
    table, _, rest = side_key.partition("|")
    if table not in tables or not rest.startswith(_BEHIND_THE_TABLE):
        return False
    mapping = tables[table]
    return mapping is None or (rest.startswith("[") and mapping.source_of(ItemKey(_PARTS.decode(rest))) is not None)
