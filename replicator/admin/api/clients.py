"""Groups for requests: clients of their own, opened at the first one, so that no request waits behind replication.

Invariant: what only looks waits for no answer longer than a command that looks; what changes something waits as long as
is configured. A region that a changed configuration brings is opened by the next request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from replicator.adapters.clients import open_places
from replicator.operations.group import SHOW_SECONDS, Group

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.settings import Settings


class Groups:
    """The group of this worker, for as long as it serves. `settings`: as they are in force now."""

    def __init__(self, settings: Callable[[], Settings], stack: AsyncExitStack) -> None:
        self._settings, self._stack = settings, stack
        self._turn = asyncio.Lock()
        self._opened: dict[bool, dict[str, Place]] = {True: {}, False: {}}

    async def group(self, *, writes: bool) -> Group:
        """The group, to look or to change something."""
        settings = self._settings()
        async with self._turn:
            if more := _regions(settings) - self._opened[writes].keys():
                longest = None if writes else SHOW_SECONDS
                self._opened[writes] |= await self._stack.enter_async_context(
                    open_places(settings, more, longest=longest)
                )
        return Group(settings, self._opened[writes], _quiet)


def _regions(settings: Settings) -> set[str]:
    used = {region for rule in settings.rules for region in (*rule.regions_used, *rule.regions_of_sinks)}
    return {settings.coordination.region, *used, *(cache.region for cache in settings.caches.values())}


def _quiet(_: str) -> None:
    """A request gets nothing before its answer."""
