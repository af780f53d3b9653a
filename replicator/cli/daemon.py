"""`replicator run`: the daemon, or the parent of several workers.

A daemon has no use for the library of commands, which takes a twentieth of its start; so what the arguments mean is
read here where they are of the usual form, and by that library where they are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Asked(NamedTuple):
    """What the arguments ask for."""

    config: Path | None = None
    workers: str = "1"
    strict: bool = False


def asked_plainly(arguments: Sequence[str]) -> Asked | None:
    """What they ask for, where each option and its value are words of their own; None: the library is to judge."""
    asked, is_named = Asked(), False
    words = iter(arguments)
    for word in words:
        if word == "run" and not is_named:
            is_named = True
        elif word == "--strict" and is_named:
            asked = asked._replace(strict=True)
        elif word in {"--config", "-c"} or (word == "--workers" and is_named):
            value = next(words, "")
            if not value or value.startswith("-"):
                return None
            asked = asked._replace(workers=value) if word == "--workers" else asked._replace(config=Path(value))
        else:
            return None
    return asked if is_named else None


def start(asked: Asked) -> int:
    """Replicate until a signal; returns the exit code."""
    from replicator.app.parent_death import bind_to_parent
    from replicator.app.supervisor import number_of_workers, run_workers
    from replicator.settings.loading import configuration_path, load

    count = number_of_workers(asked.workers)
    path = configuration_path(asked.config)
    bind_to_parent()
    settings = load(path)
    if count > 1:
        return run_workers(settings, count, config_path=path, strict=asked.strict)
    from replicator.app.daemon import run

    return run(settings, config_path=path, strict=asked.strict)
