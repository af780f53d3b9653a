"""What the daemon says about itself, for the live view only; the verdict never rests on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from replicator.demo.world import World, heed_cancellation


@dataclass(slots=True)
class DaemonFigures:
    """Counters of the daemon."""

    records: int = 0
    """Stream records that are done, once for each target."""

    conflicts: int = 0
    """Conflict entries that it wrote."""

    cache_actions: Counter[str] = field(default_factory=Counter)
    """Entries that it refreshed or invalidated, by cache."""

    owned: list[int] = field(default_factory=list)
    """Shards of each worker."""

    hand_overs: int = 0
    """Shards that a worker gave to another one."""

    async def refresh(self, world: World) -> None:
        """Ask the metrics of every worker; what they were stays when one does not answer."""
        try:
            texts = [await _metrics(world, url) for url in world.daemon.admin_urls]
        except (aiohttp.ClientError, TimeoutError):
            heed_cancellation()
            return
        cache_of = {(table.rule, cache.region): cache.name for table, cache in world.layout.used_caches()}
        self.records = self.conflicts = self.hand_overs = 0
        self.cache_actions.clear()
        self.owned = [0] * len(texts)
        for worker, text in enumerate(texts):
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    self._count(worker, sample, cache_of)

    def _count(self, worker: int, sample: Sample, cache_of: Mapping[tuple[str, str], str]) -> None:
        value, labels = int(sample.value), sample.labels
        where = labels.get("rule", ""), labels.get("region", "")
        match sample.name:
            case "replicator_records_total":
                self.records += value
            case "replicator_conflicts_total":
                self.conflicts += value
            case "replicator_owned_shards":
                self.owned[worker] += value
            case "replicator_leases_total" if labels.get("event") == "handed_over":
                self.hand_overs += value
            case "replicator_cache_actions_total" if where in cache_of:
                self.cache_actions[cache_of[where]] += value


async def _metrics(world: World, url: str) -> str:
    async with world.session.get(f"{url}/metrics") as response:
        return await response.text()
