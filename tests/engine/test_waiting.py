"""Pauses end when the program stops, and not before their time otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from replicator.engine.waiting import Flag, Stopped, pause, pause_for_any, pause_or_raise


@pytest.mark.parametrize("kind", [asyncio.Event, Flag])
async def test_a_pause_lasts_as_long_as_it_should_or_until_the_stop(kind: Callable[[], asyncio.Event]) -> None:
    loop, stop = asyncio.get_running_loop(), kind()
    began = loop.time()
    assert not await pause(stop, 7.0)
    assert loop.time() - began == pytest.approx(7.0)

    pauses = [asyncio.create_task(pause(stop, 1000.0)) for _ in range(3)]
    pauses[0].cancel()
    await asyncio.sleep(1.0)
    stop.set()
    assert await asyncio.gather(*pauses[1:]) == [True, True]
    assert pauses[0].cancelled()
    assert loop.time() - began == pytest.approx(8.0)
    assert await pause(stop, 1000.0)
    with pytest.raises(Stopped):
        await pause_or_raise(stop, 1000.0)
    assert loop.time() - began == pytest.approx(8.0)


async def test_a_pause_of_no_length_ends_and_leaves_nothing_behind() -> None:
    stop = Flag()
    assert not await pause(stop, -1.0)
    assert not stop._pausing


@pytest.mark.parametrize("kind", [asyncio.Event, Flag])
async def test_a_pause_for_any_ends_with_the_first_of_them_or_after_its_time(
    kind: Callable[[], asyncio.Event],
) -> None:
    loop, events = asyncio.get_running_loop(), [Flag(), kind(), Flag()]
    began = loop.time()
    await pause_for_any(7.0, *events)
    assert loop.time() - began == pytest.approx(7.0)
    for number, event in enumerate(events):
        loop.call_later(2.0, event.set)
        await pause_for_any(float("inf"), *events)
        assert loop.time() - began == pytest.approx(9.0 + 2 * number)
        await pause_for_any(float("inf"), *events)
        event.clear()
    given_up = asyncio.create_task(pause_for_any(1.0, *events))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait([given_up])
    assert given_up.cancelled()
    assert not any(event._pausing for event in events if isinstance(event, Flag))
