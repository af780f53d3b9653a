"""Pauses end when the program stops, and not before their time otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from replicator.engine.waiting import Stop, Stopped, pause, pause_or_raise


@pytest.mark.parametrize("kind", [asyncio.Event, Stop])
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
    stop = Stop()
    assert not await pause(stop, -1.0)
    assert not stop._pausing
