"""`replicator parked list`, `show`, `retry` and `drop`, shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicator.cli.confirmation import ask, need_yes, who
from replicator.cli.output import note, print_json, print_rows, shown_time
from replicator.cli.running import loaded, on_group
from replicator.domain.errors import EXIT_STOPPED, EXIT_USAGE, EXIT_WRONG_WORLD
from replicator.domain.owed_keys import Settlement
from replicator.domain.plain_text import on_one_line
from replicator.domain.verdict.kinds import counted
from replicator.operations import parked, parked_rows
from replicator.operations.documents import document
from replicator.operations.group import SHOW_SECONDS, known_rule
from replicator.operations.item_copies import short

if TYPE_CHECKING:
    from replicator.operations.group import Group
    from replicator.operations.parked import RetriedRow
    from replicator.operations.parked_rows import Parked, ParkedRow
    from replicator.settings import Settings

_COLUMNS = ("row", "since:3", "target:1", "table:5", "key", "change:2", "tries:6", "bytes:7", "why", "settled:4")
_SHOWN_ROWS = 200


def list_parked(config: Path | None, rule: str | None, *, everything: bool, as_json: bool) -> int:
    """Print what targets refused, oldest first: what is owed still, or what was settled lately too."""
    settings = loaded(config)
    silent: parked_rows.Silent = {}
    found = on_group(
        settings,
        lambda group: parked_rows.list_parked(group, rule, everything=everything, silent=silent),
        parked_rows.regions_of(settings),
        longest=SHOW_SECONDS,
    )
    known_rule(settings, rule, found)
    code = _code(silent)
    if as_json:
        unreadable = [error.sentence for error in silent.values()]
        print_json({"group": settings.group, "parked": found, "unreadable": unreadable})
        return code
    print_rows(_COLUMNS, map(_cells, found[:_SHOWN_ROWS]), one_line=True)
    for error in silent.values():
        note(error.sentence)
    if not found and not silent:
        note("nothing is parked.")
    elif len(found) > _SHOWN_ROWS:
        note(f"the oldest {_SHOWN_ROWS} of {len(found)} are shown; --json shows all.")
    return code


def _code(silent: parked_rows.Silent) -> int:
    """What was listed is not all when a region's table says nothing."""
    return next((error.exit_code for error in silent.values()), EXIT_STOPPED)


def _cells(row: ParkedRow) -> list[str]:
    settled = "" if row.settled is None else f"{row.settled} {shown_time(row.settled_at)} by {row.settled_by}"
    return [
        row.row,
        shown_time(row.first),
        row.target.text,
        f"{row.region}:{row.table}",
        row.shown,
        row.change,
        str(row.tries),
        "" if row.size is None else str(row.size),
        row.why,
        settled,
    ]


def show_parked(config: Path | None, row: str, *, values: bool, as_json: bool) -> int:
    """Print one row, and what is kept of its change when its values are asked for."""

    async def work(group: Group) -> tuple[Parked, bytes | None]:
        found = await parked_rows.parked_named(group, row)
        return found, await parked_rows.kept_body(group, found) if values else None

    settings = loaded(config)
    found, body = on_group(settings, work, parked_rows.regions_of(settings), longest=SHOW_SECONDS)
    shown: dict[str, Any] = document(found.row)
    if values:
        shown["kept"] = None if body is None else body.decode(errors="replace")
    if as_json:
        print_json(shown)
        return EXIT_STOPPED
    shown["version"] = short(found.owed.version)
    shown["key"] = json.dumps(shown["key"])
    print_rows((), [(name, "" if value is None else str(value)) for name, value in shown.items()])
    return EXIT_STOPPED


# -- deeds -------------------------------------------------------------------------------------------------------------


def retry_parked(config: Path | None, row: str | None, rule: str | None, *, everything: bool, as_json: bool) -> int:
    """Try one row again, those of a rule, or all of them."""
    if sum((row is not None, rule is not None, everything)) != 1:
        note("say which: the id of a row, --rule RULE, or --all.")
        return EXIT_USAGE

    silent: parked_rows.Silent = {}

    async def work(group: Group) -> list[RetriedRow]:
        if row is not None:
            rows = [await parked_rows.parked_named(group, row)]
        else:
            rows = await parked_rows.open_rows(group, rule, silent)
            known_rule(settings, rule, rows)
        return await parked.retry(group, rows, by=who())

    settings = loaded(config)
    tried = on_group(settings, work, _regions(settings))
    if as_json:
        unreadable = [error.sentence for error in silent.values()]
        print_json({"group": settings.group, "retried": tried, "unreadable": unreadable})
    else:
        for error in silent.values():
            note(error.sentence)
        if tried or not silent:
            _print_tried(tried)
    if silent:
        return _code(silent)
    return EXIT_STOPPED if all(each.settled is not None for each in tried) else EXIT_WRONG_WORLD


_RESULTS: dict[Settlement | None, str] = {
    Settlement.RETRIED: "applied to its target",
    Settlement.ABSENT: "resolved: the source no longer holds it",
}


def _print_tried(tried: Sequence[RetriedRow]) -> None:
    if not tried:
        note("nothing is parked.")
        return
    results = ("row", "target", "key", "result")
    print_rows(
        results,
        [
            (each.row.row, each.row.target.text, each.row.shown, _RESULTS.get(each.settled, f"stays: {each.why}"))
            for each in tried
        ],
    )
    stay = sum(each.settled is None for each in tried)
    note(f"{len(tried) - stay} of {len(tried)} are resolved{f', {stay} stay' if stay else ''}.")


def drop_parked(config: Path | None, row: str, *, yes: bool, as_json: bool) -> int:
    """Say what is given up, ask, and give it up."""
    settings = loaded(config)

    async def work(group: Group) -> ParkedRow:
        found = await parked_rows.parked_named(group, row)
        need_yes(yes=yes, as_json=as_json)
        if not as_json:
            sys.stdout.write(_meaning(found.row) + "\n")
        ask("Give this change up?", yes=yes)
        return await parked.drop(group, found, by=who())

    dropped = on_group(settings, work, _regions(settings))
    if as_json:
        print_json(dropped)
    else:
        sys.stdout.write(
            f"Row {dropped.row} is dropped; `replicator conflicts list --kind dropped` shows the dropped change.\n"
        )
    return EXIT_STOPPED


def _meaning(row: ParkedRow) -> str:
    """What is given up, and what follows from it."""
    what = {"put": "the last write of", "remove": "the removal of"}.get(row.change, "what a record says of")
    why, since = on_one_line(row.why), shown_time(row.first)
    return (
        f"{row.target} refused {what} {row.shown} ({why}), {counted(row.tries, 'time')} since {since}.\n"
        "A dropped change never reaches it; later changes of the key do. The conflict log keeps the dropped change."
    )


def _regions(settings: Settings) -> set[str]:
    used = {region for rule in settings.rules for region in (*rule.regions_used, *rule.regions_of_sinks)}
    return used | parked_rows.regions_of(settings)
