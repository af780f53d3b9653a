"""Rules of a changed configuration, looked at as before a start, and then run beside those that run already."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.app.rule_preflight import Premises, Sight, examine
from replicator.checks.table_choices import TableFinder
from replicator.checks.verdicts import verdict
from replicator.checks.world import look
from replicator.domain.errors import ReplicatorError, Unreachable, WorldMismatch
from replicator.domain.identifiers import RegionId, TableName
from replicator.domain.values import replace
from replicator.settings import choosing

if TYPE_CHECKING:
    from replicator.app.held_rules import HeldRules
    from replicator.app.job_worlds import JobPlaces
    from replicator.app.openings import More, Openings
    from replicator.app.table_discovery import TableWatch
    from replicator.app.wiring import Assembly
    from replicator.settings import RuleSettings, Settings
    from replicator.settings.changes import Changes


@dataclass(frozen=True, slots=True)
class ReloadedRules:
    """What runs rules, and `use`, which lets the rules of now run."""

    premises: Premises
    openings: Openings
    assembly: Assembly
    watch: TableWatch
    held: HeldRules
    for_jobs: JobPlaces
    use: Callable[[], None]
    before: Callable[[], Settings]
    """The settings in force."""

    async def take_up(self, wanted: Settings, found: Changes) -> Sequence[ReplicatorError]:
        """Run the rules of these settings; returns what forbids it, and then nothing changed.

        A rule that a start would hold is refused here: its world is wrong, or does not say whether it is. So is what
        has a fault of whatever kind: at a start it ends the process, here it must not end what runs.
        """
        new = {name: rule for name, rule in choosing(wanted).items() if name in found.added}
        async with AsyncExitStack() as opened:
            try:
                more = await opened.enter_async_context(self.openings.beyond(wanted))
                wrong = await self._forbids(wanted, found, new)
            except ReplicatorError as error:
                return [error]
            except Exception as error:  # noqa: BLE001 - the boundary: nothing was changed yet
                return [_fault(error)]
            if not wrong:
                async with self.watch.turn:
                    self._rewrite(wanted, found, more)
                more.keep()
                self.use()
        if new and not wrong:
            await self.watch.look_again()  # what is wrong with one table leaves out that one
            self.use()
        return wrong

    async def kept(self, found: Changes) -> list[ReplicatorError]:
        """Why rules that are gone from the file cannot be taken out; nothing is changed."""
        return [error for name in found.removed for error in await self._left_behind(name)]

    async def _forbids(
        self, wanted: Settings, found: Changes, new: Mapping[str, RuleSettings]
    ) -> list[ReplicatorError]:
        """Look at everything, and say what forbids to go on; `new`: rules that came and choose their tables."""
        wrong = await self.kept(found)
        wrong += await self._looked_at(wanted, {*found.added, *found.changed}) if not wrong else []
        if new and not wrong:
            look_for = wanted.model_copy(update={"rules": [*new.values()]})
            wrong += (await TableFinder(look_for, self.premises.places).look()).failed.values()
        return wrong

    def _rewrite(self, wanted: Settings, found: Changes, more: More) -> None:
        for name in found.removed:
            self.openings.forget(name)
        self.assembly.take_in(wanted, more.caches, more.sinks)
        self.for_jobs.rewritten(wanted)
        self.watch.rewritten(wanted)
        self.held.rewritten(wanted)

    async def _looked_at(self, wanted: Settings, names: Collection[str]) -> list[ReplicatorError]:
        """What is wrong with rules that came or changed."""
        if not names:
            return []
        expanded = self.watch.with_tables(wanted)
        rules = [rule for rule in expanded.rules if rule.name in names and rule.sources]
        world = await look(expanded.model_copy(update={"rules": rules}), self.premises.places, thorough=False)
        sight = Sight(expanded, world)
        # Everything that only looks comes first: a claim on a table stays noted.
        wrong = [error for rule in rules for error in _seen(sight, rule)]
        premises = replace(self.premises, settings=wanted)
        for rule in rules if not wrong else ():
            wrong += [hold.error for hold in (await examine(premises, sight, rule)).holds]
        return wrong

    async def _left_behind(self, name: str) -> list[ReplicatorError]:
        """Why a rule cannot be taken out: its progress would be orphaned, which a start refuses to hide."""
        registry, settings = self.premises.registry, self.watch.with_tables(self.before())
        sources = [source for rule in settings.rules if rule.name == name for source in rule.sources]
        for region, table in sources:
            for known in await registry.streams(RegionId(region), TableName(table)):
                if any(start.rule == name for start in (await registry.starts(known.ref)).values()):
                    advice = f"`replicator pause {name}` pauses it; restart the workers to remove it."
                    return [
                        WorldMismatch(f"Rule {name} has progress, so it is not removed while it runs.", advice=advice)
                    ]
        return []


def _seen(sight: Sight, rule: RuleSettings) -> list[ReplicatorError]:
    found = verdict(sight.settings, sight.world, rule)
    if found.silent:
        advice = "The worker retries once a minute, and on `replicator reload`."
        return [Unreachable(f"Not everything answers that rule {rule.name} needs.", advice=advice)]
    return [fact.error for fact in ([found.rule] if found.rule else [*found.targets.values()])]


def _fault(error: Exception) -> ReplicatorError:
    """The kind of a fault; its message may hold values."""
    return ReplicatorError(
        f"A look at what it says ended with a fault ({type(error).__name__}).",
        advice="`replicator check` with the same file may name the cause. It is tried again once a minute.",
    )
