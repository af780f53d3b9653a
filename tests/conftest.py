from __future__ import annotations

import asyncio

from hypothesis import HealthCheck, settings

# How long an example takes depends on what else the machine does; it proves nothing about the code.
settings.register_profile("replicator", deadline=None, suppress_health_check=[HealthCheck.too_slow])


def pytest_configure() -> None:
    """Choose the profile for properties, and say that no event loop is set.

    pytest-asyncio asks for the current loop before every test; Python 3.11 answers with a new loop when none was ever
    set, nobody closes that one, and the warning about it strikes whichever test runs when it is collected.
    """
    settings.load_profile("replicator")
    asyncio.set_event_loop(None)
