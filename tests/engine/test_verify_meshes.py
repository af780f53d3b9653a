"""Verify and repair of meshes: regions that were damaged behind replication's back, looked at by the job's handler."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from replicator.domain.conflicts import ConflictKind
from replicator.domain.identifiers import RegionId, WorkerId
from replicator.domain.image import Image, unreserved
from replicator.domain.jobs import Job, JobKind, Segment, parts_of, place_name
from replicator.domain.rules import OnRefusal
from replicator.domain.stamps import Stamp, StampKind, held
from replicator.engine.copying.applied import Applied
from replicator.engine.copying.budgets import Budget
from replicator.engine.copying.handlers import JobContext
from replicator.engine.copying.region import CopyRegion
from replicator.engine.copying.uninstalling import KINDS as UNINSTALLING
from replicator.engine.copying.verification import KINDS as COMPARING
from replicator.engine.limits import Limits
from replicator.engine.membership.heartbeat import News
from replicator.engine.membership.members import Members
from replicator.engine.membership.session import Session
from replicator.laboratory.memory import MemoryJobs, MemoryScan, OpenFence
from replicator.laboratory.memory.lookups import MemoryLookups
from tests.engine.job_world import MARGINS
from tests.engine.mesh_world import ACTIVE, MODES, NAME, MeshWorld, item, settle
from tests.engine.world import AP, EU, ORDERS, US, key_of, until

KINDS = {**COMPARING, **UNINSTALLING}


class Looker:
    """A job's handler over a mesh, without the frame around it: nothing moves while it looks."""

    def __init__(self, world: MeshWorld, **choices: Any) -> None:
        """`choices`: of the rule."""
        self.world = world
        self.rules = [world.rule(region, **choices) for region in world.names]
        self.rows = MemoryJobs()

    async def job(self, kind: JobKind, **options: Any) -> Counter[str]:
        """Go over every table once; returns the counts."""
        world, clock, stop = self.world, self.world.clock, asyncio.Event()
        parts = parts_of([(region, ORDERS) for region in world.names], 1)
        rules = self.rules
        asked = Job(f"{kind}", kind, NAME, ORDERS, (rules[0].targets[0].target_id,), parts, options=options)
        await self.rows.create(asked)
        session = Session(WorkerId("me"), clock, 10.0)
        process = world.process(*rules)
        members = Members(session, News(""), world.membership, limits=Limits(), clock=clock, observer=process.observer)
        context = JobContext(
            asked,
            rules,
            {place_name(region, ORDERS): self._region(region, stop) for region in world.names},
            process.targets,
            Applied(world.coordination, world.registry, members, clock=clock, margins=MARGINS),
            members,
            self.rows,
            clock,
            stop,
        )
        handler = KINDS[kind](context)
        counts: Counter[str] = Counter()
        for part in parts:
            position: str | None = None
            while True:
                segment = Segment(asked.job_id, part.name, 0, 1)
                look = await handler.look(segment, position)
                counts.update(look.counts)
                counts.update(await handler.act(segment, look, OpenFence()))
                position = look.after
                if position is None:
                    break
        return +counts

    def _region(self, region: RegionId, stop: asyncio.Event) -> CopyRegion:
        table, clock = self.world[region], self.world.clock
        reads, writes = (Budget(1_000_000, lambda: 1.0, clock) for _ in range(2))
        scan = MemoryScan(lambda: dict(table.items()), clock.now, page_items=3)
        return CopyRegion(
            region, ORDERS, table, scan, MemoryLookups(table.item), reads, writes, 20.0, stop, lambda: None
        )

    async def noted(self, job_id: str) -> dict[tuple[str, str], str]:
        """The differences of a job: kinds by key and region."""
        notes = [note for _, note in await self.rows.notes(job_id)]
        return {(note["key"]["pk"]["S"], note["target"].split(":")[0]): note["kind"] for note in notes}


async def level(mode: str, *regions: RegionId) -> MeshWorld:
    """A mesh with some items that all regions hold."""
    world = MeshWorld(mode, *(regions or (US, EU)))
    for number, name in enumerate(["a", "b", "c", "d", "e", "f", "g", "h"]):
        world[world.names[number % len(world.names)]].put(name, 1, ver=1)
    await settle(*world.readers())
    assert len(world.agreed()) == 8
    return world


def foreign(world: MeshWorld, region: RegionId, name: str, image: Image | None) -> None:
    """Change a table without a record of it."""
    world[region].write_foreign(key_of(name), image)


@pytest.mark.parametrize("mode", MODES)
async def test_regions_that_agree_have_no_difference_and_every_key_counts_once(mode: str) -> None:
    looker = Looker(await level(mode, US, EU, AP))
    counts = await looker.job(JobKind.VERIFY)
    assert (counts["compared"], counts["differences"]) == (8, 0)


@pytest.mark.parametrize("mode", MODES)
async def test_what_was_damaged_is_named_and_mended(mode: str) -> None:
    world = await level(mode, US, EU, AP)
    looker = Looker(world)
    foreign(world, EU, "a", None)
    foreign(world, AP, "b", item("b", "damaged", ver=0))
    foreign(world, US, "c", None)
    counts = await looker.job(JobKind.VERIFY)
    found = await looker.noted("verify")
    assert found["a", "eu"] == "missing"
    assert found["c", "us"] == "missing"
    assert {name for name, _ in found} == {"a", "b", "c"}
    assert counts["compared"] == 8
    mended = await looker.job(JobKind.REPAIR)
    assert (mended["mended"], mended["differences"]) == (3, 0)
    agreed = world.agreed()
    assert len(agreed) == 8
    assert (agreed["a"], agreed["c"]) == ("1", "1")
    assert (await looker.job(JobKind.SWEEP))["differences"] == 0


async def test_what_a_repair_of_a_mesh_replaced_is_in_the_log() -> None:
    world = await level(ACTIVE)
    seen = held(world[EU].item(key_of("b")))
    assert seen is not None
    older = seen.stamp
    assert older is not None
    world[US].put("b", 2)
    await settle(*world.readers())
    stale = Stamp(older.version, StampKind.VALUE, seen.content, "-")
    lost = Image(unreserved(seen.image).wire[:-1] + b',"_rep":{"S":"%b"}}' % stale.sealed("n" * 8).encode())
    foreign(world, EU, "b", lost)
    looker = Looker(world)
    assert (await looker.job(JobKind.REPAIR))["mended"] == 1
    (entry,) = [entry for entry in world.entries() if entry.conflict.kind is ConflictKind.REPAIR]
    assert entry.conflict.loser is not None
    assert entry.conflict.loser.attributes["value"] == {"S": "1"}
    assert world.agreed()["b"] == "2"


@pytest.mark.parametrize("mode", MODES)
async def test_what_one_region_lacks_without_a_trace_is_kept_deleted_or_left_as_the_operator_wants(mode: str) -> None:
    for missing, holds, left in (("keep", True, 0), ("delete", False, 0), ("manual", True, 1)):
        world = await level(mode)
        foreign(world, EU, "a", None)
        looker = Looker(world)
        counts = await looker.job(JobKind.REPAIR, missing=missing)
        assert counts["left"] == left
        assert (world[US].item(key_of("a")) is not None) == holds
        assert (world[EU].item(key_of("a")) is not None) == (missing == "keep")


@pytest.mark.parametrize("home", [US, EU, AP])
@pytest.mark.parametrize("mode", MODES)
async def test_what_any_home_region_owes_explains_a_difference_and_is_settled_by_its_repair(
    mode: str, home: RegionId
) -> None:
    world = await level(mode, US, EU, AP)
    looker, key = Looker(world, refused=OnRefusal.PARK), key_of("new")
    lacks, other = (region for region in world.names if region != home)
    world[lacks].poison(key, "it is too large")
    world[home].put("new", 1, ver=2)
    async with world.process(*looker.rules):
        await until(lambda: bool(world.owed[home].rows) and world[other].value("new") == "1")
    assert [to.target_id for to, _ in world.owed[home].rows] == [world.rule(home).as_replica(lacks)]
    told = await looker.job(JobKind.VERIFY)
    assert (told["parked"], told["differences"]) == (1, 0)
    world[lacks].cure(key)
    mended = await looker.job(JobKind.REPAIR)
    assert (mended["mended"], world.agreed()["new"]) == (1, "1")
    assert not world.owed[home].rows, "what was owed is there"
