"""A region joins or leaves a mesh while workers with the old and with the new configuration run beside each other.

What a worker does counts only for the members that it knows. A member that joins gets every record that was not done
when the new configuration was first there, whichever worker read it meanwhile; one that leaves is owed nothing more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import pytest

from replicator.domain import rules
from replicator.domain.identifiers import RegionId, RuleName, ShardId
from replicator.domain.progress import HORIZON
from replicator.domain.rules import Rule, Target
from replicator.domain.targets import TargetId, TargetKind
from replicator.domain.values import replace
from replicator.engine.ownership import target_succession
from replicator.engine.ownership.target_succession import TargetSuccession
from replicator.engine.shard.checkpoints import Progress
from tests.engine.mesh_world import MODES, MeshProcess, MeshWorld
from tests.engine.world import AP, EU, US, until

both_modes = pytest.mark.parametrize("mode", MODES)
PAIR, TRIO = (US, EU), (US, EU, AP)


class Roll:
    """A mesh of three regions, and workers that know some of them."""

    def __init__(self, mode: str) -> None:
        self.world = MeshWorld(mode, US, EU, AP)

    def rule(self, home: RegionId, members: tuple[RegionId, ...]) -> Rule:
        """A mesh of these members as it is read in one of them."""
        full = self.world.rule(home)
        assert full.mesh is not None
        return replace(full, mesh=replace(full.mesh, others=tuple(each for each in members if each != home)))

    def worker(self, *members: RegionId) -> MeshProcess:
        return self.world.process(*(self.rule(home, members) for home in members))

    def owner(self, region: RegionId) -> str:
        owner = self.world.coordination._rows[(region, self.world.refs[region].arn), "s0"].owner  # type: ignore[index]
        return "" if owner is None else owner.partition(".")[0]

    def read_by(self, process: MeshProcess) -> RegionId:
        """A region whose stream a process reads, that every worker knows."""
        return next(region for region in PAIR if self.owner(region) == process.name)

    def holds(self, *regions: RegionId) -> list[dict[str, str | None]]:
        return [self.world[region].holds() for region in regions or self.world.names]

    async def write_and_delete(self, region: RegionId) -> None:
        """Users delete what came from the new region, and write anew; the old worker carries it out."""
        self.world[region].delete("cart")
        self.world[region].put("order", "paid", ver=1)
        await until(lambda: all("order" in held and "cart" not in held for held in self.holds(*PAIR)))

    async def settled(self) -> None:
        """All regions agree, and go on to."""
        await until(lambda: self.holds(US) == self.holds(AP) == self.holds(EU), within=600)
        self.world.agreed()
        for number, region in enumerate(TRIO):
            self.world[region].put(f"later {number}", "v", ver=1)
        await until(lambda: all(f"later {number}" in held for held in self.holds() for number in range(3)), within=60)
        self.world.agreed()


@asynccontextmanager
async def overlapping(mode: str) -> AsyncIterator[tuple[Roll, MeshProcess, MeshProcess]]:
    """A worker of the old configuration, and one of the new that came later; the new region wrote something."""
    roll = Roll(mode)
    async with roll.worker(*PAIR) as before:
        await asyncio.sleep(5)
        async with roll.worker(*TRIO) as after:
            await asyncio.sleep(20)
            roll.world[AP].put("cart", "v1", ver=1)
            await until(lambda: roll.holds(*PAIR) == [{"cart": "v1"}] * 2)
            yield roll, before, after


@both_modes
async def test_a_region_that_joins_gets_what_an_old_worker_did_without_it(mode: str) -> None:
    async with overlapping(mode) as (roll, before, _):
        await roll.write_and_delete(roll.read_by(before))
        await before.drain()
        await until(lambda: roll.holds(AP) == [{"order": "paid"}], within=120)
        await roll.settled()
        assert roll.world.losses() == []


async def joined(mode: str) -> None:
    """A region joins, and an old worker reads everything until the new one is there again."""
    async with overlapping(mode) as (roll, before, after):
        await after.kill()
        await until(lambda: {roll.owner(region) for region in PAIR} == {before.name})
        await roll.write_and_delete(US)
        roll.world[EU].put("other", "paid", ver=1)
        await until(lambda: all("other" in held for held in roll.holds(*PAIR)))
        await before.drain()
        async with roll.worker(*TRIO):
            await until(lambda: roll.holds(AP) == [{"order": "paid", "other": "paid"}], within=120)
            await roll.settled()
            assert roll.world.losses() == []


@both_modes
async def test_it_does_when_the_new_worker_dies_and_comes_back(mode: str) -> None:
    await joined(mode)


@both_modes
async def test_it_does_when_the_old_worker_dies_too(mode: str) -> None:
    async with overlapping(mode) as (roll, before, _):
        await roll.write_and_delete(roll.read_by(before))
        await before.kill()
        await roll.settled()


@both_modes
async def test_an_old_worker_that_comes_back_takes_nothing_from_the_region_that_joined(mode: str) -> None:
    roll = Roll(mode)
    async with roll.worker(*PAIR) as before:
        await asyncio.sleep(5)
        await before.drain()
    async with roll.worker(*TRIO) as after:
        roll.world[AP].put("cart", "v1", ver=1)
        await until(lambda: roll.holds() == [{"cart": "v1"}] * 3)
        async with roll.worker(*PAIR) as stale:
            await asyncio.sleep(20)
            await roll.write_and_delete(roll.read_by(stale))
            await stale.drain()
            await after.drain()
    async with roll.worker(*TRIO):
        await roll.settled()


@both_modes
async def test_both_workers_report_the_shards_that_the_other_one_reads(mode: str) -> None:
    async with overlapping(mode) as (roll, before, after):
        here = roll.read_by(before)
        for number in range(10):
            roll.world[here].put(f"item {number}", "v", ver=1)
            await asyncio.sleep(5)
        ref = roll.world.refs[here]
        await until(lambda: bool(after.observer.standing.get(ref)))
        (standstill,) = after.observer.standing[ref]
        assert "reads it for orders/mesh/eu+us: nothing there counts" in standstill.reason
        there = roll.world.refs[EU if here == US else US]
        if roll.owner(there.region) == after.name:
            await until(lambda: bool(before.observer.standing.get(there)))
            assert "orders/mesh/ap+eu+us" in before.observer.standing[there][0].reason
        await before.drain()
        await until(lambda: not after.observer.standing[ref])


@both_modes
async def test_a_region_that_leaves_is_owed_nothing_and_loses_nothing_for_the_others(mode: str) -> None:
    roll = Roll(mode)
    async with roll.worker(*TRIO) as before:
        await asyncio.sleep(5)
        async with roll.worker(*PAIR) as after:
            await asyncio.sleep(20)
            roll.world[roll.read_by(before)].put("cart", "v1", ver=1)
            await until(lambda: roll.holds() == [{"cart": "v1"}] * 3)
            await before.drain()
            roll.world[US].put("order", "paid", ver=1)
            roll.world[EU].put("other", "paid", ver=1)
            await until(lambda: roll.holds(*PAIR) == [{"cart": "v1", "order": "paid", "other": "paid"}] * 2)
            assert roll.holds(AP) == [{"cart": "v1"}]
            assert after.observer.of("gap_found") == []
            asked = [event for event in after.observer.of("batch_applied") if event[0] == "orders/mesh"]
            assert asked, "the new worker reads on"


@both_modes
async def test_a_mesh_that_goes_back_to_fewer_members_days_later_reads_nothing_again(mode: str) -> None:
    roll = Roll(mode)
    async with roll.worker(*PAIR) as process:
        roll.world[US].put("one", "v", ver=1)
        await until(lambda: all("one" in held for held in roll.holds(*PAIR)))
        await asyncio.sleep(5)
        await process.drain()
    async with roll.worker(*TRIO) as process:
        roll.world[US].put("two", "v", ver=1)
        await until(lambda: all("two" in held for held in roll.holds()))
        await asyncio.sleep(5)
        await process.drain()
    await asyncio.sleep(3 * 24 * 3600)
    for region in PAIR:
        roll.world.streams[region].trim(roll.world.refs[region], ShardId("s0"), keep=1)
    async with roll.worker(*PAIR) as process:
        roll.world[US].put("three", "v", ver=1)
        await until(lambda: all("three" in held for held in roll.holds(*PAIR)), within=300)
        assert process.observer.of("gap_found") == []


# -- what it is good for -------------------------------------------------------------------------------------------


def _members_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(rule: RuleName, members: object) -> TargetId:
        return TargetId(rule, TargetKind.MESH, "all")

    monkeypatch.setattr(rules, "mesh_id", one)


def _the_latest_position_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def covers(target: Target, starts: Iterable[TargetId], *_: object, **__: object) -> dict[TargetId, frozenset[str]]:
        return dict.fromkeys(starts, target.parts)

    monkeypatch.setattr(target_succession, "covers_of", covers)
    put = Progress.has_begun

    def begun(self: Progress, target: Target) -> bool:
        found = [place for each, place in self._positions.items() if each.rule == target.rule]
        self._positions[target.target_id] = max(found, key=lambda place: place.order, default=HORIZON)
        return put(self, target)

    monkeypatch.setattr(Progress, "has_begun", begun)


@pytest.mark.parametrize("taken_out", [_members_do_not_count, _the_latest_position_counts])
@both_modes
async def test_the_region_misses_it_when_members_do_not_count(
    mode: str, taken_out: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_out(monkeypatch)
    with pytest.raises(AssertionError):
        await joined(mode)


async def _copies_nothing(*_: object) -> None:
    pass


@both_modes
async def test_without_copied_positions_a_region_that_joins_stops_at_a_loss_that_is_none_of_its_own(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await joined_after_days(mode)
    monkeypatch.setattr(TargetSuccession, "_put", _copies_nothing)
    with pytest.raises(AssertionError):
        await joined_after_days(mode)


async def joined_after_days(mode: str) -> None:
    """A region joins a mesh whose oldest records are long gone."""
    roll = Roll(mode)
    async with roll.worker(*PAIR) as process:
        for number in range(3):
            roll.world[US].put(f"old {number}", "v", ver=1)
        await until(lambda: len(roll.world[EU].holds()) == 3)
        await asyncio.sleep(5)
        await process.drain()
    await asyncio.sleep(3 * 24 * 3600)
    for region in PAIR:
        roll.world.streams[region].trim(roll.world.refs[region], ShardId("s0"), keep=1)
    async with roll.worker(*TRIO) as process:
        roll.world[US].put("new", "v", ver=1)
        await until(lambda: all("new" in held for held in roll.holds()), within=120)
        assert roll.holds(AP) == [{"new": "v"}]
        assert process.observer.of("gap_found") == []
