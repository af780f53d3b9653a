"""Which table of a rule a command is about, when the rule chooses several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.adapters.clients import open_places
from replicator.checks.table_choices import with_tables
from replicator.domain.errors import EXIT_USAGE, ReplicatorError
from replicator.operations.group import rule_named

if TYPE_CHECKING:
    from replicator.settings import RuleSettings, Settings

_SHOWN_NAMES = 10


class TableUnclear(ReplicatorError):
    """The rule has no such table, or more than one."""

    exit_code = EXIT_USAGE


async def rule_on_table(settings: Settings, name: str, table: str | None) -> RuleSettings:
    """The rule as if it named one table: the one that is asked for, or the only one that it has."""
    rule = rule_named(settings, name)
    if rule.choice is None:
        if table not in {None, rule.table_name}:
            raise TableUnclear(f"Rule {name} is about table {rule.table_name}.", advice="Leave --table out.")
        return rule
    if table is not None:
        if not rule.choice.names(table):
            raise TableUnclear(f"Rule {name} does not choose {table}.", advice=f"It chooses {rule.choice}.")
        return rule.on(table)
    return _only_one(name, await _tables(settings, rule))


def _only_one(name: str, found: list[RuleSettings]) -> RuleSettings:
    if len(found) == 1 and found[0].choice is None:
        return found[0]
    names = [rule.table_name for rule in found if rule.choice is None]
    if not names:
        raise TableUnclear(f"Rule {name} chooses no table that is there.", advice="`replicator check` says more.")
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    raise TableUnclear(
        f"Rule {name} chooses {len(names)} tables: {', '.join(names[:_SHOWN_NAMES])}{more}.",
        advice="Name one of them with --table.",
    )


async def _tables(settings: Settings, rule: RuleSettings) -> list[RuleSettings]:
    alone = settings.model_copy(update={"rules": [rule]})
    async with open_places(settings, {rule.regions_used[0]}) as places:
        return (await with_tables(alone, places)).rules
