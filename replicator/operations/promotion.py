"""The loser of a conflict, written again as a user would write it.

Invariant: it is a local write like any other - without a stamp, in a region where users write, with a version above
what is there when the rule goes by versions - so the rule's mode carries it everywhere. Nothing is written unless
the item still is what the operator was shown, which the write itself demands.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, Context, Decimal
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from replicator.adapters.aws import wire
from replicator.adapters.dynamodb.expressions import as_shown
from replicator.domain.errors import EXIT_USAGE, ReplicatorError
from replicator.domain.image import Image, unreserved
from replicator.domain.modes.versioned.ranks import LOWEST, VersionAttribute, VersionType
from replicator.domain.records import ItemKey, item_key
from replicator.domain.versions import STAMP
from replicator.operations.conflict_entries import ConflictEntries
from replicator.operations.item_region import item_in, region_of, tombstone_in
from replicator.settings.rules import ActiveRule, OrderedRule, VersionedRule

if TYPE_CHECKING:
    from replicator.operations.group import Group
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
class PromotionRequest:
    """What the operator asked for. `version`: the value of the version attribute, where the mode needs one."""

    entry_id: str
    region: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Promotion:
    """A write that is ready, and what is there now: `item` None deletes."""

    entry: dict[str, Any]
    region: str
    table: str
    stamp: str
    key: ItemKey
    before: Image | None
    item: Image | None

    @property
    def seen(self) -> str:
        """A digest of what is there now, but for its stamp: as long as it stays, so does what would be replaced."""
        there = None if self.before is None else _unstamped(self.before, self.stamp)
        text = json.dumps([self.entry["id"], self.region, self.table, there], sort_keys=True)
        return sha256(text.encode()).hexdigest()


async def plan(group: Group, request: PromotionRequest) -> Promotion:
    """What would be written, and where; the group has clients of every region."""
    entries = ConflictEntries(group)
    entry = await entries.one(request.entry_id)
    rule = _rule(group.settings, entry, await entries.rule_of(entry))
    region, table = _where(rule, entry, request.region)
    for mark, what in (("loser_truncated", "was cut to fit the entry"), ("loser_masked", "has masked attributes")):
        if entry.get(mark):
            raise PromotionRefused(
                f"The loser's image {what}, so it cannot be restored.",
                advice="Write the item by hand; `replicator conflicts show` shows the part that was stored.",
            )
    _refuse_transformed(rule, entry)
    stamp = rule.stamp if isinstance(rule, ActiveRule) else STAMP
    port = region_of(group.settings, group.places[region], table)
    key = item_key(msgspec.json.encode(entry["key"]))
    before = await item_in(port, key)
    item = None
    if entry.get("loser_op") != "delete":
        if entry["loser"] is None:
            raise PromotionRefused("The entry has no image of the loser.", advice="")
        item = unreserved(Image(msgspec.json.encode(entry["loser"])), stamp)
        if isinstance(rule, VersionedRule):
            now = datetime.fromtimestamp((await group.time()).now(), UTC)
            item = _raised(rule, request.version, item, before, await tombstone_in(port, key), now)
        elif request.version is not None:
            raise PromotionRefused(f"--version has no meaning in mode {rule.mode}.", advice="Leave it out.")
    return Promotion(entry, region, table, stamp, key, before, item)


def _rule(settings: Settings, entry: dict[str, Any], name: str | None) -> RuleSettings:
    """The rule that an entry is of, by the name that it has now."""
    for rule in settings.rules:
        if rule.name == name:
            return rule if rule.choice is None else rule.on(entry["table"])
    raise PromotionRefused(
        f"The entry is one of rule {entry.get('rule')}, which is not configured.",
        advice="Add the rule, or write the item by hand: `replicator conflicts show` has it.",
    )


def _refuse_transformed(rule: RuleSettings, entry: dict[str, Any]) -> None:
    """What a replica held is not what its source would hold."""
    replicas = rule.replicas if isinstance(rule, OrderedRule) else ()
    for replica in replicas:
        if replica.transform is not None and replica.region == entry.get("loser_region"):
            raise PromotionRefused(
                f"The loser is an item of the replica in {replica.region}, whose items are transformed:"
                " the source would lose the attributes that the transform removes.",
                advice="Write the item by hand; `replicator conflicts show` shows it.",
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


def _raised(  # noqa: PLR0913, PLR0917 - what decides, given once
    rule: VersionedRule, asked: str | None, item: Image, before: Image | None, tombstone: str | None, now: datetime
) -> Image:
    """The image with a version above everything that it must beat: item, tombstone, and itself."""
    attribute = VersionAttribute(rule.version.attribute, VersionType(rule.version.type), rule.version.width)
    held = [attribute.of(image) for image in (before, item) if image is not None]
    highest = max([*held, tombstone or LOWEST])
    value = asked or _next(attribute, attribute.at_most(highest).value, now)
    if value is None:
        raise PromotionRefused(
            f"The version attribute {attribute.name} is a string, whose next value only the application knows.",
            advice="Add --version with a value above every present one.",
        )
    raised = Image(msgspec.json.encode({**item.attributes, attribute.name: {attribute.kind: value}}))
    if attribute.of(raised) <= highest:
        raise PromotionRefused(
            f"The version {value} is not above the present one, or is no version of this rule.",
            advice="Name a higher one with --version.",
        )
    return raised


def _next(attribute: VersionAttribute, highest: str | None, now: datetime) -> str | None:
    """A version above the highest: the next whole number, or now; None for strings, which only their writer counts."""
    if attribute.type is VersionType.NUMBER:
        whole = Decimal(highest or "0").to_integral_value(ROUND_FLOOR, context=_EXACT)
        return f"{_EXACT.add(whole, 1):f}"
    if attribute.type is VersionType.STRING:
        return None
    fraction = _FRACTION.search(highest or "")
    digits = len(fraction[1]) if fraction else max(0, (attribute.width or 0) - len("2026-01-01T00:00:00.Z"))
    return f"{now:%Y-%m-%dT%H:%M:%S}" + (f".{now.microsecond:06d}000"[: digits + 1] if digits else "") + "Z"


async def write(group: Group, promotion: Promotion) -> list[str]:
    """Write, if the item still is what was planned with; its stamp may change meanwhile, since a worker sets it.

    Returns the attributes that had got other values meanwhile, which are gone now.
    """
    place = group.places[promotion.region]
    shown = None if promotion.before is None else _unstamped(promotion.before, promotion.stamp)
    written = {} if promotion.item is None else promotion.item.attributes
    when = as_shown(shown, written, promotion.key.parts[0][0])
    table = b'"TableName":%b,"ReturnValues":"ALL_OLD"' % msgspec.json.encode(promotion.table)
    if promotion.item is None:
        operation, subject = "DeleteItem", b'"Key":%b' % promotion.key.wire
    else:
        operation, subject = "PutItem", b'"Item":%b' % promotion.item.wire
    what = f"{operation} on {promotion.table} in {promotion.region}"
    try:
        answer = await place.items.call(
            operation, b"{%b,%b,%b}" % (table, subject, when), None, what, TableName=promotion.table
        )
    except wire.Refusal as refusal:
        raise PromotionRefused(
            "The item has changed since it was shown; nothing was written.", advice="Run the command again to see it."
        ) from refusal
    replaced, before = wire.decoded(_ANSWER, answer.body, what).Attributes, shown or {}
    names = sorted((replaced.keys() | before.keys()) - {promotion.stamp})
    return [name for name in names if replaced.get(name) != before.get(name)]


def _unstamped(image: Image, stamp: str) -> dict[str, Any]:
    return {name: typed for name, typed in image.attributes.items() if name != stamp}
