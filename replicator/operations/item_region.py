"""One item of a table and what is remembered beside it, read as the modes read it, but without a lease."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.adapters.clock import SystemClock
from replicator.adapters.dynamodb.tables import DynamoRegion
from replicator.domain.modes.requests import Found, FoundRow, GetItem, GetSideRow, GetTombstone
from replicator.domain.stamps import SideRow
from replicator.domain.versions import STAMP
from replicator.engine.mapped_tables import as_mapped
from replicator.ports.targets import OPEN

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.domain.image import Image
    from replicator.domain.key_mapping import KeyMapping
    from replicator.domain.records import ItemKey
    from replicator.ports.clock import Clock
    from replicator.ports.targets import Region
    from replicator.settings import Settings


def region_of(  # noqa: PLR0913, PLR0917 - what a table is, given once
    settings: Settings,
    place: Place,
    table: str,
    stamp: str = STAMP,
    keys: KeyMapping | None = None,
    clock: Clock | None = None,
) -> Region:
    """A table and its side table, for one request at a time. `stamp`: the attribute that holds versions there.

    `keys`: how its keys are made from the source's, by which it is asked then. `clock`: needed by who writes there.
    """
    region = DynamoRegion(
        place.items,
        region_id=place.region_id,
        table=table,
        side_table=settings.side_table_name,
        tombstone_ttl=settings.tombstone_ttl,
        clock=clock or SystemClock(),
        stamp_attribute=stamp,
    )
    return as_mapped(region, keys)


async def item_in(region: Region, key: ItemKey) -> Image | None:
    """The item."""
    answer = await region.execute(GetItem(key), OPEN)
    return answer.item if isinstance(answer, Found) else None


async def tombstone_in(region: Region, key: ItemKey) -> str | None:
    """What is remembered of its delete, in the modes that remember a version alone."""
    answer = await region.execute(GetTombstone(key), OPEN)
    return answer.tombstone if isinstance(answer, Found) else None


async def side_row_in(region: Region, key: ItemKey) -> SideRow:
    """Its side row, in mode `active-active`."""
    answer = await region.execute(GetSideRow(key), OPEN)
    return answer.row if isinstance(answer, FoundRow) else SideRow()
