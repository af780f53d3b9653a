"""`replicator status`: the verdict, what is wrong and what helps, then the table; once or again every second."""

from __future__ import annotations

import sys

from replicator.cli.output import note, print_json, print_rows
from replicator.cli.running import loaded, on_group
from replicator.cli.status_screen import COLUMNS, Shown, notes, problem_lines, rows
from replicator.domain.errors import EXIT_STOPPED, EXIT_UNREACHABLE, EXIT_USAGE
from replicator.domain.verdict.kinds import State
from replicator.operations.group import SHOW_SECONDS
from replicator.operations.group_status import GroupStatus
from replicator.operations.parked_rows import regions_of
from replicator.operations.status import status

EXIT_PROBLEMS = 1
"""Something is wrong with the group; the command itself did what it should."""

_CODES = {State.HEALTHY: EXIT_STOPPED, State.PROBLEMS: EXIT_PROBLEMS, State.UNKNOWN: EXIT_UNREACHABLE}


def show_status(shown: Shown, *, again: bool, as_json: bool) -> int:
    """Print the status once, or again and again until Ctrl-C.

    JSON always has everything. While the coordination table does not answer, what is stored cannot be known: what
    workers say is shown. The exit code is that of the verdict.
    """
    if again and as_json:
        note("--watch and --json exclude each other: let a script repeat the command instead.")
        return EXIT_USAGE
    settings = loaded(shown.config)
    if again:
        from replicator.cli.watching import watch

        return watch(settings, shown)
    found = on_group(settings, lambda group: status(group, shown.rule), regions_of(settings), longest=SHOW_SECONDS)
    assert found.verdict is not None
    if as_json:
        print_json(found)
    else:
        _print(found, shown)
    return _CODES[found.verdict.state]


def _print(found: GroupStatus, shown: Shown) -> None:
    for line in problem_lines(found, shown):
        sys.stdout.write(f"{line}\n")
    if shown.problems:
        return
    sys.stdout.write("\n")
    sys.stdout.flush()
    for line in notes(found, everything=shown.everything):
        note(line)
    full = shown.wide or not sys.stdout.isatty()
    print_rows(COLUMNS, rows(found, everything=shown.everything, full=full), one_line=True, wide=shown.wide)
