"""How commands answer: a table on a terminal, lines with tabs in a pipe, or one JSON document."""

from __future__ import annotations

import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicator.domain.plain_text import in_json, on_one_line
from replicator.operations.documents import document
from replicator.settings.called_as import program

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import RenderableType
    from rich.table import Table

    from replicator.domain.progress import Position

_STYLES = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim", "blocked": "red", "held": "red"}
_GAP, _NARROWEST, _NARROWEST_CELL, _WIDEST = 2, 40, 6, 100_000


def print_json(value: Any) -> None:
    """What an operation returned, as an indented document that is the only thing on standard output."""
    import json

    sys.stdout.write(in_json(json.dumps(document(value), indent=2, ensure_ascii=False)) + "\n")


def note(sentence: str) -> None:
    """A sentence on standard error, in lines as long as a terminal's."""
    text = f"replicator: {on_one_line(sentence)}"
    lines = wrapped(text, "", "  ") if sys.stderr.isatty() else [text]
    sys.stderr.writelines(f"{line}\n" for line in lines)


def say(sentence: str) -> None:
    """A sentence on standard output, on a terminal in lines as long as it is wide."""
    lines = wrapped(sentence, "", "  ") if sys.stdout.isatty() else [sentence]
    sys.stdout.writelines(f"{line}\n" for line in lines)


def as_typed(command: str, config: Path | None) -> str:
    """A command as it works here: called as this one was, with the configuration that this one was given."""
    name, _, rest = command.partition(" ")
    given = "" if config is None else f" -c {shlex.quote(str(config))}"
    return f"{program() if name == 'replicator' else name} {rest}{given}"


def shown_time(moment: datetime | None) -> str:
    """A time for people; nothing when it is not known."""
    return "" if moment is None else moment.isoformat(timespec="seconds")


def shown_position(position: Position | None, nothing: str = "none") -> str:
    """A position for people."""
    return nothing if position is None else position.text


def print_rows(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, one_line: bool = False, wide: bool = False
) -> None:
    """A table for people, where a first cell is shown once, or tab-separated lines in a pipe.

    `one_line`: on a terminal an entry is one line, as `rich_table` says. `wide`: as wide as it must be.
    """
    if sys.stdout.isatty():
        table = rich_table(columns, shown_once(rows), width=None if wide else width(), one_line=one_line or wide)
        show(table, wide=wide)
    else:
        for row in [[column.partition(":")[0] for column in columns], *rows]:
            sys.stdout.write("\t".join(map(on_one_line, row)) + "\n")


def wrapped(text: str, indent: str, later: str | None = None) -> list[str]:
    """A sentence in lines that fit the terminal, `later` ones with another indent. What is to be copied stays whole."""
    lines = textwrap.TextWrapper(width() - 1, indent, break_on_hyphens=False, break_long_words=False)
    lines.subsequent_indent = indent if later is None else later
    return lines.wrap(text)


def show(what: RenderableType, *, wide: bool = False) -> None:
    """Something of rich on standard output; `wide`: as wide as it is, whatever the terminal's width."""
    from rich.console import Console

    console = Console(soft_wrap=True)
    if wide:
        needed = console.measure(what, options=console.options.update(width=_WIDEST)).maximum
        console = Console(soft_wrap=True, width=max(console.width, needed), height=console.height)
    console.print(what, crop=False, overflow="ignore")


def width() -> int:
    """How many columns the terminal has."""
    return max(_NARROWEST, shutil.get_terminal_size((80, 24)).columns)


def shown_once(rows: Iterable[Sequence[str]]) -> Iterator[Sequence[str]]:
    """Rows whose first cell is left out where it repeats."""
    before = None
    for first, *rest in rows:
        yield ["" if first == before else first, *rest]
        before = first


def rich_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, width: int | None = None, one_line: bool = False
) -> Table:
    """A table for a terminal of some width, None: any; words for a state are coloured.

    A column's name may bear a rank (`owner:2`). `one_line`: an entry is one line; where the terminal is too narrow the
    columns of the highest rank are left out first, those of none never, and then the widest cells are cut. Otherwise
    cells are folded, between words where the terminal has room for every word.
    """
    from rich import box
    from rich.table import Column, Table
    from rich.text import Text

    cells = [[on_one_line(cell) for cell in row] for row in rows]
    names = [name.partition(":")[0] for name in columns] or [""] * max(map(len, cells), default=0)
    ranks = [int(name.partition(":")[2] or 0) for name in columns] or [0] * len(names)
    natural = _natural(names, cells)
    kept = _kept(ranks, natural, width) if one_line else list(range(len(names)))
    widths = _cut([natural[index] for index in kept], width) if one_line else _folded(names, cells, natural, width)
    table = Table(
        *(
            Column(names[index], overflow="ellipsis" if one_line else "fold", no_wrap=one_line, width=cell)
            for index, cell in zip(kept, widths, strict=True)
        ),
        box=box.SIMPLE_HEAD,
        show_header=bool(columns),
        show_edge=False,
        pad_edge=False,
        padding=(0, _GAP - 1, 0, 0),
    )
    for row in cells:
        table.add_row(*(Text(row[index], style=_STYLES.get(row[index].partition(":")[0], "")) for index in kept if row))
    return table


def _natural(names: Sequence[str], cells: Iterable[Sequence[str]]) -> list[int]:
    """The widths that columns would have."""
    from rich.cells import cell_len

    widths = [cell_len(name) for name in names]
    for row in cells:
        widths[: len(row)] = [max(known, cell_len(cell)) for known, cell in zip(widths, row, strict=False)]
    return widths


def _kept(ranks: Sequence[int], natural: Sequence[int], width: int | None) -> list[int]:
    """The columns that fit, by index."""
    kept = list(range(len(ranks)))
    while width is not None and _GAP * (len(kept) - 1) + sum(natural[index] for index in kept) > width:
        least = max(kept, key=lambda index: ranks[index])
        if ranks[least] == 0:
            break
        kept.remove(least)
    return kept


def _folded(
    names: Sequence[str], cells: Sequence[Sequence[str]], natural: Sequence[int], width: int | None
) -> list[int | None]:
    """Widths that break no word, the widest columns folded most; None for each where there is no room for that."""
    widths = _natural(
        [""] * len(names), [[max(cell.split(), key=len, default="") for cell in row] for row in (names, *cells)]
    )
    room = -1 if width is None else width - _GAP * (len(widths) - 1) - sum(widths)
    if room < 0:
        return [None] * len(widths)
    for _ in range(min(room, sum(natural) - sum(widths))):
        lacks = [wanted - had for wanted, had in zip(natural, widths, strict=True)]
        widths[lacks.index(max(lacks))] += 1
    return list(widths)


def _cut(natural: Sequence[int], width: int | None) -> list[int | None]:
    """Widths that fit: the widest columns give most."""
    widths = list(natural)
    while width is not None and _GAP * (len(widths) - 1) + sum(widths) > width and max(widths) > _NARROWEST_CELL:
        widths[widths.index(max(widths))] -= 1
    return list(widths)
