"""Check and preflight: look at the world, judge it, and prove the permissions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from replicator.adapters.provisioning.facts import Fact, failed, ok
from replicator.adapters.provisioning.judgement import judge
from replicator.adapters.provisioning.probes import prove
from replicator.adapters.provisioning.regions import cache_encryption
from replicator.adapters.provisioning.world import look
from replicator.domain.errors import ReplicatorError

if TYPE_CHECKING:
    from replicator.adapters.aws import Place
    from replicator.settings import Settings


class Probed(Protocol):
    """A cache that can be asked whether it is there and usable."""

    async def probe(self) -> None:
        """Raise a `ReplicatorError` when it is not."""


async def check(settings: Settings, places: Mapping[str, Place], caches: Mapping[str, Probed]) -> list[Fact]:
    """Every fact, permissions included; nothing is raised and nothing is written."""
    world, cache_facts = await asyncio.gather(look(settings, places, thorough=True), _caches(settings, caches))
    return _grouped([*judge(settings, world, thorough=True), *await prove(settings, places, world), *cache_facts])


async def preflight(settings: Settings, places: Mapping[str, Place], caches: Mapping[str, Probed]) -> list[Fact]:
    """What can be told before a start with one call per table: existence, streams, schemas, caches.

    A failed fact with exit code 78 forbids a start; one with 69 is something that does not answer now.
    """
    world, cache_facts = await asyncio.gather(look(settings, places, thorough=False), _caches(settings, caches))
    return [*judge(settings, world, thorough=False), *cache_facts]


def _grouped(facts: list[Fact]) -> list[Fact]:
    """Facts about one thing together, things in the order in which they were first spoken of."""
    places = {subject: index for index, subject in enumerate(dict.fromkeys(fact.subject for fact in facts))}
    return sorted(facts, key=lambda fact: places[fact.subject])


async def _caches(settings: Settings, caches: Mapping[str, Probed]) -> list[Fact]:
    used = {action.cache: None for rule in settings.rules for action in rule.cache}
    answers = await asyncio.gather(*(_cache(name, caches[name]) for name in used))
    encryption = (cache_encryption(name, settings.caches[name].url) for name in used)
    return [*answers, *(fact for fact in encryption if fact is not None)]


async def _cache(name: str, cache: Probed) -> Fact:
    try:
        await cache.probe()
    except ReplicatorError as error:
        error.advice = f"{error.advice} See caches.{name} in the configuration."
        return failed(f"cache {name}", "answers", error)
    return ok(f"cache {name}", "answers")
