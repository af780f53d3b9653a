"""The settings of one of several processes that were started together (`replicator run --workers N`).

Invariant: what only one process can have - a port, a file - each of them has for itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicator.settings.model import Settings

WORKER_INDEX_VARIABLE = "REPLICATOR_WORKER_INDEX"
"""Environment of a process that is one of several: 0, 1, 2, ..."""

_MOST_PORT = 65_535


def of_worker(settings: Settings, index: int) -> Settings:
    """The settings of process number `index`: the first one has them as they are written.

    The others listen on the following admin ports (a port of 0 stays: each takes a free one) and write their conflict
    entries to files of their own, `<file>.w1` and so on.
    """
    if index == 0:
        return settings
    admin, conflicts = settings.admin, settings.conflicts
    if admin.port:
        admin = admin.model_copy(update={"port": admin.port + index})
    if conflicts.file is not None:
        conflicts = conflicts.model_copy(update={"file": conflicts.file.with_name(f"{conflicts.file.name}.w{index}")})
    return settings.model_copy(update={"admin": admin, "conflicts": conflicts})


def most_workers(settings: Settings) -> int | None:
    """How many processes have a port; None when each takes a free one."""
    return _MOST_PORT - settings.admin.port + 1 if settings.admin.port else None
