"""`replicator status --watch`: the screen again every second, with a clock and how the lag went."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from replicator.cli.output import print_rows, rich_table, shown_once, width
from replicator.cli.running import on_group
from replicator.cli.status_screen import COLUMNS, Shown, notes, problem_lines, rows
from replicator.domain.errors import EXIT_STOPPED, EXIT_UNREACHABLE, ReplicatorError
from replicator.domain.lag_history import Course, greatest
from replicator.domain.verdict.kinds import span
from replicator.operations.group import SHOW_SECONDS
from replicator.operations.lag_history import course_of
from replicator.operations.parked_rows import regions_of
from replicator.operations.status import status

if TYPE_CHECKING:
    from rich.console import RenderableType

    from replicator.operations.group import Group
    from replicator.operations.group_status import GroupStatus
    from replicator.settings import Settings

_EVERY_SECONDS = 1.0
_SAMPLES = 20
_HOUR_BARS = 20
_BARS, _PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.-:=+*#"


def watch(settings: Settings, shown: Shown) -> int:
    """Show the status again and again until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        on_group(settings, lambda group: _watch(group, shown), regions_of(settings), longest=SHOW_SECONDS)
    return EXIT_STOPPED


class Lags:
    """The greatest lag of every look, behind what workers remember of the last hour."""

    def __init__(self, hour: Sequence[float | None] = ()) -> None:
        self._hour = [] if all(each is None for each in hour) else list(hour)
        self.now: deque[float] = deque(maxlen=_SAMPLES)

    @property
    def text(self) -> str:
        """As the first line shows it: both on one scale."""
        if not self.now:
            return ""
        most = max(*self.now, *(each or 0.0 for each in self._hour))
        hour = f"  1 h {sparkline(self._hour, most)}" if self._hour else ""
        return f"{hour}  lag {span(self.now[-1])} {sparkline(self.now, most)}"


async def _watch(group: Group, shown: Shown) -> None:
    lags = Lags(await _hour(group, shown.rule))
    if not sys.stdout.isatty():
        while True:
            _print(await _look(group, lags, shown.rule), group.settings.group, lags, shown)
            await asyncio.sleep(_EVERY_SECONDS)
    from rich.live import Live

    with Live(screen=False, auto_refresh=False) as live:
        while True:
            live.update(_frame(await _look(group, lags, shown.rule), group.settings.group, lags, shown), refresh=True)
            await asyncio.sleep(_EVERY_SECONDS)


async def _hour(group: Group, rule: str | None) -> list[float | None]:
    """What workers remember; nothing where none can be asked."""
    try:
        course = await course_of(group)
        lags = {name: own for name, own in course.lags.items() if rule is None or name.startswith(f"{rule}/")}
        return greatest(Course(course.until, lags), _HOUR_BARS)
    except ReplicatorError:
        return []


async def _look(group: Group, lags: Lags, rule: str | None) -> GroupStatus | str:
    """The status, or why there is none now; notes the greatest lag."""
    try:
        found = await status(group, rule)
    except ReplicatorError as error:
        if error.exit_code != EXIT_UNREACHABLE:
            raise
        return f"cannot know: {error.sentence}"
    known = [target.lag_seconds for rule in found.rules for target in rule.targets if target.lag_seconds is not None]
    if known:
        lags.now.append(max(known))
    return found


def _print(found: GroupStatus | str, name: str, lags: Lags, shown: Shown) -> None:
    """A frame where there is no terminal: lines, and an empty one behind them."""
    for line in [_header(name, lags), *([found] if isinstance(found, str) else problem_lines(found, shown))]:
        sys.stdout.write(f"{line}\n")
    if not isinstance(found, str) and not shown.problems:
        print_rows(COLUMNS, rows(found, everything=shown.everything, full=True))
    sys.stdout.write("\n")
    sys.stdout.flush()


def _frame(found: GroupStatus | str, name: str, lags: Lags, shown: Shown) -> RenderableType:
    from rich.console import Group as Lines
    from rich.text import Text

    lines = [_header(name, lags), *([found] if isinstance(found, str) else problem_lines(found, shown))]
    parts: list[RenderableType] = [Text(line) for line in lines]
    if not isinstance(found, str) and not shown.problems:
        cells = shown_once(rows(found, everything=shown.everything, full=shown.wide))
        parts += [Text(""), rich_table(COLUMNS, cells, width=width(), one_line=True)]
        parts += map(Text, notes(found, everything=shown.everything))
    return Lines(*parts)


def _header(name: str, lags: Lags) -> str:
    return f"{time.strftime('%H:%M:%S')}  group {name}{lags.text}"


def sparkline(values: Iterable[float | None], most: float, encoding: str | None = None) -> str:
    """Values as bars, `most` at the top, and holes where none is known; of characters that the terminal has."""
    bars = _BARS
    try:
        bars.encode(encoding or sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        bars = _PLAIN_BARS
    top = len(bars) - 1
    return "".join(" " if each is None else bars[round(each / most * top)] if most else bars[0] for each in values)
