"""The tables of a rule of mode `ordered`, compared: what looks at pages and at keys say, and how one is mended.

Invariant: the second look reads target, side row, source, in this order, one key at a time (`domain/copying/looks.py`);
only first looks are gathered, since what they show may be in flight anyway.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct, field

from replicator.domain.conflicts import LogConflict
from replicator.domain.copying.contents import Kind, wanted
from replicator.domain.copying.looks import Candidate, Difference, Ended, On, Side, first_look, judge, second_look
from replicator.domain.copying.meshes import MeshCandidate, MeshDifference
from replicator.domain.copying.ordered import Extra, Mended, base_version, repair_ordered
from replicator.domain.errors import PoisonRecord
from replicator.domain.image import Image
from replicator.domain.jobs import place_name
from replicator.domain.modes.requests import Response
from replicator.domain.records import ItemKey
from replicator.domain.rules import Rule, Target
from replicator.engine.bounded import each
from replicator.engine.copying.applied import Followed
from replicator.engine.copying.handlers import JobContext
from replicator.engine.copying.region import CopyRegion
from replicator.engine.copying.witness import Log
from replicator.ports.copying import ScannedItem
from replicator.ports.lookups import MOST_KEYS
from replicator.ports.targets import Fence

_LOOKUPS_AT_ONCE = 4


class Suspect(Struct, frozen=True):
    """A key that differed, among which tables, and what was seen of it."""

    candidate: Candidate | MeshCandidate
    target: Target


class Finding(Struct, frozen=True):
    """A key that two looks agree on: how tables differ, by `region:table`; and what a repair needs of it."""

    key: ItemKey
    kinds: Mapping[str, Kind]
    target: Target
    difference: Difference | MeshDifference[Any]


class Compared(Struct):
    """What the first look at a page says. `beside`: items with caches beside them, by their target."""

    compared: int = 0
    unjudged: int = 0
    suspects: list[Suspect] = field(default_factory=list)
    beside: list[tuple[Target, ItemKey, Image]] = field(default_factory=list)


class Comparison(Protocol):
    """The tables of a rule."""

    @property
    def follows(self) -> Sequence[Followed]:
        """The targets whose progress looks wait for."""

    async def page(self, part: str, items: Sequence[ScannedItem], at: float) -> Compared:
        """Look at the items of a page of one table, and at the same keys elsewhere."""

    async def keys(self, keys: Sequence[ItemKey], at: float) -> Compared:
        """Look at some keys everywhere."""

    async def again(self, suspect: Suspect, fence: Fence, at: float) -> Finding | Suspect | Ended:
        """Look at a suspect once more; another suspect is to be looked at yet again."""

    async def mend(self, finding: Finding, log: Log, fence: Fence) -> Mended:
        """Write what a finding asks for, under the conditions of what was seen."""


async def looked_up(table: CopyRegion, keys: Sequence[ItemKey]) -> dict[ItemKey, Image]:
    """The items of any number of keys, some look-ups at once."""
    parts = [keys[start : start + MOST_KEYS] for start in range(0, len(keys), MOST_KEYS)]
    found: dict[ItemKey, Image] = {}

    async def look(part: Sequence[ItemKey]) -> None:
        found.update((await table.lookup(part)).items)

    failures = await each(parts, look, at_once=_LOOKUPS_AT_ONCE, name="look items up")
    for failure in failures:
        raise failure
    return found


class OrderedComparison:
    """A source and its replicas."""

    def __init__(self, context: JobContext, *, extra: Extra = Extra.LIST, strict: bool = False) -> None:
        """`strict`: name only what nothing in flight can explain (`looks.judge`)."""
        self._context = context
        self._strict = strict
        (self._rule,) = context.rules
        self._extra = extra
        self._source = context.regions[place_name(self._rule.source, self._rule.table)]
        among = set(context.job.targets)
        self._targets = {
            place_name(target.region, target.table): target
            for target in self._rule.targets
            if target.table is not None and target.target_id in among
        }

    @property
    def rule(self) -> Rule:
        """The rule."""
        return self._rule

    @property
    def follows(self) -> Sequence[Followed]:
        """Every replica."""
        return [(self._rule, target) for target in self._targets.values()]

    # -- first looks ---------------------------------------------------------------------------------------------------

    async def page(self, part: str, items: Sequence[ScannedItem], at: float) -> Compared:
        """Items of the source are compared with every replica; of a replica, what the source lacks is sought."""
        keys = [item.key for item in items]
        compared = Compared()
        if part in self._targets:
            target = self._targets[part]
            sources = await looked_up(self._source, keys)
            for item in items:
                if self._is_wanted(sources.get(item.key)) is not True:
                    self._first(compared, target, item.key, sources.get(item.key), item.image, at)
            return compared
        for name, target in self._targets.items():
            found = await looked_up(self._context.regions[name], keys)
            for item in items:
                if self._is_wanted(item.image) is not False:
                    self._first(compared, target, item.key, item.image, found.get(item.key), at)
        return compared

    async def keys(self, keys: Sequence[ItemKey], at: float) -> Compared:
        """Both directions at once."""
        compared = Compared()
        sources = await looked_up(self._source, keys)
        for name, target in self._targets.items():
            found = await looked_up(self._context.regions[name], keys)
            for key in keys:
                self._first(compared, target, key, sources.get(key), found.get(key), at)
        return compared

    def _is_wanted(self, source: Image | None) -> bool | None:
        """Whether the rule lets an item pass; None: that cannot be judged."""
        try:
            return wanted(self._rule, source) is not None
        except PoisonRecord:
            return None

    def _first(  # noqa: PLR0913, PLR0917 - what was seen of one key
        self, compared: Compared, target: Target, key: ItemKey, source: Image | None, found: Image | None, at: float
    ) -> None:
        try:
            candidate = first_look(self._rule, key, source, found, at, target.transform)
        except PoisonRecord:
            compared.unjudged += 1
            return
        compared.compared += 1
        if candidate is not None:
            compared.suspects.append(Suspect(candidate, target))
        if target.caches and found is not None:
            compared.beside.append((target, key, found))

    # -- later looks ---------------------------------------------------------------------------------------------------

    async def again(self, suspect: Suspect, fence: Fence, at: float) -> Finding | Suspect | Ended:
        """One key at one replica."""
        candidate, target = suspect.candidate, suspect.target
        assert isinstance(candidate, Candidate), "a suspect of this mode"
        seen = await self._drive(second_look(candidate.key), target, None, fence)
        judged = judge(self._rule, candidate, seen, at, strict=self._strict, transform=target.transform)
        if isinstance(judged, Candidate):
            return Suspect(judged, target)
        if isinstance(judged, Ended):
            return judged
        return Finding(judged.key, {_name(target): judged.kind}, target, judged)

    async def mend(self, finding: Finding, log: Log, fence: Fence) -> Mended:
        """By the table of repairs."""
        rule, difference = self._rule, finding.difference
        assert isinstance(difference, Difference), "a finding of this mode"
        stream = await self._context.applied.reads(rule, finding.target)
        steps = repair_ordered(difference, base_version(rule.epoch, stream.generation), rule.policy, self._extra)
        mended: Mended = await self._drive(steps, finding.target, log, fence)
        return mended

    async def _drive(
        self, steps: Generator[On | LogConflict, Response, Any], target: Target, log: Log | None, fence: Fence
    ) -> Any:
        sides = {Side.SOURCE: self._source, Side.TARGET: self._context.regions[_name(target)]}
        answer: Response | None = None
        while True:
            try:
                request = steps.send(answer)  # type: ignore[arg-type]
            except StopIteration as end:
                return end.value
            if isinstance(request, LogConflict):
                assert log is not None, "a look logs nothing"
                answer = await log.write(request, target, fence)
            else:
                answer = await sides[request.side].execute(request.request, fence)


def _name(target: Target) -> str:
    assert target.table is not None, "only tables are compared"
    return place_name(target.region, target.table)
