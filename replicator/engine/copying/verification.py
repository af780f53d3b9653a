"""Verify, repair, resync and sweep: compare pages, look again at what differs, and mend it where that is asked for.

Invariants: nothing counts as a difference, and nothing is written, before a second look in order agrees with the first;
a write counts on a look only while no lease of the rule was taken from a silent worker around it (`fences.stands`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from replicator.domain.copying.contents import Kind
from replicator.domain.copying.fences import stands, stands_at
from replicator.domain.copying.looks import MOST_LOOKS, Difference, Ended
from replicator.domain.copying.meshes import MeshDifference, Missing
from replicator.domain.copying.ordered import Extra, Mended
from replicator.domain.errors import ReplicatorError
from replicator.domain.image import Image
from replicator.domain.jobs import ITEMS, Counts, Job, JobKind, Segment
from replicator.domain.owed_keys import OwedKey, Settlement, is_refusal
from replicator.domain.records import ItemKey, item_key
from replicator.domain.values import replace
from replicator.engine.applying.parking import Parking
from replicator.engine.bounded import each, raise_first
from replicator.engine.copying.applied import Followed
from replicator.engine.copying.cache_looks import CacheLooks, Entries
from replicator.engine.copying.comparing import Comparison, Finding, OrderedComparison, Suspect
from replicator.engine.copying.comparing_meshes import MeshComparison
from replicator.engine.copying.handlers import Handler, JobContext, Look
from replicator.engine.copying.witness import Log
from replicator.engine.waiting import pause_or_raise
from replicator.ports.targets import Fence

KEYS = "keys"
"""The part of a job that looks at named keys instead of tables."""

KEYS_PER_LOOK = 100
MOST_NOTES = 10_000
"""Differences of a job that one worker notes; more are only counted."""

_LOOKS_AT_ONCE = 16
_ENCODE = msgspec.json.Encoder().encode
_ALL = frozenset(Kind)
_NONE = frozenset[Kind]()


_Owed = Sequence[tuple[Parking, OwedKey]]
"""Open rows of a key, and where."""


class _Page(msgspec.Struct, frozen=True):
    suspects: Sequence[Suspect]
    entries: Entries


class Verification:
    """One job in one worker."""

    def __init__(self, context: JobContext, mends: AbstractSet[Kind]) -> None:
        """`mends`: the kinds of differences that are mended; the others are noted."""
        options = context.job.options
        extra = Extra(options.get("extra", Extra.LIST))
        self._context = context
        self._mends = mends
        self._kept = {Kind.EXTRA} if extra is Extra.KEEP else set[Kind]()
        self._prefix, self._prefix_of = options.get("prefix"), options.get("prefix_of")
        self._keys = [item_key(_ENCODE(key)) for key in options.get(KEYS, ())]
        rule = context.rules[0]
        self._comparison: Comparison = (
            OrderedComparison(context, extra=extra, strict=mends != _ALL)
            if rule.mesh is None
            else MeshComparison(context, missing=Missing(options.get("missing", Missing.KEEP)))
        )
        self._log = Log(context, rule)
        funnels = {name: funnel for ports in context.targets.values() for name, funnel in ports.caches.items()}
        self._caches = CacheLooks(rule, funnels, context.clock, context.stop)
        self._parkings = [parking for ports in context.targets.values() for parking in ports.parkings]
        self._loading = asyncio.Lock()
        self._loaded = False
        self._noted = 0

    @property
    def follows(self) -> Sequence[Followed]:
        """The targets that are compared."""
        return self._comparison.follows

    # -- the first look ------------------------------------------------------------------------------------------------

    async def look(self, segment: Segment, position: str | None) -> Look:
        """Compare the page behind a position."""
        if segment.part == KEYS:
            return await self._look_at_keys(segment, int(position or 0))
        await self._let_forgotten_ones_end(segment)
        page = await self._context.regions[segment.part].scan(segment.index, segment.of, position)
        scanned = self._context.clock.monotonic()
        items = [item for item in page.items if self._is_within(item.key)]
        at = self._context.clock.now() if page.at is None else page.at
        compared = await self._comparison.page(segment.part, items, at)
        # What was brought to a table until its items were looked up must have been passed, too.
        at += self._context.clock.monotonic() - scanned
        return await self._looked(page.after, at, compared, len(page.items))

    async def _look_at_keys(self, segment: Segment, first: int) -> Look:
        keys = self._keys[first : first + KEYS_PER_LOOK]
        after = first + len(keys)
        await self._let_forgotten_ones_end(segment)
        at = self._context.clock.now()
        compared = await self._comparison.keys(keys, at)
        at = self._context.clock.now()
        return await self._looked(str(after) if after < len(self._keys) else None, at, compared, len(keys))

    async def _looked(self, after: str | None, at: float, compared: Any, items: int) -> Look:
        entries = await self._caches.look(compared.beside)
        counts = {ITEMS: items, "compared": compared.compared, "unjudged": compared.unjudged}
        counts |= {"entries": entries.checked, "opaque": entries.opaque}
        return Look(after, at if compared.suspects else None, _Page(compared.suspects, entries), counts)

    async def _let_forgotten_ones_end(self, segment: Segment) -> None:
        """Before a look that may mend: a silent worker, or the silent owner of the segment, may still write.

        That holds for a key at which nothing differs, too: a worker that is forgotten may put an older record there.
        """
        if self._mends:
            zombie = self._context.applied.zombie_seconds
            until = max(stands_at(await self._seized_at(), zombie), stands_at(segment.seized_at, zombie))
            if until > self._context.clock.now():
                await pause_or_raise(self._context.stop, until - self._context.clock.now())

    def _is_within(self, key: ItemKey) -> bool:
        """Whether the partition key begins as asked for. Parts of a key are in the order of their names."""
        partition = next((value for name, _, value in key.parts if name == self._prefix_of), key.parts[0][2])
        return self._prefix is None or partition.startswith(self._prefix)

    # -- later looks ---------------------------------------------------------------------------------------------------

    async def act(self, segment: Segment, look: Look, fence: Fence) -> Counts:
        """Look again at what differed; note it, or mend it."""
        del segment
        page: _Page = look.work
        counts: Counter[str] = Counter() if look.passed else Counter(alone=1)
        todo = list(page.suspects)
        looks = 0
        while todo:
            looks += 1
            at, again = self._context.clock.now(), list[Suspect]()

            async def one(suspect: Suspect, at: float = at, again: list[Suspect] = again) -> None:
                left = await self._again(suspect, fence, at, counts)
                if left is not None:
                    again.append(left)

            raise_first(await each(todo, one, at_once=_LOOKS_AT_ONCE, name="look at a key again"))
            if looks >= MOST_LOOKS:
                counts["moving"] += len(again)
                break
            todo = again
            if todo:
                await self._pass(at, counts)
        await self._judge_entries(page.entries.stale, fence, counts)
        return counts

    async def _pass(self, at: float, counts: Counter[str]) -> None:
        for followed in self.follows:
            if not await self._context.applied.passed(followed, at, self._context.stop):
                counts["alone"] += 1

    async def _again(self, suspect: Suspect, fence: Fence, at: float, counts: Counter[str]) -> Suspect | None:
        """Look at a key again; returns what is to be looked at once more."""
        # Before the look, which may not show what becomes owed behind it.
        owed = await self._owed(suspect.candidate.key)
        found = await self._comparison.again(suspect, fence, at)
        if isinstance(found, Suspect):
            return found
        if isinstance(found, Ended):
            counts["moving"] += found is Ended.MOVING
            return None
        return await self._found(suspect, found, owed, fence, at, counts)

    async def _found(  # noqa: PLR0913, PLR0917 - what is known of one key
        self, suspect: Suspect, finding: Finding, owed: _Owed, fence: Fence, at: float, counts: Counter[str]
    ) -> Suspect | None:
        kinds = set(finding.kinds.values())
        if kinds <= self._kept:
            counts["kept"] += 1
            return None
        if kinds <= self._mends:
            return await self._mend(suspect, finding, owed, fence, at, counts)
        if finding.kinds.keys() <= {parking.to.target_id.name for parking, _ in owed}:
            counts["parked"] += 1
            return None
        await self._note(finding, counts)
        return None

    async def _note(self, finding: Finding, counts: Counter[str], **more: str) -> None:
        """Keep a difference; by name, so that it is one however often it is found."""
        counts["differences"] += len(finding.kinds)
        notes = {}
        for name, kind in finding.kinds.items():
            counts[kind] += 1
            key = msgspec.json.decode(finding.key.wire)
            notes[finding.key.side_key(name)] = {"key": key, "kind": kind, "target": name, **more}
        if self._noted < MOST_NOTES:
            self._noted += len(notes)
            await self._context.jobs.note(self._context.job.job_id, notes)

    async def _judge_entries(self, stale: Sequence[Any], fence: Fence, counts: Counter[str]) -> None:
        stale = await self._caches.again(stale)
        counts["stale"] += len(stale)
        if stale and self._mends:
            await self._caches.drop(stale, fence)
            counts["invalidated"] += len(stale)

    # -- mending -------------------------------------------------------------------------------------------------------

    async def _mend(  # noqa: PLR0913, PLR0917 - what is known of one key
        self, suspect: Suspect, finding: Finding, owed: _Owed, fence: Fence, at: float, counts: Counter[str]
    ) -> Suspect | None:
        """Mend a difference, or note why not; a suspect that is to be looked at anew."""
        if not await self._stands(at):
            return suspect
        # The version stays the same and no record follows, so nothing else would show that entries are stale.
        entries = finding.target, _images(finding), fence
        hold = await self._caches.hold_of(*entries, after=self._context.applied.zombie_seconds)
        try:
            mended = await self._comparison.mend(finding, self._log, hold)
        except ReplicatorError as error:
            if not is_refusal(error):
                raise  # it may be there all the same
            hold.release()
            counts["refused"] += 1
            await self._note(finding, counts, why=error.message)
            return None
        if mended is not Mended.LEFT:
            await self._caches.drop_of(*entries)
        hold.release()
        if mended is Mended.CHANGED:
            return suspect
        if mended is Mended.LEFT:
            counts["left"] += 1
            await self._note(finding, counts)
            return None
        await self._settle(finding, owed, fence)
        counts["mended"] += 1
        counts.update(f"mended_{kind}" for kind in finding.kinds.values())
        return None

    async def _stands(self, at: float) -> bool:
        """Whether what was seen may be written now; else waits until a new look may be."""
        zombie, last = self._context.applied.zombie_seconds, await self._seized_at()
        if stands(at, last, zombie):
            return True
        await pause_or_raise(self._context.stop, max(0.0, stands_at(last, zombie) - self._context.clock.now()))
        return False

    async def _seized_at(self) -> float | None:
        """When a lease of the rule was last taken from a silent worker."""
        seized = [await self._context.applied.seized_at(*followed) for followed in self.follows]
        return max((each for each in seized if each is not None), default=None)

    # -- owed keys -----------------------------------------------------------------------------------------------------

    async def _load(self) -> Sequence[Parking]:
        async with self._loading:
            if not self._loaded:
                for parking in self._parkings:
                    await parking.load()
                self._loaded = True
        return self._parkings

    async def _owed(self, key: ItemKey) -> _Owed:
        """The open rows of a key, as they stand."""
        owing = [parking for parking in await self._load() if parking.owes(key) is not None]
        rows = [(parking, await parking.row(key)) for parking in owing]
        return [(parking, row) for parking, row in rows if row is not None]

    async def _settle(self, finding: Finding, owed: _Owed, fence: Fence) -> None:
        """What was owed of a mended key is there now, where it was mended; what became owed since is not."""
        for parking, row in owed:
            if parking.to.target_id.name in finding.kinds:
                by = f"job {self._context.job.job_id}"
                await parking.settle(replace(row, by=by), Settlement.DELIVERED, fence)

    async def finish(self, job: Job, counts: Counts) -> Job | None:
        """Nothing follows."""
        del job, counts
        return None


def _images(finding: Finding) -> list[Image]:
    """What a repaired table held, and holds now: caches may have entries of either."""
    difference = finding.difference
    if isinstance(difference, Difference):
        images: list[Image | None] = [difference.seen.target, difference.wanted]
    else:
        assert isinstance(difference, MeshDifference), "there are no others"
        items = (standing.item for standing in difference.seen.values())
        images = [getattr(item, "image", item) for item in items]
    return [image for image in images if image is not None]


def verification(context: JobContext) -> Verification:
    """A verify or a sweep: mends nothing, unless its options say so."""
    options = context.job.options
    if options.get("repair"):
        return Verification(context, _ALL)
    return Verification(context, {Kind.EXTRA} if options.get("extra") == Extra.DELETE else _NONE)


def repair(context: JobContext) -> Verification:
    """A repair or a resync."""
    return Verification(context, _NONE if context.job.options.get("dry_run") else _ALL)


KINDS: dict[JobKind, Callable[[JobContext], Handler]] = {
    JobKind.VERIFY: verification,
    JobKind.SWEEP: verification,
    JobKind.REPAIR: repair,
    JobKind.RESYNC: repair,
}
