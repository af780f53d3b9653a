"""Rules of a changed configuration, looked at as before a start, and then run beside those that run already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from replicator.app.vouching import Premises, Sight, examine
from replicator.checks.verdicts import verdict
from replicator.checks.world import look
from replicator.domain.errors import ReplicatorError, Unreachable

if TYPE_CHECKING:
    from replicator.app.held_rules import HeldRules
    from replicator.app.table_discovery import TableWatch
    from replicator.settings import RuleSettings, Settings
    from replicator.settings.changes import Changes


@dataclass(frozen=True, slots=True)
class Uptake:
    """What runs rules, and `use`, which lets the rules of now run."""

    premises: Premises
    watch: TableWatch
    held: HeldRules
    use: Callable[[], None]

    async def take_up(self, wanted: Settings, found: Changes) -> Sequence[ReplicatorError]:
        """Run the rules of these settings; returns what forbids it, and then nothing changed.

        A rule that a start would hold is refused here: its world is wrong, or does not say whether it is.
        """
        rules = [rule for rule in wanted.rules if rule.name in {*found.added, *found.changed}]
        world = await look(wanted.model_copy(update={"rules": rules}), self.premises.places, thorough=False)
        sight = Sight(wanted, world)
        # Everything that only looks comes first: a claim on a table stays noted.
        wrong = [error for rule in rules for error in _seen(sight, rule)]
        premises = replace(self.premises, settings=wanted)
        for rule in rules if not wrong else ():
            wrong += [hold.error for hold in (await examine(premises, sight, rule)).holds]
        if not wrong:
            self.watch.rewritten(wanted)
            self.held.rewritten(wanted)
            self.use()
        return wrong


def _seen(sight: Sight, rule: RuleSettings) -> list[ReplicatorError]:
    found = verdict(sight.settings, sight.world, rule)
    if found.silent:
        advice = "It is tried again once a minute, and with `replicator reload`."
        return [Unreachable(f"Not everything answers that rule {rule.name} needs.", advice=advice)]
    return [fact.error for fact in ([found.rule] if found.rule else [*found.targets.values()])]
