"""Many calls at once, within a bound: one that fails hinders no other.

Invariant: every call is made and awaited, whatever the others do; what is no `ReplicatorError` ends them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from replicator.domain.errors import ReplicatorError

Item = TypeVar("Item")


async def each(
    items: Iterable[Item], act: Callable[[Item], Awaitable[None]], *, at_once: int, name: str
) -> list[ReplicatorError]:
    """Do something for every item, for at most `at_once` of them at a time; returns what failed."""
    turns = asyncio.Semaphore(at_once)
    troubles: list[ReplicatorError] = []

    async def one(item: Item) -> None:
        async with turns:
            try:
                await act(item)
            except ReplicatorError as error:
                troubles.append(error)

    async with asyncio.TaskGroup() as group:
        for item in items:
            group.create_task(one(item), name=name)
    return troubles


def raise_first(troubles: Iterable[ReplicatorError]) -> None:
    """Raise the first failure, when there is one."""
    for trouble in troubles:
        raise trouble
