"""`replicator conflicts list`, `show` and `export`: what lost against what, from the conflict table."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicator.adapters.clients import open_places
from replicator.checks.table_choices import with_tables
from replicator.cli.output import print_json, print_rows
from replicator.domain.errors import EXIT_STOPPED, EXIT_USAGE, ReplicatorError
from replicator.operations.conflict_entries import ConflictEntries, Wanted, check_kind, parse_since
from replicator.settings.loading import configuration_path, load

if TYPE_CHECKING:
    from replicator.settings import Settings

_COLUMNS = ("id", "detected", "rule", "key", "kind", "reason", "winner", "loser", "outcome")
_SHOWN_ROWS = 50
_SHORT_ID = 12
_LONGEST_VERSION = 28
_SEEN_BEFORE, _SEEN_AFTER = 8, 8
"""Characters shown on either side of the first that differs, at least."""
_FIELD_END, _MARK = ".", "!"
"""What stands between the fields of a version."""


class OutputRefused(ReplicatorError):
    """The file to write to cannot be written."""

    exit_code = EXIT_USAGE


def list_conflicts(config: Path | None, wanted: Wanted, *, as_json: bool) -> int:
    """Print the entries that match: the newest of them as a table, or all as JSON."""
    settings = load(configuration_path(config))
    if as_json:
        entries = asyncio.run(_find(settings, wanted))
        print_json({"group": settings.group, "conflicts": entries})
        return EXIT_STOPPED
    limit = wanted.limit or _SHOWN_ROWS
    entries = asyncio.run(_find(settings, _limited(wanted, limit + 1)))
    print_rows(_COLUMNS, [_row(entry) for entry in entries[:limit]])
    if not entries:
        sys.stderr.write("replicator: there is no conflict entry that matches.\n")
    elif len(entries) > limit and wanted.limit is None:
        sys.stderr.write(f"replicator: the newest {limit} are shown; --limit shows more, --json and export all.\n")
    return EXIT_STOPPED


def show_conflict(config: Path | None, entry_id: str, *, as_json: bool) -> int:
    """Print one entry with both images, side by side."""
    settings = load(configuration_path(config))
    entry = asyncio.run(_one(settings, entry_id))
    if as_json:
        print_json(entry)
        return EXIT_STOPPED
    images = {"winner", "loser"}
    print_rows((), [(name, _text(value)) for name, value in sorted(entry.items()) if name not in images])
    print_rows(("attribute", "winner", "loser"), list(differences(entry["winner"], entry["loser"], everything=True)))
    return EXIT_STOPPED


def export_conflicts(config: Path | None, wanted: Wanted, output: Path | None, *, as_json: bool) -> int:
    """Write the entries that match as JSON lines, or as one document."""
    settings = load(configuration_path(config))
    entries = asyncio.run(_find(settings, wanted))
    documents: list[Any] = [{"group": settings.group, "conflicts": entries}] if as_json else entries
    lines = [json.dumps(document, ensure_ascii=False) + "\n" for document in documents]
    if output is None:
        sys.stdout.writelines(lines)
        return EXIT_STOPPED
    try:
        with output.open("w", encoding="utf-8") as file:
            file.writelines(lines)
    except OSError as error:
        raise OutputRefused(f"{output} cannot be written: {error.strerror}.", advice="Name another file.") from error
    sys.stderr.write(f"replicator: {len(entries)} entries were written to {output}.\n")
    return EXIT_STOPPED


def wanted_entries(
    *, rule: str | None, key: str | None, kind: str | None, since: str | None, limit: int | None
) -> Wanted:
    """The filters of a command line, checked."""
    check_kind(kind)
    moment = None if since is None else parse_since(since, datetime.now(UTC))
    return Wanted(rule, key, kind, moment, limit)


def _limited(wanted: Wanted, limit: int) -> Wanted:
    return Wanted(wanted.rule, wanted.key, wanted.kind, wanted.since, limit)


async def _find(settings: Settings, wanted: Wanted) -> list[dict[str, Any]]:
    regions = {settings.coordination.region}
    if wanted.key is not None:
        regions |= {rule.regions_used[0] for rule in settings.rules}
    async with open_places(settings, regions) as places:
        if wanted.key is not None:
            settings = await with_tables(settings, places)
        return await ConflictEntries(settings, places).find(wanted)


async def _one(settings: Settings, entry_id: str) -> dict[str, Any]:
    async with open_places(settings, {settings.coordination.region}) as places:
        return await ConflictEntries(settings, places).one(entry_id)


# -- showing -------------------------------------------------------------------------------------------------------


def _row(entry: Mapping[str, Any]) -> list[str]:
    versions = shortened(entry.get("winner_version") or "no version", entry.get("loser_version") or "no version")
    return [
        entry["id"][:_SHORT_ID],
        entry.get("detected_at", ""),
        entry.get("rule", ""),
        shown_key(entry),
        entry.get("kind", ""),
        entry.get("reason", ""),
        _side(entry, "winner", versions[0]),
        _side(entry, "loser", versions[1]),
        entry.get("outcome", ""),
    ]


def shortened(left: str, right: str) -> tuple[str, str]:
    """Two versions, long ones cut to the part in which they differ: from the field that differs, else near the end."""
    pairs = enumerate(zip(left, right, strict=False))
    first = next((place for place, (one, other) in pairs if one != other), min(len(left), len(right)))
    begin = max(left.rfind(_FIELD_END, 0, first), left.rfind(_MARK, 0, first)) + 1
    if first - begin > _LONGEST_VERSION - _SEEN_AFTER:
        begin = first - _SEEN_BEFORE
    return _cut(left, begin), _cut(right, begin)


def _cut(version: str, begin: int) -> str:
    if len(version) <= _LONGEST_VERSION:
        return version
    if not begin:
        return f"{version[: _LONGEST_VERSION - 1]}…"
    if len(version) - begin < _LONGEST_VERSION:
        return f"…{version[1 - _LONGEST_VERSION :]}"
    return f"…{version[begin : begin + _LONGEST_VERSION - 2]}…"


def _side(entry: Mapping[str, Any], side: str, version: str) -> str:
    parts = (entry.get(f"{side}_op", ""), version, entry.get(f"{side}_region", ""))
    return " ".join(part for part in parts if part)


def shown_key(entry: Mapping[str, Any]) -> str:
    """The item's key for people."""
    return ", ".join(f"{name}={next(iter(typed.values()))}" for name, typed in entry.get("key", {}).items())


def differences(
    left: Mapping[str, Any] | None, right: Mapping[str, Any] | None, *, everything: bool = False
) -> Iterator[tuple[str, str, str]]:
    """(attribute, left, right) of every attribute that differs, or of all."""
    left, right = left or {}, right or {}
    for name in sorted({*left, *right}):
        if everything or left.get(name) != right.get(name):
            yield name, _text(left.get(name)), _text(right.get(name))


def _text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
