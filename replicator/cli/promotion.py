"""`replicator conflicts promote`: the loser of a conflict, written again as a user would write it.

Invariant: it is a local write like any other - without a stamp, in a region where users write, with a version above
what stands there when the rule goes by versions - so the rule's mode carries it everywhere. Nothing is written unless
the item still is what the operator was shown, which the write itself demands.
"""

from __future__ import annotations

import asyncio
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, Context, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from replicator.adapters.aws import wire
from replicator.adapters.clients import open_places
from replicator.adapters.clock import SystemClock
from replicator.adapters.dynamodb.expressions import as_shown
from replicator.adapters.dynamodb.tables import DynamoRegion
from replicator.cli.conflicts import differences, shown_key
from replicator.cli.output import print_json, print_rows
from replicator.domain.errors import EXIT_STOPPED, EXIT_USAGE, ReplicatorError
from replicator.domain.image import Image, unreserved
from replicator.domain.modes.requests import Found, GetItem, GetTombstone
from replicator.domain.modes.versioned.ranks import LOWEST, VersionAttribute, VersionType
from replicator.domain.records import ItemKey, item_key
from replicator.domain.versions import STAMP
from replicator.operations.conflict_entries import ConflictEntries
from replicator.operations.item_copies import OPEN
from replicator.settings.loading import configuration_path, load
from replicator.settings.rules import ActiveRule, VersionedRule

if TYPE_CHECKING:
    from replicator.adapters.aws.clients import Place
    from replicator.settings import RuleSettings, Settings

_EXACT = Context(prec=38)


class _Answer(msgspec.Struct):
    """What a write replaced."""

    Attributes: dict[str, Any] = {}


_ANSWER = msgspec.json.Decoder(_Answer)
_FRACTION = re.compile(r"\.(\d+)Z$")


class PromotionRefused(ReplicatorError):
    """The loser cannot be written again."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True, slots=True)
class Choice:
    """What the operator asked for. `version`: the value of the version attribute, where the mode needs one."""

    entry_id: str
    region: str | None
    version: str | None
    yes: bool


@dataclass(frozen=True, slots=True)
class _Promotion:
    """A write that is ready: `item` None deletes."""

    region: str
    table: str
    stamp: str
    key: ItemKey
    before: Image | None
    item: Image | None


def promote_conflict(config: Path | None, choice: Choice, *, as_json: bool) -> int:
    """Show what would change, ask, and write."""
    if not choice.yes and (as_json or not sys.stdin.isatty()):
        raise PromotionRefused("Nobody can be asked here.", advice="Add --yes to write without a question.")
    return asyncio.run(_promote(load(configuration_path(config)), choice, as_json=as_json))


async def _promote(settings: Settings, choice: Choice, *, as_json: bool) -> int:
    async with open_places(settings) as places:
        entry = await ConflictEntries(settings, places).one(choice.entry_id)
        rule = _rule(settings, entry)
        region, table = _where(rule, entry, choice.region)
        place = places[region]
        wire.prepare(place.dynamodb)
        key = item_key(msgspec.json.encode(entry["key"]))
        port = _port(settings, place, table)
        promotion = await _planned(rule, entry, choice, port, key, (region, table))
        if not as_json:
            _show(entry, promotion)
        if not choice.yes and not typer.confirm(f"Write this to {table} in {region}?", err=True):
            raise PromotionRefused("Nothing was written.", advice="")
        await _write(place, promotion)
    if as_json:
        print_json(
            {
                "id": entry["id"],
                "region": region,
                "table": table,
                "key": entry["key"],
                "before": _document(promotion.before),
                "after": _document(promotion.item),
            }
        )
    else:
        sys.stdout.write(f"The loser of {entry['id'][:12]} stands in {table} in {region} again.\n")
    return EXIT_STOPPED


def _rule(settings: Settings, entry: dict[str, Any]) -> RuleSettings:
    for rule in settings.rules:
        if rule.name == entry.get("rule"):
            return rule if rule.choice is None else rule.on(entry["table"])
    raise PromotionRefused(
        f"The entry is one of rule {entry.get('rule')}, which is not configured.",
        advice="Add the rule, or write the item by hand: `replicator conflicts show` has it.",
    )


def _where(rule: RuleSettings, entry: dict[str, Any], asked: str | None) -> tuple[str, str]:
    """The region and table to write to: one where users write."""
    tables = dict(rule.sources)
    if asked is not None and asked not in tables:
        raise PromotionRefused(
            f"Users of rule {rule.name} do not write in region {asked}.", advice=f"They write in {', '.join(tables)}."
        )
    lost_in = entry.get("loser_region")
    region = asked or (lost_in if lost_in in tables else next(iter(tables)))
    return region, tables[region]


def _port(settings: Settings, place: Place, table: str) -> DynamoRegion:
    return DynamoRegion(
        place.dynamodb,
        region_id=place.region_id,
        table=table,
        side_table=settings.side_table_name,
        tombstone_ttl=settings.tombstone_ttl,
        concurrency=1,
        clock=SystemClock(),
    )


# -- what to write -------------------------------------------------------------------------------------------------


async def _planned(  # noqa: PLR0913, PLR0917 - the entry, where it goes, and what the operator said
    rule: RuleSettings,
    entry: dict[str, Any],
    choice: Choice,
    port: DynamoRegion,
    key: ItemKey,
    where: tuple[str, str],
) -> _Promotion:
    for mark, what in (("loser_truncated", "was cut to fit the entry"), ("loser_masked", "has masked attributes")):
        if entry.get(mark):
            raise PromotionRefused(
                f"The loser's image {what}, so it cannot be written again.",
                advice="Write the item by hand; `replicator conflicts show` tells what is left of it.",
            )
    stamp = rule.stamp if isinstance(rule, ActiveRule) else STAMP
    before = await _standing(port, key)
    if entry.get("loser_op") == "delete":
        return _Promotion(*where, stamp, key, before, None)
    if entry["loser"] is None:
        raise PromotionRefused("The entry has no image of the loser.", advice="")
    item = unreserved(Image(msgspec.json.encode(entry["loser"])), stamp)
    if isinstance(rule, VersionedRule):
        item = await _raised(rule, choice, port, key, before, item)
    elif choice.version is not None:
        raise PromotionRefused(f"--version has no meaning in mode {rule.mode}.", advice="Leave it out.")
    return _Promotion(*where, stamp, key, before, item)


async def _standing(port: DynamoRegion, key: ItemKey) -> Image | None:
    answer = await port.execute(GetItem(key), OPEN)
    assert isinstance(answer, Found), "an item was read"
    return answer.item


async def _raised(  # noqa: PLR0913, PLR0917 - the same
    rule: VersionedRule, choice: Choice, port: DynamoRegion, key: ItemKey, before: Image | None, item: Image
) -> Image:
    """The image with a version above everything that it must beat: item, tombstone, and itself."""
    attribute = VersionAttribute(rule.version.attribute, VersionType(rule.version.type), rule.version.width)
    answer = await port.execute(GetTombstone(key), OPEN)
    assert isinstance(answer, Found), "a tombstone was read"
    held = [attribute.of(image) for image in (before, item) if image is not None]
    highest = max([*held, answer.tombstone or LOWEST])
    value = choice.version or _next(attribute, attribute.at_most(highest).value)
    if value is None:
        raise PromotionRefused(
            f"The version attribute {attribute.name} is a string, whose next value only the application knows.",
            advice="Add --version with a value above every present one.",
        )
    raised = Image(msgspec.json.encode({**item.attributes, attribute.name: {attribute.kind: value}}))
    if attribute.of(raised) <= highest:
        raise PromotionRefused(
            f"The version {value} is not above what stands there, or is none of this rule.",
            advice="Name a higher one with --version.",
        )
    return raised


def _next(attribute: VersionAttribute, highest: str | None) -> str | None:
    """A version above the highest: the next whole number, or now; None for strings, which only their writer counts."""
    if attribute.type is VersionType.NUMBER:
        whole = Decimal(highest or "0").to_integral_value(ROUND_FLOOR, context=_EXACT)
        return f"{_EXACT.add(whole, 1):f}"
    if attribute.type is VersionType.STRING:
        return None
    fraction = _FRACTION.search(highest or "")
    digits = len(fraction[1]) if fraction else max(0, (attribute.width or 0) - len("2026-01-01T00:00:00.Z"))
    now = datetime.now(UTC)
    return f"{now:%Y-%m-%dT%H:%M:%S}" + (f".{now.microsecond:06d}000"[: digits + 1] if digits else "") + "Z"


# -- showing and writing -------------------------------------------------------------------------------------------


def _document(item: Image | None) -> Any:
    return None if item is None else item.attributes


def _show(entry: dict[str, Any], promotion: _Promotion) -> None:
    sys.stdout.write(
        f"{shown_key(entry)} in table {promotion.table} of region {promotion.region}"
        f"{' would be deleted' if promotion.item is None else ''}:\n"
    )
    rows = list(differences(_document(promotion.before), _document(promotion.item)))
    print_rows(("attribute", "now", "promoted"), rows or [("(nothing differs)", "", "")])


async def _write(place: Place, promotion: _Promotion) -> None:
    """Write, if the item still is what was shown; its stamp may change meanwhile, since the daemon sets it."""
    shown = None if promotion.before is None else _unstamped(promotion.before, promotion.stamp)
    written = () if promotion.item is None else promotion.item.attributes.keys()
    when = as_shown(shown, written, promotion.key.parts[0][0])
    table = b'"TableName":%b,"ReturnValues":"ALL_OLD"' % msgspec.json.encode(promotion.table)
    operation: Any
    if promotion.item is None:
        operation, what, subject = place.dynamodb.delete_item, "DeleteItem", b'"Key":%b' % promotion.key.wire
    else:
        operation, what, subject = place.dynamodb.put_item, "PutItem", b'"Item":%b' % promotion.item.wire
    what = f"{what} on {promotion.table} in {promotion.region}"
    try:
        answer = await wire.call(
            operation, b"{%b,%b,%b}" % (table, subject, when), None, what, TableName=promotion.table
        )
    except wire.Refusal as refusal:
        raise PromotionRefused(
            "The item has changed since it was shown; nothing was written.", advice="Run the command again to see it."
        ) from refusal
    added = wire.decoded(_ANSWER, answer, what).Attributes.keys() - {promotion.stamp, *(shown or ())}
    if added:
        sys.stderr.write(
            f"replicator: meanwhile the item had got {', '.join(sorted(added))}, which was not shown and is gone now.\n"
        )


def _unstamped(image: Image, stamp: str) -> dict[str, Any]:
    return {name: typed for name, typed in image.attributes.items() if name != stamp}
