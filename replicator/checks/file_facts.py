"""Facts that the file alone shows, and what it cannot show."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from replicator.checks.facts import Fact, skipped, warning
from replicator.domain.filter_analysis import doubts
from replicator.settings import OrderedRule

if TYPE_CHECKING:
    from replicator.settings import Settings


def file_facts(settings: Settings) -> Iterator[Fact]:
    """What works as it is written and may not be meant."""
    for index, rule in enumerate(settings.rules):
        if isinstance(rule, OrderedRule) and rule.filter.where is not None:
            for doubt in doubts(rule.filter.where):
                yield warning(
                    f"rule {rule.name}", "filter", f"rules[{index}].filter: {doubt}", "Leave it if it is meant."
                )
    file = settings.conflicts.file
    obstacle = None if file is None else _obstacle(file)
    if obstacle is not None:
        yield warning(
            f"conflict file {file}",
            "permissions",
            f"This user cannot write it: {obstacle}. From the first conflict on, its shard waits until it can.",
            "Correct conflicts.file or the permissions, or check as the user that runs the worker.",
        )


def _obstacle(file: Path) -> str | None:
    """Why this user could not append to a file, as far as shows without touching it; None: nothing is in the way."""
    if os.path.isdir(file):  # noqa: PTH112 - says no where it may not look
        return "it is a directory"
    place = str(file) if os.path.exists(file) else str(file.parent)  # noqa: PTH110
    if not os.path.exists(place):  # noqa: PTH110
        return "its directory does not exist"
    return None if os.access(place, os.W_OK) else "permission denied"


def unseen_facts(settings: Settings) -> Iterator[Fact]:
    """What would be refused and needs a look at the tables."""
    for index, rule in enumerate(settings.rules):
        refreshed = [f"cache[{n}]" for n, action in enumerate(rule.cache) if action.action == "refresh"]
        if refreshed and not rule.primary_key:
            yield skipped(
                f"rule {rule.name}",
                "cache keys",
                f"Whether the key of rules[{index}].{' and '.join(refreshed)} holds the whole primary key, as action:"
                f" refresh needs it, shows only with the table, or when rules[{index}].primary_key names the key.",
            )
