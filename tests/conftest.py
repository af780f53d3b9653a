from __future__ import annotations

import asyncio


def pytest_configure() -> None:
    """Say that no event loop is set.

    pytest-asyncio asks for the current loop before every test; Python 3.11 answers with a new loop when none was ever
    set, nobody closes that one, and the warning about it strikes whichever test runs when it is collected.
    """
    asyncio.set_event_loop(None)
