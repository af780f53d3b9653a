"""`replicator status --watch`: the screen again every second, with a clock and how the lag went."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from replicator.cli.output import print_rows, rich_table, shown_once, width
from replicator.cli.running import on_group
from replicator.cli.status_screen import COLUMNS, Shown, notes, problem_lines, rows
from replicator.domain.errors import EXIT_STOPPED, EXIT_UNREACHABLE, ReplicatorError
from replicator.domain.verdict.kinds import span
from replicator.operations.group import SHOW_SECONDS
from replicator.operations.parked_rows import regions_of
from replicator.operations.status import status

if TYPE_CHECKING:
    from rich.console import RenderableType

    from replicator.operations.group import Group
    from replicator.operations.group_status import GroupStatus
    from replicator.settings import Settings

_EVERY_SECONDS = 1.0
_SAMPLES = 40
_BARS, _PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.-:=+*#"


def watch(settings: Settings, shown: Shown) -> int:
    """Show the status again and again until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        on_group(settings, lambda group: _watch(group, shown), regions_of(settings), longest=SHOW_SECONDS)
    return EXIT_STOPPED


async def _watch(group: Group, shown: Shown) -> None:
    lags: deque[float] = deque(maxlen=_SAMPLES)
    if not sys.stdout.isatty():
        while True:
            _print(await _look(group, lags), group.settings.group, lags, shown)
            await asyncio.sleep(_EVERY_SECONDS)
    from rich.live import Live

    with Live(screen=False, auto_refresh=False) as live:
        while True:
            live.update(_frame(await _look(group, lags), group.settings.group, lags, shown), refresh=True)
            await asyncio.sleep(_EVERY_SECONDS)


async def _look(group: Group, lags: deque[float]) -> GroupStatus | str:
    """The status, or why there is none now; notes the greatest lag."""
    try:
        found = await status(group)
    except ReplicatorError as error:
        if error.exit_code != EXIT_UNREACHABLE:
            raise
        return f"cannot know: {error.sentence}"
    known = [target.lag_seconds for rule in found.rules for target in rule.targets if target.lag_seconds is not None]
    if known:
        lags.append(max(known))
    return found


def _print(found: GroupStatus | str, name: str, lags: Sequence[float], shown: Shown) -> None:
    """A frame where there is no terminal: lines, and an empty one behind them."""
    for line in [_header(name, lags), *([found] if isinstance(found, str) else problem_lines(found, shown))]:
        sys.stdout.write(f"{line}\n")
    if not isinstance(found, str) and not shown.problems:
        print_rows(COLUMNS, rows(found, everything=shown.everything, full=True))
    sys.stdout.write("\n")
    sys.stdout.flush()


def _frame(found: GroupStatus | str, name: str, lags: Sequence[float], shown: Shown) -> RenderableType:
    from rich.console import Group as Lines
    from rich.text import Text

    lines = [_header(name, lags), *([found] if isinstance(found, str) else problem_lines(found, shown))]
    parts: list[RenderableType] = [Text(line) for line in lines]
    if not isinstance(found, str) and not shown.problems:
        cells = shown_once(rows(found, everything=shown.everything, full=shown.wide))
        parts += [Text(""), rich_table(COLUMNS, cells, width=None if shown.wide else width(), one_line=True)]
        parts += map(Text, notes(found, everything=shown.everything))
    return Lines(*parts)


def _header(name: str, lags: Sequence[float]) -> str:
    lag = f"  lag {span(lags[-1])} {sparkline(lags)}" if lags else ""
    return f"{time.strftime('%H:%M:%S')}  group {name}{lag}"


def sparkline(values: Sequence[float], encoding: str | None = None) -> str:
    """Values as bars, the greatest at the top; of characters that the terminal has."""
    bars = _BARS
    try:
        bars.encode(encoding or sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        bars = _PLAIN_BARS
    most = max(values, default=0.0)
    return "".join(bars[round(value / most * (len(bars) - 1))] if most else bars[0] for value in values)
