"""What is held, for as long as the daemon runs: looked at again and again, and let go when its world is mended.

A rule that was held at the start is not run until its source, its stream and its claims are in order. A rule that runs
is never stopped from here: what its stream still holds is to be read. Only the gates of single targets are closed, when
a table is not what it was. Invariant: what does not answer changes nothing; what is not held any more was looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from replicator.app.preflight import Start, unchosen
from replicator.app.rule_preflight import Findings, Premises, Sight, examine, gates_of, rule_id
from replicator.checks.world import look
from replicator.domain.errors import NewerLayout, ReplicatorError
from replicator.domain.held import HeldId, Hold
from replicator.domain.values import replace
from replicator.engine.waiting import pause_for_any
from replicator.ports.services import ServiceId, ServiceKind
from replicator.settings.compiled_rules import rule_per_source

if TYPE_CHECKING:
    from replicator.domain.rules import Rule
    from replicator.engine.applying.gate import Gates
    from replicator.settings import RuleSettings, Settings

_BREATH_SECONDS = 1.0
"""Time between two looks at least, whatever is doubted."""

_RULES_PER_LOOK = 100
"""So many rules that run are looked at in one look, in turn; what is held is looked at every time."""


class Told(Protocol):
    """What hears of holds."""

    def held(self, holds: Sequence[Hold]) -> None:
        """These are held now, and nothing else."""

    def service_failed(self, service: ServiceId, error: ReplicatorError) -> None:
        """A look failed."""

    def service_recovered(self, service: ServiceId) -> None:
        """And the next one did not."""


class HeldRules:
    """What is held: reported, and kept from running."""

    def __init__(
        self, premises: Premises, start: Start, gates: Gates, observer: Told, written: Callable[[], Settings]
    ) -> None:
        """`written`: the settings with the tables of now, whether they are held or not."""
        self._premises = premises
        self._gates = gates
        self._observer = observer
        self._written = written
        self._seconds = premises.settings.coordination.held.total_seconds()
        self._holds: dict[HeldId, Hold] = {}
        self._resting: set[HeldId] = set()
        """Rules that do not run."""
        self._turn = 0
        for hold in start.holds:
            self._hold(hold)
        self._resting = {hold.held for hold in start.holds if hold.held.target is None}
        self._observer.held(list(self._holds.values()))

    def rewritten(self, settings: Settings) -> None:
        """The configuration is another one from now on; what is not in it any more is not held."""
        self._premises = replace(self._premises, settings=settings)
        names = {rule.name for rule in settings.rules}
        self._holds = {each: hold for each, hold in self._holds.items() if each.rule in names}
        self._resting = {each for each in self._resting if each.rule in names}
        self._observer.held(list(self._holds.values()))

    def running(self, settings: Settings) -> Settings:
        """The settings without the rules that are held."""
        rules = [rule for rule in settings.rules if not rule.sources or rule_id(rule) not in self._resting]
        return settings.model_copy(update={"rules": rules})

    def resting(self, settings: Settings) -> list[Rule]:
        """The rules that are held, once per source that they would read."""
        rules = [rule for rule in settings.rules if rule.sources and rule_id(rule) in self._resting]
        return [seen for rule in rules for seen in rule_per_source(settings, rule)]

    async def run(self, use: Callable[[], None]) -> None:
        """Look again and again until cancelled; `use` is called when other rules run than before."""
        service = ServiceId(ServiceKind.HELD)
        while True:
            await asyncio.sleep(_BREATH_SECONDS)
            await pause_for_any(self._seconds - _BREATH_SECONDS, self._gates.doubted)
            self._gates.doubted.clear()
            before = set(self._resting)
            try:
                await self.look()
                self._observer.service_recovered(service)
            except NewerLayout:
                raise
            except ReplicatorError as error:
                self._observer.service_failed(service, error)
            if self._resting != before:
                use()

    async def look(self) -> None:
        """Look once at everything that is held, and at some of what is not.

        What is seen of a configuration that is another one by then says nothing.
        """
        settings, premises = self._written(), self._premises
        ids = {rule_id(rule): _ids(settings, rule) for rule in settings.rules if rule.sources}
        shut = {each for some in ids.values() for each in some if each.target and self._gates.of(each).error}
        held = {whole for whole, some in ids.items() if not (shut | self._holds.keys()).isdisjoint(some)}
        rules = list(self._due(settings, held))
        world = await look(settings.model_copy(update={"rules": rules}), premises.places, thorough=False)
        if self._premises is not premises:
            return
        sight = Sight(settings, world)
        for rule in rules:
            whole = rule_id(rule)
            runs = whole not in self._resting
            # What was refused to a target is asked for again as before a start.
            found = await examine(premises, sight, rule, runs=runs, admitted=runs and whole not in held)
            if self._premises is not premises:
                return
            self._take(ids[whole], found, shut)
        known = {each for some in ids.values() for each in some}
        for each in [each for each in self._holds if each not in known]:
            del self._holds[each]  # it is not replicated any more
        self._holds |= {hold.held: hold for hold in unchosen(self._premises.finder.failed)}
        self._observer.held(list(self._holds.values()))

    def _due(self, settings: Settings, held: Collection[HeldId]) -> Iterator[RuleSettings]:
        """What is held, and the next rules of those that run."""
        rules = [rule for rule in settings.rules if rule.sources]
        others = [rule for rule in rules if rule_id(rule) not in held]
        self._turn = self._turn % len(others) if others else 0
        yield from (rule for rule in rules if rule_id(rule) in held)
        yield from (others + others)[self._turn : self._turn + min(_RULES_PER_LOOK, len(others))]
        self._turn += _RULES_PER_LOOK

    # -- what was found ------------------------------------------------------------------------------------------------

    def _take(self, ids: Iterable[HeldId], found: Findings, shut: Collection[HeldId]) -> None:
        """Let go what is mended, and hold what is wrong, as far as it was seen."""
        now = {hold.held: hold for hold in found.holds}
        for each in ids:
            if each in now:
                self._hold(now[each])
            elif each.target not in found.silent:
                self._let_go(each, shut)

    def _hold(self, hold: Hold) -> None:
        self._holds[hold.held] = hold
        if hold.held.target is not None:
            self._gates.of(hold.held).close(hold.error)

    def _let_go(self, each: HeldId, shut: Collection[HeldId]) -> None:
        """It is not held; `shut`: gates that were closed before the look. What was doubted since is looked at again."""
        self._holds.pop(each, None)
        self._resting.discard(each)
        if each in shut:
            self._gates.of(each).open()


def _ids(settings: Settings, rule: RuleSettings) -> list[HeldId]:
    """What can be held of a rule: all of it, and what has a gate."""
    return [rule_id(rule), *gates_of(settings, rule)] if rule.sources else []
