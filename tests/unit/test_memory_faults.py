from __future__ import annotations

import asyncio

import pytest

from replicator.domain.errors import AccessRefused, LeaseLost, PoisonRecord, Throttled, Unreachable, WorldMismatch
from replicator.domain.identifiers import RegionId, ShardId, TableName, WorkerId
from replicator.domain.modes.requests import Done, RaiseTombstone, UnstampedOrStampBelow
from replicator.domain.modes.requests import Put as PutRequest
from replicator.domain.records import ItemKey
from replicator.domain.shards.leases import Lease, LeaseRow, Seat, StreamRef
from replicator.domain.shards.lineage import Shard
from replicator.laboratory.memory import Fault, Faults, MemoryCoordination, MemoryRegion, MemoryStream, OpenFence, Slot
from tests.unit.strategies import image

KEY = ItemKey((("pk", "S", "k"),))
RAISE = RaiseTombstone(KEY, "1" * 56)
OPEN = OpenFence()
STREAM = StreamRef(RegionId("eu"), TableName("orders"), "arn", 1)
PARENT, CHILD, GRANDCHILD = (ShardId(name) for name in ("parent", "child", "grandchild"))
FAMILY = [Shard(GRANDCHILD, (CHILD,)), Shard(PARENT), Shard(CHILD, (PARENT,))]


@pytest.mark.parametrize(
    ("fault", "error", "effect"),
    [(Fault.BEFORE, Unreachable, False), (Fault.THROTTLE, Throttled, False), (Fault.AFTER, Unreachable, True)],
)
async def test_a_fault_strikes_before_or_after_the_effect(fault: Fault, error: type[Exception], effect: bool) -> None:
    region = MemoryRegion()
    region.faults.script(fault)
    with pytest.raises(error):
        await region.execute(RAISE, OPEN)
    assert (region.slot(KEY) == Slot(None, RAISE.version)) is effect
    assert region.faults.struck == 1


async def test_a_script_is_followed_call_by_call_and_then_over() -> None:
    region = MemoryRegion()
    region.faults.script(None, Fault.BEFORE)
    assert await region.execute(RAISE, OPEN) == Done()
    with pytest.raises(Unreachable):
        await region.execute(RAISE, OPEN)
    await region.execute(RAISE, OPEN)
    assert len(region.sent) == 2


async def test_the_same_seed_gives_the_same_failures_and_another_seed_others() -> None:
    async def struck(seed: int) -> list[type[Exception] | None]:
        region = MemoryRegion(Faults(seed, before=0.2, after=0.2, throttle=0.2))
        found: list[type[Exception] | None] = []
        for _ in range(60):
            try:
                await region.execute(RAISE, OPEN)
                found.append(None)
            except (Unreachable, Throttled) as error:
                found.append(type(error))
        return found

    assert await struck(1) == await struck(1) != await struck(2)
    assert set(await struck(1)) == {None, Unreachable, Throttled}


async def test_an_outage_lasts_until_it_is_lifted() -> None:
    region = MemoryRegion()
    region.faults.outage = AccessRefused
    for _ in range(2):
        with pytest.raises(AccessRefused):
            await region.execute(RAISE, OPEN)
    region.faults.outage = None
    assert await region.execute(RAISE, OPEN) == Done()
    assert len(region.sent) == 1


async def test_a_call_waits_where_it_is_paused_and_meets_the_fence_afterwards() -> None:
    class Fence:
        down = False

        def check(self) -> None:
            if self.down:
                raise LeaseLost("The lease is gone.")

    fence, reached, go_on = Fence(), asyncio.Event(), asyncio.Event()

    async def pause(call: str) -> None:
        assert call == "RaiseTombstone"
        reached.set()
        await go_on.wait()

    region = MemoryRegion(Faults(pause=pause))
    call = asyncio.create_task(region.execute(RAISE, fence))
    await reached.wait()
    fence.down = True
    go_on.set()
    with pytest.raises(LeaseLost):
        await call
    assert region.sent == []


async def test_a_poisoned_key_refuses_puts_until_it_is_cured() -> None:
    region = MemoryRegion()
    put = PutRequest(KEY, image({"pk": {"S": "k"}}), "1" * 56, UnstampedOrStampBelow("1" * 56))
    region.poison(KEY, "too large")
    with pytest.raises(PoisonRecord, match="too large"):
        await region.execute(put, OPEN)
    assert await region.execute(RAISE, OPEN) == Done()
    region.cure(KEY)
    assert await region.execute(put, OPEN) == Done()


@pytest.mark.parametrize(("fault", "stored"), [(Fault.BEFORE, {PARENT}), (Fault.AFTER, {PARENT, CHILD})])
async def test_a_discovery_that_fails_midway_never_leaves_a_child_without_its_parent(
    fault: Fault, stored: set[ShardId]
) -> None:
    coordination = MemoryCoordination()
    coordination.faults.script(None, fault)
    with pytest.raises(Unreachable):
        await coordination.discover(STREAM, FAMILY, 5.0)
    assert set(coordination.rows(STREAM)) == stored
    await coordination.discover(STREAM, FAMILY, 9.0)
    assert {shard_id: row.found_at for shard_id, row in coordination.rows(STREAM).items()} == {
        shard_id: 5.0 if shard_id in stored else 9.0 for shard_id in (PARENT, CHILD, GRANDCHILD)
    }


async def test_a_claim_or_a_seat_whose_answer_is_lost_is_ours_all_the_same() -> None:
    coordination = MemoryCoordination()
    await coordination.discover(STREAM, [Shard(PARENT)], 5.0)
    me = WorkerId("me")
    coordination.faults.script(Fault.AFTER, Fault.AFTER)
    with pytest.raises(Unreachable):
        await coordination.claim(STREAM, LeaseRow(Shard(PARENT)), me)
    with pytest.raises(Unreachable):
        await coordination.take_seat(STREAM, None, me)
    state = await coordination.state(STREAM)
    assert (state.rows[PARENT].owner, state.rows[PARENT].epoch, state.seat) == (me, 1, Seat(me, 1))


async def test_a_shard_that_an_operator_takes_away_is_lost_to_its_owner() -> None:
    coordination = MemoryCoordination()
    await coordination.discover(STREAM, [Shard(PARENT)], 5.0)
    assert await coordination.claim(STREAM, LeaseRow(Shard(PARENT)), WorkerId("me")) is not None
    coordination.evict(STREAM, PARENT)
    with pytest.raises(LeaseLost):
        await coordination.save(Lease(STREAM, PARENT, WorkerId("me"), 1), {})
    coordination.delete(STREAM, PARENT)
    assert coordination.row(STREAM, PARENT) is None


async def test_a_row_that_cannot_be_read_is_told_until_it_is_corrected() -> None:
    coordination = MemoryCoordination()
    coordination.unreadable = WorldMismatch("A row is corrupt.")
    assert (await coordination.state(STREAM)).unreadable is coordination.unreadable
    coordination.unreadable = None
    assert (await coordination.state(STREAM)).unreadable is None


async def test_a_page_that_fails_is_asked_for_again_where_it_was() -> None:
    streams = MemoryStream()
    streams.enable(STREAM)
    streams.add_shard(STREAM, PARENT)
    streams.split(STREAM, PARENT, CHILD)
    streams.split(STREAM, CHILD, GRANDCHILD)
    streams.shards_per_page = 1
    streams.faults.script(None, Fault.THROTTLE, Fault.AFTER)
    listed, after = [], None
    for _ in range(10):
        try:
            page = await streams.shard_page(STREAM, after)
        except (Throttled, Unreachable):
            continue
        listed += [shard.shard_id for shard in page.shards]
        after = page.last
        if after is None:
            break
    assert listed == [PARENT, CHILD, GRANDCHILD]
    assert streams.describes == 5
