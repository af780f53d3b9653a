"""Where canaries of the rules are written, and where they must arrive, by clients of the process itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.canaries import DynamoCanaryTable
from replicator.domain.identifiers import RegionId
from replicator.engine.applying.canary_driver import canary_caches
from replicator.engine.canaries import CanarySource

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.app.wiring import Assembly
    from replicator.domain.key_templates import KeyTemplate
    from replicator.domain.rules import Rule
    from replicator.ports.targets import Cache, Region


class CanarySources:
    """Those of the rules that run; of a rule that did not change the same as before."""

    def __init__(self, assembly: Assembly, places: Mapping[str, Place], caches: Mapping[str, Cache]) -> None:
        self._assembly = assembly
        self._places = places
        self._caches = caches
        self._made: dict[Rule, CanarySource] = {}

    def now(self) -> Sequence[CanarySource]:
        """As the rules are."""
        rules = [rule for rule in self._assembly.rules if rule.canary is not None]
        self._made = {rule: self._made.get(rule) or self._source(rule) for rule in rules}
        return list(self._made.values())

    def _source(self, rule: Rule) -> CanarySource:
        made = self._assembly.made(rule.name, rule.table) or {}
        tables: dict[RegionId, Region] = {}
        for target_id, ports in made.get(rule, {}).items():
            if rule.mesh is not None:
                tables |= ports.others
            elif ports.region is not None and target_id.region is not None:
                tables[target_id.region] = ports.region
        beside: dict[tuple[RegionId, str], tuple[Cache, KeyTemplate]] = {
            (each.region, each.cache): (self._caches[each.cache], each.key)
            for known in made
            for target in known.targets
            for each in canary_caches(target)
        }
        written = DynamoCanaryTable(self._places[rule.source].dynamodb, region_id=rule.source, table=rule.table)
        return CanarySource(rule, written, tables, beside)
