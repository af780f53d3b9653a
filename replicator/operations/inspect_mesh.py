"""One item in every region of a mesh: its version, what the region remembers beside it, and whether regions agree.

When they do not, the greatest version that was found shows which of them are behind. A write that has no version yet is
shown as such: it gets one when its record is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.domain.modes.versioned.ranks import LOWEST, Rank, VersionAttribute, VersionType, rank_of
from replicator.domain.stamps import Held, SideRow, StampKind, held
from replicator.domain.values import replace
from replicator.domain.versions import STAMP
from replicator.operations.item_copies import ItemCopy, digest, or_unknown, short, unreachable
from replicator.operations.item_region import item_in, side_row_in, tombstone_in
from replicator.settings import ActiveRule

if TYPE_CHECKING:
    from replicator.domain.image import Image
    from replicator.domain.records import ItemKey
    from replicator.ports.targets import Region
    from replicator.settings import MeshRule, VersionedRule


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A write that has a version, and the content that it left; ordered as the mode orders writes."""

    order: tuple[str, ...]
    content: str | None


@dataclass(frozen=True, slots=True)
class _Standing:
    """What one region holds."""

    item: ItemCopy
    side: ItemCopy
    candidates: tuple[_Candidate, ...]


def stamp_of(rule: MeshRule) -> str:
    """The attribute that is no content."""
    return rule.stamp if isinstance(rule, ActiveRule) else STAMP


async def mesh_copies(
    rule: MeshRule, regions: Mapping[str, Region], side_table: str, key: ItemKey, *, passes: bool
) -> list[ItemCopy]:
    """Item and side row of every region, in the order of the rule. `passes`: whether its filter lets the key pass."""
    answers = await asyncio.gather(
        *(or_unknown(_look(rule, regions[region], (region, table, side_table), key)) for region, table in rule.sources)
    )
    standings = [answer for answer in answers if isinstance(answer, _Standing)]
    contents = {standing.item.digest for standing in standings}
    wanted = _wanted(standings)
    copies: list[ItemCopy] = []
    for (region, table), answer in zip(rule.sources, answers, strict=True):
        if isinstance(answer, _Standing):
            agrees = len(contents) == 1 or answer.item.digest == wanted
            copies += (replace(answer.item, agrees=agrees if passes else None), answer.side)
        else:
            copies += (
                unreachable("region", region, table, answer),
                unreachable("side row", region, side_table, answer),
            )
    return copies


def _wanted(standings: Sequence[_Standing]) -> str | None:
    """The content that all regions are to have, as far as versions show; else that of the first region."""
    candidates = [candidate for standing in standings for candidate in standing.candidates]
    greatest = max(candidates, key=lambda candidate: candidate.order, default=None)
    if greatest is not None:
        return greatest.content
    return standings[0].item.digest if standings else None


async def _look(rule: MeshRule, region: Region, where: tuple[str, str, str], key: ItemKey) -> _Standing:
    """`where`: region id, table, side table."""
    item = await item_in(region, key)
    if isinstance(rule, ActiveRule):
        return _active(rule, where, item, await side_row_in(region, key))
    return _versioned(rule, where, item, await tombstone_in(region, key))


# -- active-active -------------------------------------------------------------------------------------------------


def _active(rule: ActiveRule, where: tuple[str, str, str], item: Image | None, row: SideRow) -> _Standing:
    region, table, side_table = where
    held_item = held(item, rule.stamp)
    candidates = []
    version = None
    if held_item is not None and held_item.version is not None:
        version = held_item.version.text
        if held_item.intact and held_item.kind is StampKind.VALUE:
            candidates.append(_Candidate((version,), digest(item, rule.stamp)))
    if row.deleted is not None:
        candidates.append(_Candidate((row.deleted.text,), None))
    details = {"stamp": _stamp_document(held_item)}
    return _Standing(
        ItemCopy("region", region, table, _state(held_item), version, item, stamp=rule.stamp, details=details),
        _side_row(region, side_table, row),
        tuple(candidates),
    )


def _state(item: Held | None) -> str:
    if item is None:
        return "absent"
    if item.seen is None:
        return "present, not stamped yet"
    if item.stamp is None:
        return "present, with a stamp that this rule did not write"
    if not item.intact:
        return "present, changed since its stamp"
    return "marked for deletion" if item.kind is StampKind.MARK else "present"


def _stamp_document(item: Held | None) -> dict[str, str | bool] | None:
    if item is None or item.stamp is None:
        return None
    return {
        "version": item.stamp.version.text,
        "kind": "mark" if item.kind is StampKind.MARK else "value",
        "intact": item.intact,
        "parent": item.stamp.parent,
    }


def _side_row(region: str, table: str, row: SideRow) -> ItemCopy:
    details = {
        "tombstone": None if row.deleted is None else row.deleted.text,
        "floor": None if row.floor is None else row.floor.text,
        "removed": None if row.removed is None else row.removed.text,
        "removed_at": None if row.removed_at is None else f"{row.removed_at:053d}",
    }
    parts = ["tombstone"] if details["tombstone"] else []
    parts += [f"floor {short(details['floor'])}"] if details["floor"] else []
    parts += [f"saw the delete {short(details['removed'])}"] if details["removed"] else []
    return ItemCopy("side row", region, table, ", ".join(parts) or "none", details["tombstone"], details=details)


# -- versioned -----------------------------------------------------------------------------------------------------


def _versioned(
    rule: VersionedRule, where: tuple[str, str, str], item: Image | None, tombstone: str | None
) -> _Standing:
    region, table, side_table = where
    attribute = VersionAttribute(rule.version.attribute, VersionType(rule.version.type), rule.version.width)
    candidates = []
    state, version = "absent", None
    if item is not None:
        rank = rank_of(attribute, item)
        state = "present" if rank.version != LOWEST else "present, without a version"
        version = _value(rank.version)
        candidates.append(_Candidate((rank.version, "", rank.content), digest(item)))
    if tombstone is not None:
        candidates.append(_Candidate((tombstone, "deleted", ""), None))
    side_state = "none" if tombstone is None else "tombstone"
    side_version = None if tombstone is None else _value(tombstone)
    return _Standing(
        ItemCopy("region", region, table, state, version, item),
        ItemCopy("side row", region, side_table, side_state, side_version),
        tuple(candidates),
    )


def _value(version: str) -> str | None:
    """A version as the application wrote it; None of an item without one."""
    if version == LOWEST:
        return None
    return Rank(version, deleted=True, content="").shown.removesuffix("!D")
