"""`replicator reload`, shown."""

from __future__ import annotations

import sys
from pathlib import Path

from replicator.cli.output import print_json
from replicator.cli.running import loaded, on_group
from replicator.domain.errors import EXIT_STOPPED, EXIT_UNREACHABLE, EXIT_WRONG_WORLD
from replicator.domain.plain_text import on_one_line
from replicator.operations.group import SHOW_SECONDS
from replicator.operations.reloading import reload


def reload_workers(config: Path | None, *, dry_run: bool, as_json: bool) -> int:
    """Check the file here, then let workers look at theirs; print what became of it."""
    settings = loaded(config)
    found = on_group(settings, lambda group: reload(group, dry_run=dry_run), longest=SHOW_SECONDS)
    results = {each.result for each in found}
    code = EXIT_WRONG_WORLD if "refused" in results else EXIT_UNREACHABLE if "silent" in results else EXIT_STOPPED
    if as_json:
        print_json({"group": settings.group, "workers": found, "exit_code": code})
        return code
    for each in found:
        changes = f": {each.changes}" if each.changes else ""
        sys.stdout.write(on_one_line(f"{each.worker}: {each.result}{changes}") + "\n")
        for reason in each.reasons:
            sys.stdout.write(f"  {on_one_line(reason)}\n")
    return code
