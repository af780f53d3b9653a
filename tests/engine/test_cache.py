"""The funnel in front of a cache: who waits while one batch is under way travels in the next."""

from __future__ import annotations

import asyncio

import pytest

from replicator.domain.cache_keys import Invalidate, Refresh
from replicator.domain.errors import AccessRefused, LeaseLost, Unreachable
from replicator.domain.versions import ordered_version
from replicator.engine.applying.cache_batcher import CacheFunnel
from replicator.engine.waiting import found
from replicator.laboratory.memory import Fault, Faults, MemoryCache, OpenFence, value_entry

V1, V2 = (ordered_version(0, 1_700_000_000_000, number) for number in (1, 2))


class Fallen:
    """A fence that lets nothing pass."""

    def check(self) -> None:
        raise LeaseLost("The lease is gone.")


class Shop:
    """A cache whose calls are counted and take a second, and the funnel in front of it."""

    def __init__(self, entries: int = 20, faults: Faults | None = None) -> None:
        self.calls = 0
        self.cache = MemoryCache(faults)
        self.cache.faults.pause = self._pause
        self.cache.entries = {f"k{number}": b"V:old" for number in range(entries)}
        self.funnel = CacheFunnel(self.cache)

    async def _pause(self, call: str) -> None:
        self.calls += 1
        await asyncio.sleep(1)

    def drop(self, *numbers: int) -> asyncio.Task[int]:
        return asyncio.create_task(self.funnel.apply([Invalidate(f"k{number}") for number in numbers], OpenFence()))


async def test_actions_that_wait_while_a_batch_is_under_way_travel_together() -> None:
    shop = Shop()
    first = shop.drop(0)
    await asyncio.sleep(0.5)
    await asyncio.gather(first, *(shop.drop(number) for number in range(1, 20)))
    assert shop.calls == 2
    assert shop.cache.entries == {}


async def test_an_action_is_done_when_its_batch_was_answered_and_not_before() -> None:
    shop = Shop()
    first = shop.drop(0)
    await asyncio.sleep(0.5)
    second = shop.drop(1)
    await first
    assert not second.done()
    await second
    assert asyncio.get_running_loop().time() == pytest.approx(2, abs=0.01)


async def test_a_failure_reaches_everybody_aboard_and_nobody_else() -> None:
    shop = Shop()
    shop.cache.faults.script(None, Fault.BEFORE)
    first = shop.drop(0)
    await asyncio.sleep(0.5)
    aboard = [shop.drop(1), shop.drop(2)]
    await first
    outcomes = await asyncio.gather(*aboard, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unreachable, Unreachable]
    await shop.drop(1, 2)
    assert "k1" not in shop.cache.entries


async def test_a_passenger_that_is_cancelled_while_it_waits_harms_nobody() -> None:
    shop = Shop()
    first = shop.drop(0)
    await asyncio.sleep(0.5)
    waiting = [shop.drop(number) for number in (1, 2, 3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    outcomes = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int, asyncio.CancelledError, int, int]
    await shop.drop(4)
    assert {"k2", "k3", "k4"}.isdisjoint(shop.cache.entries)


async def test_a_sender_that_is_cancelled_makes_the_others_aboard_try_again() -> None:
    shop = Shop()
    first = shop.drop(0)
    await asyncio.sleep(0.5)
    sender, other = shop.drop(1), shop.drop(2)
    await first
    await asyncio.sleep(0.5)
    sender.cancel()
    outcomes = await asyncio.gather(sender, other, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError, Unreachable]
    await shop.drop(2)
    assert "k2" not in shop.cache.entries


async def test_an_unknown_fault_is_the_senders_and_makes_the_others_try_again() -> None:
    shop = Shop()
    first = shop.drop(0)
    await asyncio.sleep(0.5)
    sender, other = shop.drop(1), shop.drop(2)
    await first
    await asyncio.sleep(0.5)

    async def broken(call: str) -> None:
        raise ValueError(call)

    shop.cache.faults.pause = broken
    outcomes = await asyncio.gather(sender, other, shop.drop(3), shop.drop(4), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int, int, ValueError, Unreachable]


async def test_whoever_lost_the_lease_is_left_behind_and_the_others_travel() -> None:
    shop = Shop()
    first = shop.drop(0)
    await asyncio.sleep(0.5)
    lost = asyncio.create_task(shop.funnel.apply([Invalidate("k1")], Fallen()))
    held = shop.drop(2)
    outcomes = await asyncio.gather(first, lost, held, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int, LeaseLost, int]
    assert "k1" in shop.cache.entries
    assert "k2" not in shop.cache.entries


async def test_a_batch_whose_passengers_all_lost_their_lease_is_not_sent() -> None:
    shop = Shop()
    with pytest.raises(LeaseLost):
        await shop.funnel.apply([Invalidate("k1")], Fallen())
    assert shop.calls == 0


async def test_a_refused_action_fails_the_call_that_asked_for_it_and_no_other() -> None:
    shop = Shop()
    shop.cache.refusals["k2"] = AccessRefused("The key is denied.")
    first = shop.drop(0)
    await asyncio.sleep(0.5)
    outcomes = await asyncio.gather(
        first, shop.drop(1), shop.drop(2, 3), shop.drop(2), shop.drop(4), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [int, int, AccessRefused, AccessRefused, int]
    assert shop.calls == 2
    assert {"k1", "k3", "k4"}.isdisjoint(shop.cache.entries)
    assert "k2" in shop.cache.entries


async def test_each_call_learns_how_many_of_its_own_entries_found_no_room() -> None:
    shop = Shop()
    shop.cache.full = True
    shop.cache.entries = {"a": value_entry(V1, b""), "b": value_entry(V1, b""), "c": value_entry(V1, b"")}
    first = shop.drop(0)
    await asyncio.sleep(0.5)
    calls = [[Refresh(key, V2, b"{}", 1000) for key in keys] for keys in ("ab", "c", "d")]
    outcomes = await asyncio.gather(first, *(shop.funnel.apply(actions, OpenFence()) for actions in calls))
    assert outcomes == [0, 2, 1, 0]
    assert shop.cache.entries == {}


async def test_a_batch_is_bounded() -> None:
    shop = Shop(entries=6000)
    first = shop.drop(0)
    await asyncio.sleep(0.5)
    await asyncio.gather(first, *(shop.drop(*range(start, start + 1000)) for start in range(0, 6000, 1000)))
    assert shop.calls == 1 + 3, "two thousand actions a batch"
    assert shop.cache.entries == {}


async def test_no_action_is_no_call() -> None:
    shop = Shop()
    await shop.drop()
    assert shop.calls == 0


async def test_an_error_is_found_inside_groups() -> None:
    inner = ExceptionGroup("inner", [LeaseLost("gone")])
    assert found(ExceptionGroup("outer", [ValueError(), inner]), LeaseLost)
    assert not found(ExceptionGroup("outer", [ValueError()]), LeaseLost)


async def test_a_sender_that_is_cancelled_while_it_waits_for_its_turn_leaves_the_sending_to_another() -> None:
    shop = Shop()
    first = shop.drop(0)
    await asyncio.sleep(0.5)
    sender, other, third = shop.drop(1), shop.drop(2), shop.drop(3)
    await asyncio.sleep(0.1)
    sender.cancel()
    await asyncio.sleep(0)
    other.cancel()
    await first
    assert [await third, shop.calls] == [0, 2]


async def test_a_batch_that_every_caller_left_is_not_waited_for_by_the_next_one() -> None:
    shop = Shop()
    first = shop.drop(0)
    await asyncio.sleep(0.5)
    left = [shop.drop(1), shop.drop(2)]
    await asyncio.sleep(0.1)
    for each in left:
        each.cancel()
    await asyncio.wait(left)
    last = shop.drop(3)
    await first
    assert [await last, shop.calls] == [0, 2]


async def test_what_comes_within_a_moment_travels_together() -> None:
    shop = Shop()
    first = shop.drop(0)
    await asyncio.sleep(0.001)
    await asyncio.gather(first, shop.drop(1), shop.drop(2))
    assert shop.calls == 1
