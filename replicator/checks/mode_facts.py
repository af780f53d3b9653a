"""Whether the rules may write their tables in their modes, as a start will ask; nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.table_claims import ModeClaim, standing_mode
from replicator.checks.facts import Fact, failed, ok
from replicator.domain.errors import ReplicatorError
from replicator.settings.cross_checks import written_under

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.settings import Settings


async def mode_facts(settings: Settings, places: Mapping[str, Place]) -> list[Fact]:
    """One fact per table that a rule writes; none where a side table does not answer, which other facts report."""
    claims = [
        ModeClaim(rule.name, region, table, rule.mode, keys)
        for rule in settings.rules
        for (region, table), keys in written_under(rule)
    ]
    found = await asyncio.gather(*(_fact(places[claim.region_id], settings.side_table_name, claim) for claim in claims))
    return [fact for fact in found if fact is not None]


async def _fact(place: Place, side_table: str, claim: ModeClaim) -> Fact | None:
    subject = f"table {claim.table} in {claim.region_id}"
    try:
        problem = await standing_mode(place.dynamodb, side_table=side_table, claim=claim)
    except ReplicatorError:
        return None
    return ok(subject, "mode", f"{claim.mode}.") if problem is None else failed(subject, "mode", problem)
