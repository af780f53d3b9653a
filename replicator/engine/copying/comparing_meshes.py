"""The tables of a mesh, compared: regions are peers, and what all should hold follows from what they hold.

Invariant: a key is counted once, by the first region that holds it; a second look reads every region itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from replicator.domain.conflicts import LogConflict
from replicator.domain.copying import active_active, versioned
from replicator.domain.copying.looks import Ended
from replicator.domain.copying.meshes import MeshCandidate, MeshDifference, MeshMended, Missing
from replicator.domain.copying.ordered import Mended
from replicator.domain.identifiers import RegionId
from replicator.domain.image import Image
from replicator.domain.jobs import place_name
from replicator.domain.modes.active_active.mesh import Mesh
from replicator.domain.modes.requests import At, Done, FoundAhead, LookAhead, Remover, Response, Wait
from replicator.domain.modes.versioned.replicate import VersionedMesh
from replicator.domain.records import ItemKey
from replicator.domain.rules import ActivePlan, Target, VersionedPlan
from replicator.engine.copying.applied import Followed
from replicator.engine.copying.comparing import Compared, Finding, Suspect, looked_up
from replicator.engine.copying.handlers import JobContext
from replicator.engine.copying.witness import Log
from replicator.engine.waiting import pause_or_raise
from replicator.ports.copying import ScannedItem
from replicator.ports.targets import Fence

_WAIT_SECONDS = 0.04
_MICROS = 1_000_000

_MENDED = {
    MeshMended.PUT: Mended.PUT,
    MeshMended.DELETED: Mended.DELETED,
    MeshMended.LEFT: Mended.LEFT,
    MeshMended.CHANGED: Mended.CHANGED,
}


class MeshComparison:
    """The regions of a mesh, of either mode."""

    def __init__(self, context: JobContext, *, missing: Missing = Missing.KEEP) -> None:
        self._context = context
        self._rule = rule = context.rules[0]
        self._missing = missing
        self._homes = {each.source: each for each in context.rules}
        self._order = [region for region, _ in rule.members]
        self._names = {region: place_name(region, table) for region, table in rule.members}
        self._regions = {region: context.regions[name] for region, name in self._names.items()}
        self._mode: _Active | _Versioned
        assert rule.mesh is not None, "a mesh has a plan"
        match rule.mesh:
            case ActivePlan(others, policy):
                self._mode = _Active(Mesh(rule.source, others, 0, policy))
            case VersionedPlan(others, version):
                self._mode = _Versioned(VersionedMesh(rule.source, others, version))

    @property
    def follows(self) -> Sequence[Followed]:
        """The mesh as it stands on the stream of each region."""
        return [(rule, rule.targets[0]) for rule in self._homes.values()]

    # -- first looks ---------------------------------------------------------------------------------------------------

    async def page(self, part: str, items: Sequence[ScannedItem], at: float) -> Compared:
        """Items of one region, with what the others hold; what an earlier region holds was compared with that."""
        (home,) = [region for region, name in self._names.items() if name == part]
        passing = [item for item in items if self._rule.filter.matches(item.image)]
        found = await self._everywhere([item.key for item in passing], besides=home)
        compared = Compared()
        earlier = self._order[: self._order.index(home)]
        for item in passing:
            held = {region: images.get(item.key) for region, images in found.items()} | {home: item.image}
            if all(held[region] is None for region in earlier):
                self._first(compared, item.key, held, at)
        return compared

    async def keys(self, keys: Sequence[ItemKey], at: float) -> Compared:
        """The same keys in every region."""
        passing = [key for key in keys if self._rule.filter.matches(Image(key.wire))]
        found = await self._everywhere(passing)
        compared = Compared()
        for key in passing:
            self._first(compared, key, {region: images.get(key) for region, images in found.items()}, at)
        return compared

    async def _everywhere(
        self, keys: Sequence[ItemKey], besides: RegionId | None = None
    ) -> dict[RegionId, Mapping[ItemKey, Image]]:
        regions = [region for region in self._order if region != besides]
        answers = await asyncio.gather(*(looked_up(self._regions[region], keys) for region in regions))
        return dict(zip(regions, answers, strict=True))

    def _first(self, compared: Compared, key: ItemKey, held: Mapping[RegionId, Image | None], at: float) -> None:
        compared.compared += 1
        candidate = self._mode.first_look(key, held, at)
        if candidate is not None:
            compared.suspects.append(Suspect(candidate, self._rule.targets[0]))
        for region, image in held.items():
            target = self._homes[region].targets[0]
            if target.caches and image is not None:
                compared.beside.append((target, key, image))

    # -- later looks ---------------------------------------------------------------------------------------------------

    async def again(self, suspect: Suspect, fence: Fence, at: float) -> Finding | Suspect | Ended:
        """One key in every region."""
        candidate = suspect.candidate
        assert isinstance(candidate, MeshCandidate), "a suspect of a mesh"
        seen = await self._drive(self._mode.look(candidate.key), suspect.target, None, fence)
        judged = self._mode.judge(candidate, seen, at)
        if isinstance(judged, MeshCandidate):
            return Suspect(judged, suspect.target)
        if isinstance(judged, Ended):
            return judged
        kinds = {self._names[region]: kind for region, kind in judged.kinds.items()}
        return Finding(judged.key, kinds, suspect.target, judged)

    async def mend(self, finding: Finding, log: Log, fence: Fence) -> Mended:
        """Bring all regions what the greatest of them holds."""
        difference = finding.difference
        assert isinstance(difference, MeshDifference), "a finding of a mesh"
        now = round(self._context.clock.now() * _MICROS)
        steps = self._mode.repair(finding.key, difference.seen, now, self._missing)
        ended: MeshMended = await self._drive(steps, finding.target, log, fence)
        return _MENDED[ended]

    async def _drive(self, steps: Generator[Any, Any, Any], target: Target, log: Log | None, fence: Fence) -> Any:
        answer: Response | FoundAhead | None = None
        while True:
            try:
                request = steps.send(answer)
            except StopIteration as end:
                return end.value
            match request:
                case At(region, inner):
                    answer = await self._regions[region].execute(inner, fence)
                case LogConflict():
                    assert log is not None, "a look logs nothing"
                    answer = await log.write(request, target, fence)
                case Wait():
                    await pause_or_raise(self._context.stop, _WAIT_SECONDS)
                    answer = Done()
                case LookAhead():
                    answer = FoundAhead(Remover.UNKNOWN)


class _Active:
    """What mode `active-active` says."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def first_look(self, key: ItemKey, held: Mapping[RegionId, Image | None], at: float) -> MeshCandidate | None:
        return active_active.first_look(self._mesh, key, held, at)

    def look(self, key: ItemKey) -> Generator[Any, Any, Any]:
        return active_active.look_active(self._mesh, key)

    def judge(self, candidate: MeshCandidate, seen: Any, at: float) -> MeshDifference[Any] | MeshCandidate | Ended:
        return active_active.judge(candidate, seen, at)

    def repair(self, key: ItemKey, seen: Any, now_micros: int, missing: Missing) -> Generator[Any, Any, MeshMended]:
        return active_active.repair_active(self._mesh, key, seen, now_micros, missing)


class _Versioned:
    """What mode `versioned` says."""

    def __init__(self, mesh: VersionedMesh) -> None:
        self._mesh = mesh

    def first_look(self, key: ItemKey, held: Mapping[RegionId, Image | None], at: float) -> MeshCandidate | None:
        return versioned.first_look(self._mesh, key, held, at)

    def look(self, key: ItemKey) -> Generator[Any, Any, Any]:
        return versioned.look_versioned(self._mesh, key)

    def judge(self, candidate: MeshCandidate, seen: Any, at: float) -> MeshDifference[Any] | MeshCandidate | Ended:
        return versioned.judge(self._mesh, candidate, seen, at)

    def repair(self, key: ItemKey, seen: Any, now_micros: int, missing: Missing) -> Generator[Any, Any, MeshMended]:
        del now_micros  # versions are the application's
        return versioned.repair_versioned(self._mesh, key, seen, missing)
