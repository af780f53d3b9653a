"""Why the places of an item differ: attribute by attribute, what the group says of the rule, and what was logged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replicator.domain.errors import ReplicatorError
from replicator.domain.verdict.kinds import Kind, Problem
from replicator.operations.conflict_entries import EntryFilter, find
from replicator.operations.status import status

if TYPE_CHECKING:
    from replicator.operations.group import Group
    from replicator.operations.inspect import Inspection
    from replicator.operations.item_copies import ItemCopy

_ITEMS = frozenset({"source", "replica", "region"})
_MOST_LOGGED = 5
_EVERYWHERE = frozenset({Kind.COORDINATION, Kind.NO_WORKER})
"""Kinds that stop every rule."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What a place has otherwise than the place that counts: an attribute, or the whole item (None)."""

    place: str
    attribute: str | None
    how: str


@dataclass(frozen=True, slots=True)
class Reasons:
    """Problems of the rule that may explain a difference, the lag of its targets, and entries of the conflict log.

    `unknown`: why the group could not be asked.
    """

    rule: str
    problems: Sequence[Problem] = ()
    lags: Mapping[str, float | None] | None = None
    logged: Sequence[Mapping[str, Any]] = ()
    unknown: str | None = None


async def reasons(group: Group, found: Inspection, key: str) -> Reasons:
    """Everything of the rule that is known beside the item itself. What does not answer leaves its part out."""
    try:
        standing = await status(group)
        logged = await find(group, EntryFilter(found.rule.name, key, limit=_MOST_LOGGED))
    except ReplicatorError as error:
        return Reasons(found.rule.name, unknown=error.sentence)
    rule = next(rule for rule in standing.rules if rule.name == found.rule.name)
    problems = [each for each in standing.problems if each.rule == rule.name or each.kind in _EVERYWHERE]
    return Reasons(rule.name, problems, {target.target.text: target.lag_seconds for target in rule.targets}, logged)


def differences(places: Sequence[ItemCopy]) -> Iterator[Difference]:
    """How items differ from the one that counts: the source's, else the first that agrees."""
    items = [place for place in places if place.role in _ITEMS and place.trouble is None]
    first = next((place for place in items if place.role == "source" or place.agrees), None)
    if first is None:
        return
    wanted = _attributes(first)
    for place in items:
        if place.agrees is not False or place is first:
            continue
        held = _attributes(place)
        if not (held and wanted):
            yield Difference(f"{place.name} in {place.region}", None, "is absent" if wanted else "is there")
            continue
        for name in sorted({*wanted, *held}):
            if wanted.get(name) != held.get(name):
                how = "is missing" if name not in held else "is more" if name not in wanted else "has another value"
                yield Difference(f"{place.name} in {place.region}", name, how)


def _attributes(place: ItemCopy) -> dict[str, Any]:
    held = {} if place.item is None else place.item.attributes
    return {name: value for name, value in held.items() if name != place.stamp}
