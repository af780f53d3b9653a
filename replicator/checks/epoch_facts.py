"""Whether the rules may write in their epochs, as a start will ask; nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.table_claims import EpochClaim, epoch_problem
from replicator.adapters.sources import stream_of
from replicator.checks.described_tables import ask
from replicator.checks.facts import Fact, failed, ok
from replicator.domain.errors import ReplicatorError
from replicator.settings import OrderedRule
from replicator.settings.compiled_rules import rule_per_source
from replicator.settings.cross_checks import written_under

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.settings import Settings


async def epoch_facts(settings: Settings, places: Mapping[str, Place]) -> list[Fact]:
    """One fact per replica; none where something is missing or does not answer, which other facts report."""
    found = await asyncio.gather(
        *(_of_rule(settings, places, rule) for rule in settings.rules if isinstance(rule, OrderedRule) and rule.sources)
    )
    return [fact for facts in found for fact in facts]


async def _of_rule(settings: Settings, places: Mapping[str, Place], rule: OrderedRule) -> list[Fact]:
    try:
        (seen,) = rule_per_source(settings, rule)
        stream = await stream_of(places[rule.source], seen.stream).current(seen.table)
        claims = [
            EpochClaim(rule.name, region, table, rule.epoch, seen.source_name, stream.generation, keys)
            for (region, table), keys in written_under(rule)
        ]
        return [await _fact(places[claim.region_id], settings.side_table_name, claim) for claim in claims]
    except ReplicatorError:
        return []


async def _fact(place: Place, side_table: str, claim: EpochClaim) -> Fact:
    what = f"GetItem on {side_table} in {claim.region_id}"
    answer = await ask(what, place.dynamodb.get_item, TableName=side_table, Key=claim.key, ConsistentRead=True)
    problem = epoch_problem(answer.get("Item", {}), claim)
    subject = f"table {claim.table} in {claim.region_id}"
    return ok(subject, "epoch", f"{claim.epoch}.") if problem is None else failed(subject, "epoch", problem)
