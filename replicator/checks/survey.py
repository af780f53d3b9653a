"""Check and preflight: look at the world, judge it, and prove the permissions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, field

from replicator.checks.cache_facts import Probed, cache_facts, cache_users, prove_caches
from replicator.checks.comparison import World
from replicator.checks.facts import Fact, Status, warning
from replicator.checks.file_facts import file_facts
from replicator.checks.filter_facts import sample_filters
from replicator.checks.judge import judge
from replicator.checks.permission_probes import prove
from replicator.checks.table_choices import Chosen, LeftOut, TableFinder, choice_facts, clashes, sift
from replicator.checks.verdicts import shared_facts
from replicator.checks.world import look
from replicator.settings import expanded

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.domain.errors import ReplicatorError
    from replicator.settings import Settings


class Survey(Struct, frozen=True):
    """What a look showed: facts, the tables that choices may be replicated with, and those that may not.

    `settings`: with the former; `world`: what was seen; `shared`: facts about what no rule can do without.
    """

    facts: list[Fact]
    settings: Settings
    world: World
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    shared: Sequence[Fact] = ()
    unchosen: Mapping[str, ReplicatorError] = field(default_factory=dict)
    """Why the tables of rules that choose them could not be looked for, by the names of the rules."""


async def check(settings: Settings, places: Mapping[str, Place], caches: Mapping[str, Probed]) -> Survey:
    """Every fact, permissions included; nothing is raised and nothing is written."""
    chosen = await TableFinder(settings, places).look()
    observed, beside = await asyncio.gather(
        _observe(settings, places, chosen, thorough=True), cache_facts(settings, caches)
    )
    left_out = [
        warning(f"table {table.table} in {table.region}", "left out", table.reason, table.advice)
        for table in observed.left_out
    ]
    facts = [*choice_facts(settings, chosen), *judge(observed.settings, observed.world, thorough=True)]
    proofs = await prove(observed.settings, places, observed.world)
    silent = {fact.subject for fact in beside if fact.status is Status.FAILED}
    answering = {name: cache for name, cache in caches.items() if f"cache {name}" not in silent}
    proofs += await prove_caches(observed.settings, answering, observed.world)
    proofs += await sample_filters(observed.settings, places, observed.world)
    grouped = _grouped([*facts, *left_out, *proofs, *beside, *cache_users(settings)])
    return Survey(grouped, observed.settings, observed.world, observed.tables, observed.left_out)


async def preflight(
    settings: Settings, places: Mapping[str, Place], caches: Mapping[str, Probed], finder: TableFinder
) -> Survey:
    """What can be found before a start with one call per table: existence, streams, schemas, caches.

    A failed fact with exit code 78 holds the rules that it is about, and forbids a start when it is about all of them;
    one with 69 is something that does not answer now.
    """
    chosen = await finder.look()
    observed, beside = await asyncio.gather(
        _observe(settings, places, chosen, thorough=False), cache_facts(settings, caches)
    )
    judged = judge(observed.settings, observed.world, thorough=False)
    of_choices = list(choice_facts(settings, chosen))
    return Survey(
        [*of_choices, *judged, *beside, *file_facts(settings)],
        observed.settings,
        observed.world,
        observed.tables,
        observed.left_out,
        [*shared_facts(observed.settings, observed.world), *clashes(settings, chosen)],
        chosen.failed,
    )


class _Observed(Struct, frozen=True):
    settings: Settings
    world: World
    tables: Mapping[str, tuple[str, ...]]
    left_out: tuple[LeftOut, ...]


async def _observe(settings: Settings, places: Mapping[str, Place], chosen: Chosen, *, thorough: bool) -> _Observed:
    """The world of all tables, and the settings with those that nothing is wrong with."""
    world = await look(expanded(settings, chosen.tables), places, thorough=thorough)
    tables, faulty = sift(settings, chosen.tables, world)
    return _Observed(expanded(settings, tables), world, tables, (*chosen.left_out, *faulty))


def _grouped(facts: list[Fact]) -> list[Fact]:
    """Facts about one thing together, things in the order in which they were first spoken of."""
    places = {subject: index for index, subject in enumerate(dict.fromkeys(fact.subject for fact in facts))}
    return sorted(facts, key=lambda fact: places[fact.subject])
