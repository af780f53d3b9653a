"""Facts about a rule of mode `versioned` or `active-active`: every region's table beside all others.

No region is the source of the others, so tables are compared with one another, and the first that exists
shows what all of them should be.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

from replicator.checks.comparison import World, index_fact, is_same_table, table_at
from replicator.checks.described_tables import Table, shown
from replicator.checks.facts import Fact, failed, ok, warning, wrong
from replicator.domain.errors import ReplicatorError
from replicator.settings import ActiveRule

if TYPE_CHECKING:
    from replicator.settings import MeshRule, Settings

STREAM_HOURS = 24
"""How long a stream keeps its records."""

_BOOTSTRAP = "Items are replicated when they are next written; older ones only by a bootstrap"


class _Member(Struct, frozen=True):
    """One region of the rule, with its table; `path` is where the configuration names it."""

    region: str
    table: Table
    path: str

    @property
    def name(self) -> str:
        """How facts speak of it."""
        return f"{self.table.name} in {self.region}"


def mesh_facts(settings: Settings, world: World, rule: MeshRule, index: int, *, thorough: bool) -> Iterator[Fact]:
    """Everything about the rule's tables that are there, and about its filter and attributes; `index`: its place."""
    members = [
        _Member(region, table, f"rules[{index}].regions[{n}]")
        for n, (region, name) in enumerate(rule.sources)
        if (table := table_at(world, region, name)) is not None and table.active
    ]
    for n, member in enumerate(members):
        yield from _distinct(rule, member, members[:n])
        if n:
            yield _same_keys(rule, member, members[0])
        if len(members) > 1:
            yield index_fact(member.table, member.region, {m.name: m.table for m in members if m is not member})
    if members:
        yield _filter_fact(rule, members[0], f"rules[{index}]")
        yield _attribute_fact(rule, members, f"rules[{index}]")
    if len(members) > 1:
        yield _data(rule, members)
    if thorough:
        yield from _expiry(world, rule, members)
        yield from _assumptions(settings, rule)


# -- schemas -------------------------------------------------------------------------------------------------------


def _distinct(rule: MeshRule, member: _Member, before: list[_Member]) -> Iterator[Fact]:
    for other in before:
        if is_same_table(member.table, other.table):
            yield wrong(
                f"table {member.name}",
                "other table",
                f"{member.path} of rule {rule.name} is the same table as {other.path} ({member.table.arn}).",
                "Name another table or another region: a table cannot be two regions of one rule.",
            )


def _same_keys(rule: MeshRule, member: _Member, first: _Member) -> Fact:
    if member.table.keys == first.table.keys:
        return ok(f"table {member.name}", "key schema", f"{shown(member.table.keys)}.")
    return wrong(
        f"table {member.name}",
        "key schema",
        f"Table {member.name} has the key {shown(member.table.keys)}, but {first.name} has {shown(first.table.keys)}.",
        f"Re-create one of them: all tables of rule {rule.name} need one key, and a key schema cannot be changed.",
    )


def _filter_fact(rule: MeshRule, member: _Member, path: str) -> Fact:
    """Whether the filter looks at key attributes only, and as what they are."""
    subject, keys = f"rule {rule.name}", dict(member.table.keys)
    wanted = [("key_prefix", attribute, "S") for attribute in rule.filter.key_prefix]
    wanted += [
        ("equals", attribute, "S" if isinstance(value, str) else "N") for attribute, value in rule.filter.equals.items()
    ]
    for condition, attribute, kind in wanted:
        where = f"{path}.filter.{condition} names {attribute}"
        if attribute not in keys:
            return wrong(
                subject,
                "filter",
                f"{where}, which is no key attribute of {member.name} ({shown(member.table.keys)}).",
                f"Name key attributes only: regions of mode {rule.mode} must decide alike about every version of an"
                " item.",
            )
        if keys[attribute] != kind:
            return wrong(
                subject,
                "filter",
                f"{where} as {kind}, but it is {keys[attribute]} in {member.name}, so nothing would ever pass.",
                "Write the value as the type that the attribute has.",
            )
    return ok(subject, "filter", "key attributes only." if wanted else "none.")


def _attribute_fact(rule: MeshRule, members: list[_Member], path: str) -> Fact:
    """Whether the attribute that orders writes can be what the rule says, in every region."""
    stamp = isinstance(rule, ActiveRule)
    attribute, kind, where = _ordering(rule)
    subject, name = f"rule {rule.name}", "stamp attribute" if stamp else "version attribute"
    for member in members:
        if attribute in dict(member.table.keys):
            return wrong(
                subject,
                name,
                f"{path}.{where} names {attribute}, which is a key attribute of {member.name}"
                f" ({shown(member.table.keys)}), so it never changes while an item lives.",
                "Name an attribute that is no key attribute.",
            )
        declared = member.table.types.get(attribute, kind)
        if declared != kind:
            return wrong(
                subject,
                name,
                f"{path}.{where} makes {attribute} {kind}, but an index of {member.name} is over {attribute}"
                f" ({declared}), so the table refuses it.",
                f"Re-create the index, or {'name another attribute' if stamp else 'correct the type'}.",
            )
    return _width_fact(rule, path, subject, name) or ok(subject, name, f"{attribute} ({kind}).")


def _width_fact(rule: MeshRule, path: str, subject: str, name: str) -> Fact | None:
    """Text that sorts by its bytes sorts as it means only while it has one width."""
    if isinstance(rule, ActiveRule) or rule.version.type == "number" or rule.version.width is not None:
        return None
    lower, higher = {"string": ("10", "9"), "time": ("12:00:00.500Z", "12:00:00Z")}[rule.version.type]
    return warning(
        subject,
        name,
        f"{path}.version makes {rule.version.attribute} a {rule.version.type} of any width: {lower} sorts below"
        f" {higher}, so a later write can lose.",
        f"Set {path}.version.width to the number of characters that every value has.",
    )


def _ordering(rule: MeshRule) -> tuple[str, str, str]:
    """(attribute, DynamoDB type, key of the configuration) of what orders two writes."""
    if isinstance(rule, ActiveRule):
        return rule.stamp, "S", "stamp"
    return rule.version.attribute, "N" if rule.version.type == "number" else "S", "version"


# -- data ----------------------------------------------------------------------------------------------------------


def _data(rule: MeshRule, members: list[_Member]) -> Fact:
    counts = [member.table.items for member in members]
    first, *others = members
    more = "".join(f", {member.name} about {member.table.items}" for member in others)
    found = f"{first.name} holds about {first.table.items}{more} items."
    if min(counts) == max(counts):
        return ok(f"rule {rule.name}", "data", found)
    return warning(f"rule {rule.name}", "data", found, f"{_BOOTSTRAP} (counts are up to 6 hours old).")


def _expiry(world: World, rule: MeshRule, members: list[_Member]) -> Iterator[Fact]:
    """Whether the time to live is on everywhere, or nowhere."""
    on: dict[str | None, list[str]] = {}
    for member in members:
        expiry = world[member.region].expiries[member.table.name]
        if isinstance(expiry, ReplicatorError):
            yield failed(f"table {member.name}", "TTL", expiry)
        else:
            on.setdefault(expiry, []).append(member.region)
    shown = "; ".join(
        f"{'off' if attribute is None else f'on {attribute}'} in {', '.join(regions)}"
        for attribute, regions in on.items()
    )
    if len(on) > 1:
        yield warning(
            f"rule {rule.name}",
            "TTL",
            f"TTL of the tables of rule {rule.name} differs: {shown}. An item that expires in one region is deleted"
            " in all.",
            "Turn TTL on in every region, on one attribute, so that items expire also while a region is cut off.",
        )
    elif on:
        yield ok(f"rule {rule.name}", "TTL", f"{shown}.")


def _assumptions(settings: Settings, rule: MeshRule) -> Iterator[Fact]:
    """What the protocol relies on and no look at tables can show."""
    subject = f"rule {rule.name}"
    kept = settings.tombstone_ttl.total_seconds() / 3600
    yield ok(
        subject,
        "tombstones",
        f"kept for {kept:g} h: {STREAM_HOURS} h of stream and {kept - STREAM_HOURS:g} h for outages and repairs. A"
        " region that lags for longer must be rebuilt.",
    )
    if isinstance(rule, ActiveRule):
        yield warning(
            subject,
            "stamps",
            f"Rule {rule.name} keeps an item's version in {rule.stamp}. Items without it, from before the start, are"
            " replicated when they are next written, and not before.",
            f"Never let an application write {rule.stamp} by itself, and strip it from imports and restores: an item"
            " that comes back with an old stamp is taken for a late copy.",
        )
