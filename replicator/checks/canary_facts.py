"""Facts about a rule's canary: whether the tables that it is written in take its key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from replicator.checks.comparison import World, table_at
from replicator.checks.described_tables import shown
from replicator.checks.facts import Fact, ok, wrong
from replicator.domain.canary import PREFIX, refusal

if TYPE_CHECKING:
    from replicator.settings import RuleSettings


def canary_facts(world: World, rule: RuleSettings, index: int) -> Iterator[Fact]:
    """One fact per table; `index` is the rule's place in the configuration."""
    for region, name in rule.sources:
        table = table_at(world, region, name)
        if table is None:
            continue
        subject, why = f"table {name} in {region}", refusal(table.keys)
        if why is None:
            yield ok(subject, "canary", f"its key ({shown(table.keys)}) takes {PREFIX}{rule.name}#{region}.")
        else:
            yield wrong(
                subject,
                "canary",
                f"Table {name} in {region} takes no canary of rule {rule.name}: {why}.",
                f"Take rules[{index}].canary away.",
            )
