"""`replicator conflicts list`, `show`, `export` and `promote`, shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicator.cli.confirmation import ask, need_yes
from replicator.cli.output import note, print_json, print_rows
from replicator.cli.running import loaded, on_group
from replicator.domain.errors import EXIT_STOPPED, EXIT_USAGE, ReplicatorError
from replicator.domain.plain_text import in_json
from replicator.domain.values import replace
from replicator.domain.verdict.kinds import counted, were
from replicator.operations import promotion as promotions
from replicator.operations.conflict_entries import ConflictEntries, EntryFilter, find
from replicator.operations.group import SHOW_SECONDS, known_rule

if TYPE_CHECKING:
    from replicator.domain.image import Image
    from replicator.operations.group import Group
    from replicator.operations.promotion import Promotion, PromotionRequest
    from replicator.settings import Settings

_COLUMNS = ("id", "detected", "rule", "key", "kind", "reason:5", "winner:4", "loser:6", "outcome:3")
_SHOWN_ROWS = 50
_SHORT_ID = 12
_TO_SECONDS = len("2026-07-01T12:00:00")
_LONGEST_VERSION = 28
_SEEN_BEFORE, _SEEN_AFTER = 8, 8
"""Characters shown on either side of the first that differs, at least."""
_FIELD_END, _MARK = ".", "!"
"""Separates the fields of a version."""


class OutputRefused(ReplicatorError):
    """The file to write to cannot be written."""

    exit_code = EXIT_USAGE


def list_conflicts(config: Path | None, wanted: EntryFilter, *, as_json: bool) -> int:
    """Print the entries that match: the newest of them as a table, or all as JSON."""
    settings = loaded(config)
    if as_json:
        print_json({"group": settings.group, "conflicts": _found(settings, wanted)})
        return EXIT_STOPPED
    limit = wanted.limit or _SHOWN_ROWS
    entries = _found(settings, replace(wanted, limit=limit + 1))
    print_rows(_COLUMNS, map(_row, entries[:limit]), one_line=True)
    if not entries:
        note("there is no conflict entry that matches.")
    elif len(entries) > limit and wanted.limit is None:
        note(f"the newest {limit} are shown; --limit shows more, --json and export all.")
    if entries and sys.stdout.isatty():
        note("`replicator conflicts show ID` shows both images, `promote ID` restores the loser.")
    return EXIT_STOPPED


def _found(settings: Settings, wanted: EntryFilter) -> list[dict[str, Any]]:
    regions = set() if wanted.key is None else {rule.regions_used[0] for rule in settings.rules}
    found = on_group(settings, lambda group: find(group, wanted), regions, longest=SHOW_SECONDS)
    known_rule(settings, wanted.rule, found)
    return found


def show_conflict(config: Path | None, entry_id: str, *, as_json: bool) -> int:
    """Print one entry with both images, side by side."""
    entry = on_group(loaded(config), lambda group: ConflictEntries(group).one(entry_id), longest=SHOW_SECONDS)
    if as_json:
        print_json(entry)
        return EXIT_STOPPED
    images = {"winner", "loser"}
    print_rows((), [(name, _text(value)) for name, value in sorted(entry.items()) if name not in images])
    print_rows(("attribute", "winner", "loser"), list(differences(entry["winner"], entry["loser"], everything=True)))
    return EXIT_STOPPED


def export_conflicts(config: Path | None, wanted: EntryFilter, output: Path | None, *, as_json: bool) -> int:
    """Write the entries that match as JSON lines, or as one document."""
    settings = loaded(config)
    entries = _found(settings, wanted)
    documents: list[Any] = [{"group": settings.group, "conflicts": entries}] if as_json else entries
    lines = [in_json(json.dumps(document, ensure_ascii=False)) + "\n" for document in documents]
    if output is None:
        sys.stdout.writelines(lines)
        return EXIT_STOPPED
    try:
        with output.open("w", encoding="utf-8") as file:
            file.writelines(lines)
    except OSError as error:
        raise OutputRefused(f"{output} cannot be written: {error.strerror}.", advice="Name another file.") from error
    note(f"{counted(len(entries), 'conflict')} {were(len(entries))} written to {output}.")
    return EXIT_STOPPED


# -- promoting -----------------------------------------------------------------------------------------------------


def promote_conflict(config: Path | None, request: PromotionRequest, *, yes: bool, as_json: bool) -> int:
    """Show what would change, ask, and write."""
    need_yes(yes=yes, as_json=as_json, deed="write")
    settings = loaded(config)

    async def work(group: Group) -> Promotion:
        promotion = await promotions.plan(group, request)
        if not as_json:
            _show(promotion)
        ask(f"Write this to {promotion.table} in {promotion.region}?", yes=yes, refused="Nothing was written.")
        if added := await promotions.write(group, promotion):
            unseen = ", ".join(added)
            note(f"meanwhile the item had got other values of {unseen}, which were not shown and are gone now.")
        return promotion

    done = on_group(settings, work, settings.regions)
    if as_json:
        print_json(
            {
                "id": done.entry["id"],
                "region": done.region,
                "table": done.table,
                "key": done.entry["key"],
                "before": _attributes(done.before),
                "after": _attributes(done.item),
            }
        )
    else:
        sys.stdout.write(f"The loser of {done.entry['id'][:12]} is in {done.table} in {done.region} again.\n")
    return EXIT_STOPPED


def _show(promotion: Promotion) -> None:
    sys.stdout.write(
        f"{shown_key(promotion.entry)} in table {promotion.table} of region {promotion.region}"
        f"{' would be deleted' if promotion.item is None else ''}:\n"
    )
    rows = list(differences(_attributes(promotion.before), _attributes(promotion.item)))
    print_rows(("attribute", "now", "promoted"), rows or [("(nothing differs)", "", "")])


def _attributes(item: Image | None) -> Any:
    return None if item is None else item.attributes


# -- showing -------------------------------------------------------------------------------------------------------


def _row(entry: Mapping[str, Any]) -> list[str]:
    versions = shortened(entry.get("winner_version") or "no version", entry.get("loser_version") or "no version")
    return [
        entry["id"][:_SHORT_ID],
        entry.get("detected_at", "")[:_TO_SECONDS].replace("T", " "),
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
