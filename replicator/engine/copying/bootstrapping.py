"""Bootstrap: what stood in a table before its stream is brought to where the stream's changes go.

Invariants: everything is written below every record of the stream, so a record always wins, whatever the order; in mode
`ordered` a page is written only when the target has passed the moment at which it was read, so that no reader sees old
after new. What a target refuses for good is counted and noted, and the verification that follows names it again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Generator, Sequence
from typing import Any

import msgspec

from replicator.domain.conflicts import LogConflict
from replicator.domain.copying.active_active import seed_active
from replicator.domain.copying.contents import wanted
from replicator.domain.copying.ordered import base_version, seed_ordered
from replicator.domain.copying.versioned import seed_versioned
from replicator.domain.errors import PoisonRecord, ReplicatorError, Unreachable
from replicator.domain.image import Image
from replicator.domain.item_size import LARGEST_ITEM, STAMP_BYTES, excess
from replicator.domain.jobs import ITEMS, Counts, Job, JobKind, Part, Segment, place_name
from replicator.domain.modes.active_active.mesh import Mesh
from replicator.domain.modes.ordered import Effect, Outcome
from replicator.domain.modes.requests import At
from replicator.domain.modes.versioned.replicate import VersionedMesh
from replicator.domain.owed_keys import is_refusal
from replicator.domain.records import ItemKey
from replicator.domain.rules import ActivePlan, Rule, Target, VersionedPlan
from replicator.domain.transforms import shaped
from replicator.domain.values import replace
from replicator.engine.copying.applied import Followed
from replicator.engine.copying.handlers import JobContext, Look
from replicator.engine.copying.witness import Log
from replicator.engine.waiting import Stopped
from replicator.ports.copying import ScannedItem
from replicator.ports.targets import Fence

_ITEMS_AT_ONCE = 64
"""Items of one page that are in hand at once; how many requests a table takes is bounded beside that."""

MOST_NOTES = 1000
"""Refused items that one worker notes; more are only counted."""

_COUNTED = {Effect.APPLIED: "copied", Effect.STALE: "newer"}


class Bootstrap:
    """What both kinds of bootstraps share: items of a page side by side, and what is said of those that are refused."""

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._rules = {place_name(rule.source, rule.table): rule for rule in context.rules}
        self._noted = 0

    async def _each(self, items: Sequence[ScannedItem], act: Any, counts: Counter[str]) -> None:
        """Act on every item; what is refused for good is counted, anything else ends the page behind those in hand."""
        left = iter(items)
        failed: list[ReplicatorError | Stopped] = []

        async def some() -> None:
            for item in left:
                if failed:
                    return
                try:
                    await act(item)
                except ReplicatorError as error:
                    if is_refusal(error):
                        await self._refused(item.key, error, counts)
                    else:
                        failed.append(error)
                except Stopped as stopped:
                    failed.append(stopped)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(_ITEMS_AT_ONCE, len(items))):
                group.create_task(some(), name="bring items")
        for error in failed:
            raise error

    async def _refused(self, key: ItemKey, error: ReplicatorError, counts: Counter[str]) -> None:
        counts["refused"] += 1
        if self._noted < MOST_NOTES:
            self._noted += 1
            said = {"key": msgspec.json.decode(key.wire), "kind": "refused", "why": error.message}
            await self._context.jobs.note(self._context.job.job_id, {f"refused|{key.side_key('')}": said})

    async def finish(self, job: Job, counts: Counts) -> Job | None:
        """A bootstrap ends with a verification, unless it was asked to leave that out."""
        del counts
        if not job.options.get("verify", True):
            return None
        tables = [Part(name, job.options.get("segments", 1)) for name in job.options.get("compared", ())]
        kept = {name: job.options[name] for name in ("extra", "read_units", "write_units") if name in job.options}
        return replace(
            job,
            job_id=f"{job.job_id}-verify",
            kind=JobKind.VERIFY,
            parts=tuple(tables) or job.parts,
            options={**kept, "of": job.job_id},
            items=job.items * max(1, len(tables)),
            created_at=self._context.clock.now(),
            note="",
        )


class OrderedBootstrap(Bootstrap):
    """Mode `ordered`: one scan of the source, for every replica that the job is about."""

    def __init__(self, context: JobContext) -> None:
        super().__init__(context)
        (self._rule,) = context.rules
        chosen = set(context.job.targets)
        self._targets = [target for target in self._rule.targets if target.target_id in chosen]
        self._log = Log(context, self._rule)
        self._source = place_name(self._rule.source, self._rule.table)

    @property
    def follows(self) -> Sequence[Followed]:
        """The replicas."""
        return [(self._rule, target) for target in self._targets]

    async def look(self, segment: Segment, position: str | None) -> Look:
        """Read a page, and leave out what the filter does."""
        page = await self._context.regions[self._source].scan(segment.index, segment.of, position)
        counts = Counter({ITEMS: len(page.items)})
        at = self._context.clock.now() if page.at is None else page.at
        return Look(page.after, at, await self._passing(page.items, counts), counts)

    async def _passing(self, found: Sequence[ScannedItem], counts: Counter[str]) -> list[ScannedItem]:
        """What the rule wants at its replicas."""
        items: list[ScannedItem] = []
        for item in found:
            try:
                image = wanted(self._rule, item.image)
            except PoisonRecord as error:
                await self._refused(item.key, error, counts)
                continue
            if image is None:
                counts["filtered"] += 1
            else:
                items.append(ScannedItem(item.key, image))
        return items

    async def act(self, segment: Segment, look: Look, fence: Fence) -> Counts:
        """Bring a page to every replica."""
        del segment
        if not look.passed:
            raise Unreachable("No worker replicates, so nothing is copied.", advice="Start `replicator run`.")
        counts: Counter[str] = Counter()
        for target in self._targets:
            await self._bring(target, look.work, fence, counts)
        return counts

    async def _bring(self, target: Target, items: Sequence[ScannedItem], fence: Fence, counts: Counter[str]) -> None:
        rule = self._rule
        ports = self._context.targets[rule.source, target.target_id]
        await ports.gate.passed(self._context.stop)
        reads = await self._context.applied.reads(rule, target)
        base = base_version(rule.epoch, reads.generation)
        answered: list[Image] = []

        async def one(item: ScannedItem) -> None:
            image = shaped(target.transform, item.key, item.image)
            _check_size(image)
            outcome = await self._drive(seed_ordered(item.key, image, base, rule.policy), target, fence)
            counts[_COUNTED[outcome.effect]] += 1
            counts["adopted"] += outcome.adopted
            answered.append(image)

        await self._each(items, one, counts)
        # Of what was there already, too: it may be of this job, which was cut off before it came to the caches.
        for cache in target.caches:
            keys = {key for image in answered for key in cache.key.keys(image)}
            await ports.caches[cache.cache].apply([cache.drop(key) for key in sorted(keys)], fence)

    async def _drive(self, steps: Generator[Any, Any, Outcome], target: Target, fence: Fence) -> Outcome:
        assert target.table is not None, "only replicas are copied to"
        region = self._context.regions[place_name(target.region, target.table)]
        response: Any = None
        while True:
            try:
                request = steps.send(response)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome
            if isinstance(request, LogConflict):
                response = await self._log.write(request, target, fence)
            else:
                response = await region.execute(request, fence)


class MeshBootstrap(Bootstrap):
    """Modes `versioned` and `active-active`: every region is scanned, and its items are brought to the others."""

    @property
    def follows(self) -> Sequence[Followed]:
        """The mesh as it stands on the stream of each region: nothing waits for it, but the job rests with it."""
        return [(rule, rule.targets[0]) for rule in self._context.rules]

    async def look(self, segment: Segment, position: str | None) -> Look:
        """Read a page of one region."""
        page = await self._context.regions[segment.part].scan(segment.index, segment.of, position)
        rule = self._rules[segment.part]
        items = [item for item in page.items if rule.filter.matches(item.image)]
        return Look(page.after, None, items, {ITEMS: len(page.items), "filtered": len(page.items) - len(items)})

    async def act(self, segment: Segment, look: Look, fence: Fence) -> Counts:
        """Bring a page to the other regions."""
        rule, counts = self._rules[segment.part], Counter[str]()
        log, target = Log(self._context, rule), rule.targets[0]

        async def one(item: ScannedItem) -> None:
            if await self._drive(self._steps(rule, item), rule, target, log, fence, counts) is not False:
                counts["copied"] += 1
            else:
                counts["newer"] += 1

        await self._each(look.work, one, counts)
        return counts

    @staticmethod
    def _steps(rule: Rule, item: ScannedItem) -> Generator[Any, Any, Any]:
        match rule.mesh:
            case VersionedPlan(others, version):
                return seed_versioned(VersionedMesh(rule.source, others, version), item.key, item.image)
            case ActivePlan(others, policy):
                return seed_active(Mesh(rule.source, others, 0, policy), item.key, item.image)
            case _:
                raise AssertionError("a rule of mode ordered has no mesh")

    async def _drive(  # noqa: PLR0913, PLR0917 - one step's surroundings
        self,
        steps: Generator[Any, Any, Any],
        rule: Rule,
        target: Target,
        log: Log,
        fence: Fence,
        counts: Counter[str],
    ) -> Any:
        tables = dict(rule.members)
        response: Any = None
        while True:
            try:
                request = steps.send(response)
            except StopIteration as end:
                return end.value
            if isinstance(request, LogConflict):
                counts["conflicts"] += 1
                response = await log.write(request, target, fence)
            else:
                assert isinstance(request, At), "a copier neither waits nor looks ahead"
                region = self._context.regions[place_name(request.region, tables[request.region])]
                response = await region.execute(request.request, fence)


def _check_size(image: Image) -> None:
    size = excess(image, STAMP_BYTES)
    if size is not None:
        raise PoisonRecord(f"The item has {size} bytes with its version, and no table takes more than {LARGEST_ITEM}.")
