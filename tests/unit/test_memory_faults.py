from __future__ import annotations

import asyncio

import pytest

from replicator.adapters.memory import Fault, Faults, MemoryRegion, OpenFence, Slot
from replicator.domain.errors import AccessRefused, LeaseLost, PoisonRecord, Throttled, Unreachable
from replicator.domain.records import ItemKey
from replicator.domain.requests import Done, RaiseTombstone, UnstampedOrStampBelow
from replicator.domain.requests import Put as PutRequest
from tests.unit.strategies import image

KEY = ItemKey((("pk", "S", "k"),))
RAISE = RaiseTombstone(KEY, "1" * 56)
OPEN = OpenFence()


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
