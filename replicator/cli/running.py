"""What commands share: the settings of a command line, and an operation run on the group that they name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from replicator.cli.output import note
from replicator.operations.group import Group, open_group
from replicator.settings.loading import configuration_path, load

if TYPE_CHECKING:
    from replicator.settings import Settings

Result = TypeVar("Result")


def loaded(config: Path | None) -> Settings:
    """The settings of a command."""
    return load(configuration_path(config))


def on_group(
    settings: Settings,
    work: Callable[[Group], Awaitable[Result]],
    regions: Collection[str] = (),
    *,
    longest: float | None = None,
) -> Result:
    """What an operation returns, given the group with clients of the coordination region and of some more.

    `longest`: seconds that an answer is waited for at most; what only shows is given `SHOW_SECONDS`.
    """

    async def run() -> Result:
        async with open_group(settings, regions, announce=note, longest=longest) as group:
            return await work(group)

    return asyncio.run(run())
