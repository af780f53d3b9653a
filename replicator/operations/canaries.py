"""Canaries of rules: how they arrive, as living workers say, and their removal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from replicator.adapters.dynamodb.canaries import DynamoCanaryTable
from replicator.checks.described_tables import describe
from replicator.domain.canary import Schema, canary_key
from replicator.domain.errors import TableMissing
from replicator.domain.identifiers import RegionId, RuleName

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.settings import RuleSettings


@dataclass(frozen=True, slots=True)
class CanaryStatus:
    """How the canary of a rule arrives that is written in `source`. `cache`: beside the region's table, or empty."""

    rule: str
    source: str
    table: str
    region: str
    cache: str
    period_seconds: float
    arrived: int
    lag_p50_seconds: float | None
    lag_p99_seconds: float | None
    age_seconds: float
    late: bool
    unwritten: bool
    why: str


def canary_status(daemons: Iterable[Mapping[str, Any]]) -> list[CanaryStatus]:
    """Of the one worker that writes each; while two do, of the first."""
    names = [field.name for field in fields(CanaryStatus)]
    found: dict[tuple[str, ...], CanaryStatus] = {}
    for row in (row for daemon in daemons for row in daemon.get("canaries", ())):
        status = CanaryStatus(**{name: row[name] for name in names})
        found.setdefault((status.rule, status.source, status.table, status.region, status.cache), status)
    return [found[place] for place in sorted(found)]


async def remove_canaries(places: Mapping[str, Place], rules: Sequence[RuleSettings]) -> None:
    """Delete what was written of rules that have one, where it was written and where it arrived."""
    for rule in rules:
        if rule.canary is None:
            continue
        for source, table in rule.sources:
            try:
                schema = Schema((await describe(places[source], table)).keys)
            except TableMissing:
                continue
            key = canary_key(schema, RuleName(rule.name), RegionId(source))
            for region, name in dict.fromkeys([(source, table), *rule.replica_tables]):
                written = DynamoCanaryTable(places[region].dynamodb, region_id=region, table=name)
                try:
                    await written.delete(key)
                except TableMissing:
                    continue
