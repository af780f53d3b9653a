"""What the daemon says about itself, for the live view only; the verdict never rests on it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

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

    async def refresh(self, world: World) -> None:
        """Ask its metrics; what they were stays when it does not answer."""
        try:
            async with world.session.get(f"{world.daemon.admin_url}/metrics") as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError):
            heed_cancellation()
            return
        cache_of = {(table.rule, cache.region): cache.name for table, cache in world.layout.used_caches()}
        self.records = self.conflicts = 0
        self.cache_actions.clear()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                where = sample.labels.get("rule", ""), sample.labels.get("region", "")
                if sample.name == "replicator_records_total":
                    self.records += int(sample.value)
                elif sample.name == "replicator_conflicts_total":
                    self.conflicts += int(sample.value)
                elif sample.name == "replicator_cache_actions_total" and where in cache_of:
                    self.cache_actions[cache_of[where]] += int(sample.value)
