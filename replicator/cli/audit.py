"""`replicator audit`, shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from replicator.cli.output import note, print_json, print_rows, shown_time
from replicator.cli.running import loaded, on_group
from replicator.domain.errors import EXIT_STOPPED
from replicator.operations.audit import list_deeds
from replicator.operations.group import SHOW_SECONDS

if TYPE_CHECKING:
    from replicator.operations.audit import ListedDeed

_COLUMNS = ("when", "who", "from:2", "result", "command", "reason:1")
_SHOWN_ROWS = 50


def show_audit(config: Path | None, limit: int | None, *, as_json: bool) -> int:
    """Print the newest deeds."""
    settings = loaded(config)
    found = on_group(settings, lambda group: list_deeds(group, limit or _SHOWN_ROWS), longest=SHOW_SECONDS)
    if as_json:
        print_json({"group": settings.group, "deeds": found})
        return EXIT_STOPPED
    print_rows(_COLUMNS, map(_row, found), one_line=True)
    if not found:
        note("nothing was done through the admin API.")
    return EXIT_STOPPED


def _row(deed: ListedDeed) -> list[str]:
    return [shown_time(deed.at), deed.who, deed.origin, deed.result, deed.command, deed.reason]
