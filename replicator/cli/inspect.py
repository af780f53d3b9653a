"""`replicator inspect`, shown."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from replicator.cli.output import note, print_json, print_rows
from replicator.cli.running import loaded
from replicator.domain.errors import EXIT_STOPPED, EXIT_UNREACHABLE
from replicator.operations.inspect import Inspection, inspect
from replicator.operations.item_copies import ItemCopy, short
from replicator.operations.table_argument import rule_on_table
from replicator.settings import OrderedRule

_COLUMNS = ("what", "where", "state", "version", "bytes", "content", "agrees")


def inspect_item(  # noqa: PLR0913 - what the command line says
    config: Path | None, rule_name: str, key: str, *, table: str | None = None, values: bool, as_json: bool
) -> int:
    """Look everywhere and print; `table`: which one, when the rule chooses several."""
    settings = loaded(config)
    rule = asyncio.run(rule_on_table(settings, rule_name, table))
    found = asyncio.run(inspect(settings, rule, key))
    for trouble in found.troubles:
        note(trouble)
    if as_json:
        print_json(found.document(values=values))
    else:
        print_rows([*_COLUMNS, *["item"] * values], [_row(place, values=values) for place in found.places])
        sys.stdout.write(f"{_summary(found)}\n")
    return EXIT_UNREACHABLE if found.troubles else EXIT_STOPPED


def _row(place: ItemCopy, *, values: bool) -> list[str]:
    agrees = {True: "yes", False: "NO", None: ""}[place.agrees]
    where = f"{place.name} in {place.region}" + (f", key {place.key}" if place.key else "")
    size = "" if place.item is None else str(len(place.item.wire))
    row = [place.role, where, place.state, short(place.version), size, place.digest or "", agrees]
    return [*row, place.item.wire.decode() if place.item else ""] if values else row


def _summary(found: Inspection) -> str:
    if found.agree is None:
        return "Not every place answered, so whether all agree is unknown."
    filtered = " (its filter applied)" if found.rule.filter.model_fields_set else ""
    is_ordered = isinstance(found.rule, OrderedRule)
    if found.agree:
        return f"All places agree with {'the source' if is_ordered else 'one another'}{filtered}."
    differ = "Places differ from the source" if is_ordered else "Places differ"
    return f"{differ}{filtered}; a change that is still on its way shows so for a moment."
