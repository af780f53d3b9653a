"""Rules that choose their tables as rules that name one: the same settings, once it is known which tables there are.

Invariant: an expanded rule differs from a written one in nothing but its name of a table, so code that
reads settings reads expanded ones as well. A choice that found nothing stays as it is, and reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicator.settings.model import Settings
    from replicator.settings.rules import RuleSettings

MOST_TABLES = 500
"""A rule reads so many tables at most, the first ones by their names."""


def expanded(settings: Settings, tables: Mapping[str, Collection[str]]) -> Settings:
    """The settings with a rule per table that a choice found; `tables`: these by the name of the rule."""
    rules: list[RuleSettings] = []
    for rule in settings.rules:
        found = sorted(tables.get(rule.name, ()))[:MOST_TABLES] if rule.choice else []
        rules += [rule.on(table) for table in found] or [rule]
    return settings.model_copy(update={"rules": rules})


def choosing(settings: Settings) -> dict[str, RuleSettings]:
    """Rules that choose their tables, by name."""
    return {rule.name: rule for rule in settings.rules if rule.choice is not None}
