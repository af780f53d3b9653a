"""`replicator caches --orphans`, shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from replicator.cli.output import note, print_json, print_rows
from replicator.cli.running import loaded, on_group
from replicator.domain.errors import EXIT_FAULT, EXIT_STOPPED
from replicator.operations.cache_orphans import OrphanRequest, Orphans, find_orphans, regions_of

_COLUMNS = ("cache", "template", "looked at", "opaque:3", "orphans", "dropped", "rules:2")


def show_orphans(config: Path | None, request: OrphanRequest, *, as_json: bool) -> int:
    """Print what caches hold of items that are gone; exit code 1 when something of that stays."""
    settings = loaded(config)
    found = on_group(settings, lambda group: find_orphans(group, request), regions_of(settings))
    code = EXIT_FAULT if any(each.orphans > each.dropped for each in found) else EXIT_STOPPED
    if as_json:
        print_json({"group": settings.group, "templates": found})
    else:
        print_orphans(found)
    return code


def print_orphans(found: Sequence[Orphans]) -> None:
    """Print what was found, as a table."""
    if not found:
        note("no rule keeps entries in a cache.")
        return
    rows = [
        (
            each.cache,
            each.template,
            f"{each.looked_at}{' and more' if each.more else ''}",
            str(each.opaque),
            str(each.orphans),
            str(each.dropped),
            ", ".join(each.rules),
        )
        for each in found
    ]
    print_rows(_COLUMNS, rows)
    for each in found:
        if each.unknown:
            note(f"{each.cache}, {each.template}: {each.unknown} Nothing can be said of its entries.")
        for key in each.keys:
            note(f"{each.cache}: {key} shows an item that is gone{' and was dropped' if each.dropped else ''}.")
