"""`replicator inspect`, shown."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

from replicator.cli.output import as_typed, note, print_json, print_rows, width, wrapped
from replicator.cli.running import loaded, on_group
from replicator.domain.errors import EXIT_FAULT, EXIT_STOPPED, EXIT_UNREACHABLE
from replicator.domain.plain_text import on_one_line
from replicator.domain.verdict.kinds import span
from replicator.operations.group import SHOW_SECONDS
from replicator.operations.inspect import Inspection, inspect
from replicator.operations.inspect_reasons import Reasons, differences, reasons
from replicator.operations.item_copies import ItemCopy, brief, short
from replicator.operations.parked_rows import regions_of
from replicator.operations.table_argument import rule_on_table
from replicator.settings import OrderedRule

_COLUMNS = ("what", "where", "state", "version", "bytes:2", "key:3", "content:4", "agrees")
_ROOM = 130
"""On a terminal of so many columns versions are whole."""

_LEVEL_SECONDS = 1.0
"""Behind by less, a target has everything: times of records are whole seconds."""


def inspect_item(  # noqa: PLR0913 - what the command line says
    config: Path | None, rule_name: str, key: str, *, table: str | None = None, values: bool, as_json: bool
) -> int:
    """Look everywhere and print; `table`: which one, when the rule chooses several.

    Exit code 0: all places agree; 1: they do not; 69: not every place answered.
    """
    settings = loaded(config)
    rule = asyncio.run(rule_on_table(settings, rule_name, table))
    found = asyncio.run(inspect(settings, rule, key))
    for trouble in found.troubles:
        note(trouble)
    differ = list(differences(found.places))
    why = None
    if found.agree is False:
        why = on_group(settings, lambda group: reasons(group, found, key), regions_of(settings), longest=SHOW_SECONDS)
    if as_json:
        print_json({**found.document(values=values), "differences": differ, "reasons": why})
    else:
        sys.stdout.write(f"{_summary(found)}\n")
        for difference in differ:
            what = "" if difference.attribute is None else f" {on_one_line(difference.attribute)}"
            sys.stdout.write(f"  {difference.place}:{what} {on_one_line(difference.how)}\n")
        for place in found.places:
            if place.details.get("why"):
                sys.stdout.write(f"  {place.role} of this key in {place.region}: {on_one_line(place.details['why'])}\n")
        for line in () if why is None else _why(why, config):
            for part in wrapped(on_one_line(line), "  ", "    ") if sys.stdout.isatty() else [f"  {on_one_line(line)}"]:
                sys.stdout.write(f"{part}\n")
        sys.stdout.write("\n")
        columns = [*_COLUMNS, *["item"] * values]
        print_rows(columns, [_row(place, values=values) for place in found.places], one_line=not values)
    if found.troubles:
        return EXIT_UNREACHABLE
    return EXIT_FAULT if found.agree is False else EXIT_STOPPED


def _why(why: Reasons, config: Path | None) -> Iterator[str]:
    """What may explain the difference, in lines."""
    if why.unknown is not None:
        yield f"why is not known: {why.unknown}"
        return
    for problem in why.problems:
        said = f": {problem.reason}" if problem.reason else ""
        helps = "" if problem.command.startswith("replicator inspect ") else f" {as_typed(problem.command, config)}"
        yield f"{problem.sentence}{said}{helps}"
    lags = why.lags or {}
    for target, lag in lags.items():
        if not why.problems and (lag is None or lag > _LEVEL_SECONDS):
            behind = "how far it is behind is not known" if lag is None else f"it is at most {span(lag)} behind"
            yield f"{target}: {behind}, so the change may be on its way"
    if not why.problems and lags and all(lag is not None and lag <= _LEVEL_SECONDS for lag in lags.values()):
        repair = as_typed(f"replicator verify {why.rule}", config)
        yield f"every target has everything that the streams hold: {repair} looks at the whole table, `repair` mends it"
    for entry in why.logged:
        yield f"conflict {entry['id'][:12]}, {entry['detected_at']}: {entry['kind']}, {entry['outcome']}"


def _row(place: ItemCopy, *, values: bool) -> list[str]:
    agrees = {True: "yes", False: "NO", None: ""}[place.agrees]
    has_room = values or not sys.stdout.isatty() or width() >= _ROOM
    version = short(place.version) if has_room else brief(place.version)
    size = "" if place.item is None else str(len(place.item.wire))
    where = f"{place.name} in {place.region}"
    row = [place.role, where, place.state, version, size, place.key or "", place.digest or "", agrees]
    return [*row, place.item.wire.decode() if place.item else ""] if values else row


def _summary(found: Inspection) -> str:
    if found.agree is None:
        return "Not every place answered, so whether all agree is unknown."
    filtered = " (its filter applied)" if found.rule.filter.model_fields_set else ""
    is_ordered = isinstance(found.rule, OrderedRule)
    if found.agree:
        return f"All places agree with {'the source' if is_ordered else 'one another'}{filtered}."
    differ = "Places differ from the source" if is_ordered else "Places differ"
    return f"{differ}{filtered}."
