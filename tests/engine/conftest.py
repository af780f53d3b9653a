"""Every test of the engine runs in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from tests.virtual_time import VirtualTime


@pytest.fixture(autouse=True)
async def virtual_time() -> None:
    VirtualTime.start(asyncio.get_running_loop())
