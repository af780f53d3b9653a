"""What the rules need in the world: looked at, and created."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.adapters.clients import open_caches, open_places
from replicator.adapters.clock import SystemClock
from replicator.adapters.sinks.opening import open_sinks
from replicator.checks.creation import Step, initialise
from replicator.checks.epoch_facts import epoch_facts
from replicator.checks.identity_facts import identity_facts
from replicator.checks.mode_facts import mode_facts
from replicator.checks.progress_facts import progress_facts
from replicator.checks.sink_facts import sink_facts
from replicator.checks.survey import check
from replicator.checks.table_choices import TableFinder
from replicator.settings import expanded

if TYPE_CHECKING:
    from replicator.checks.facts import Fact
    from replicator.settings import Settings


async def look(settings: Settings) -> list[Fact]:
    """Every fact about the world, with one row per thing that was looked at; nothing is changed."""
    async with open_places(settings) as places, open_caches(settings) as caches:
        survey = await check(settings, places, caches)
        known = expanded(settings, survey.tables)
        facts = [*survey.facts, *await mode_facts(known, places), *await epoch_facts(known, places)]
        facts += await identity_facts(known, places)
        async with open_sinks(settings, places, caches, SystemClock()) as sinks:
            facts += await sink_facts(settings, sinks)
        return [*facts, *await progress_facts(known, places)]


async def create(settings: Settings, *, dry_run: bool, enable_streams: bool, replicas: bool) -> list[Step]:
    """Create what is missing, or only say what would be done."""
    async with open_places(settings) as places:
        chosen = await TableFinder(settings, places).look()
        failed = [Step(f"tables of rule {name}", "failed", error) for name, error in chosen.failed.items()]
        known = expanded(settings, chosen.tables)
        steps = await initialise(known, places, dry_run=dry_run, enable_streams=enable_streams, replicas=replicas)
        return [*failed, *steps]
