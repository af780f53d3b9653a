"""How commands answer: a table on a terminal, lines with tabs in a pipe, or one JSON document."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from replicator.domain.plain_text import on_one_line
from replicator.operations.documents import document

if TYPE_CHECKING:
    from datetime import datetime

    from rich.table import Table

    from replicator.domain.progress import Position

_STYLES = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim", "blocked": "red"}


def print_json(value: Any) -> None:
    """What an operation returned, as an indented document that is the only thing on standard output."""
    import json

    sys.stdout.write(json.dumps(document(value), indent=2, ensure_ascii=False) + "\n")


def note(sentence: str) -> None:
    """A sentence on standard error."""
    sys.stderr.write(f"replicator: {sentence}\n")


def shown_time(moment: datetime | None) -> str:
    """A time for people; nothing when it is not known."""
    return "" if moment is None else moment.isoformat(timespec="seconds")


def shown_position(position: Position | None, nothing: str = "none") -> str:
    """A position for people."""
    return nothing if position is None else position.text


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table for people, where a first cell is shown once, or tab-separated lines in a pipe."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(rich_table(columns, _shown_once(rows)))
    else:
        for row in [columns, *rows]:
            sys.stdout.write("\t".join(map(on_one_line, row)) + "\n")


def _shown_once(rows: Iterable[Sequence[str]]) -> Iterator[Sequence[str]]:
    before = None
    for first, *rest in rows:
        yield ["" if first == before else first, *rest]
        before = first


def rich_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table for a terminal; words for a state are coloured."""
    from rich import box
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(*(Column(name, overflow="fold") for name in columns), box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(on_one_line(cell), style=_STYLES.get(cell, "")) for cell in row))
    return table
