"""What a target without a start on a stream goes on from: what earlier versions stored of it, or other members.

A target is another one when its table is another, or when the members of its mesh are. Progress is carried over when
it is of the same table, and from a mesh to one with other members: a member that joins is owed every record that is not
done when the new mesh begins, a member that leaves is owed nothing more. Positions are copied, never moved, so a
worker with the former configuration goes on by its own, and what it does counts only for the members that it knows.

Invariant: a target's start is stored behind all of its positions, on every stream of its mesh, and nothing is read for
a target before that. What was interrupted is repeated.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping

from msgspec import Struct

from replicator.domain.identifiers import ShardId
from replicator.domain.rules import Members, Rule, Target
from replicator.domain.shards.inheritance import Begins, Covers, Inherited, covers_of, inherited
from replicator.domain.shards.leases import KnownStream, LeaseRow, StreamRef, TargetStart
from replicator.domain.targets import TargetId
from replicator.engine.applying.kinds import KINDS
from replicator.engine.bounded import each, raise_first
from replicator.ports.coordination import Coordination, Registry
from replicator.ports.events import Observer
from replicator.ports.targets import TableClaims

_AT_ONCE = 16

Starts = Mapping[TargetId, TargetStart]


class _Copied(Struct, frozen=True):
    """A target whose positions on a stream are copied, and whose start is to follow."""

    stream: StreamRef
    starts: Starts
    covers: Covers


class TargetSuccession:
    """Carries progress over: once per target and stream of a process."""

    def __init__(self, coordination: Coordination, registry: Registry, claims: TableClaims, observer: Observer) -> None:
        self._coordination = coordination
        self._registry = registry
        self._claims = claims
        self._observer = observer
        self._seen: set[tuple[TargetId, StreamRef]] = set()
        self._turns: dict[Members, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def carry_over(self, rule: Rule) -> None:
        """Put every target of a rule where its progress is, on all known streams of the rule's sources."""
        async with self._turns[rule.members]:
            known = [each for source in rule.members for each in await self._registry.streams(*source)]
            for target in rule.targets:
                live = [each for each in known if not each.is_drained(target.target_id)]
                fresh = [each for each in live if (target.target_id, each.ref) not in self._seen]
                if fresh:
                    await self._look_at(rule, target, live, fresh)
                    self._seen.update((target.target_id, each.ref) for each in fresh)

    async def _look_at(
        self, rule: Rule, target: Target, live: Collection[KnownStream], fresh: Collection[KnownStream]
    ) -> None:
        """Copy positions on all streams that are new to us, then store the starts that make them count."""
        starts = {each.ref: await self._registry.starts(each.ref) for each in live}
        joined = _has_members(target) and any(target.target_id in begun for begun in starts.values())
        copies = [await self._copied(rule, target, each, starts[each.ref], joined=joined) for each in fresh]
        for copy in copies:
            if copy is not None:
                await self._begin(target, copy)

    async def _copied(
        self, rule: Rule, target: Target, known: KnownStream, starts: Starts, *, joined: bool
    ) -> _Copied | None:
        """Copy a target's positions on a stream, if there are any; None when its start is there, or need not be."""
        begun = target.target_id in starts
        if begun and not any(_is_of_mesh(other, target) for other in starts):
            return None
        state = await self._coordination.state(known.ref)
        if not begun and target.target_id in await self._registry.starts(known.ref):
            return None  # another worker stored it, behind positions that are not newer than these rows
        stored = {target_id for row in state.rows.values() for target_id in row.checkpoints}
        if not (begun or await self._is_same_table(rule, target, starts, stored)):
            await self._registry.start(known.ref, target)
            self._observer.target_begun_anew(known.ref, target.target_id, target.target_id.earlier)
            return None
        covers = covers_of(target, starts, stored, joined=joined or begun)
        covers = {other: parts for other, parts in covers.items() if not known.is_drained(other)}
        await self._put(target, known.ref, state.rows, dict(inherited(target, state.rows, covers)))
        has_progress = target.target_id in stored or not covers.keys() <= {target.target_id}
        return _Copied(known.ref, starts, covers) if has_progress and not begun else None

    async def _is_same_table(self, rule: Rule, target: Target, starts: Starts, stored: Collection[TargetId]) -> bool:
        """Whether what earlier versions stored, which did not note tables, is of the table that is written now."""
        earlier = target.target_id.earlier
        # Only a replica's table may differ, and only progress without a noted table leaves a doubt.
        if KINDS[target.kind].begins is not Begins.WITH_ITS_TABLE or not (earlier in starts or earlier in stored):
            return True
        names = {rule.name, *await self._registry.former_names(rule.name)}
        return await self._claims.wrote(rule, target, names)

    async def _put(
        self,
        target: Target,
        stream: StreamRef,
        rows: Mapping[ShardId, LeaseRow],
        places: Mapping[ShardId, Inherited],
    ) -> None:

        async def put(placed: tuple[ShardId, Inherited]) -> None:
            shard_id, place = placed
            await self._coordination.carry_over(stream, rows[shard_id], target.target_id, place)

        raise_first(await each(places.items(), put, at_once=_AT_ONCE, name=f"carry {target.target_id} over"))

    async def _begin(self, target: Target, copy: _Copied) -> None:
        """Store a target's start: that of the others, so that it is owed what they were owed."""
        former = sorted(copy.covers.keys() - {target.target_id})
        for other in former:
            await self._registry.carry_gaps_over(copy.stream, other, target.target_id)
        started = [copy.starts[other].started_at for other in former if other in copy.starts]
        await self._registry.start(copy.stream, target, started_at=min(started, default=None))
        joins = target.parts.difference(*copy.covers.values())
        self._observer.target_carried_over(copy.stream, target.target_id, former, joins)


def _has_members(target: Target) -> bool:
    return KINDS[target.kind].begins is Begins.WITH_ITS_MEMBERS


def _is_of_mesh(other: TargetId, target: Target) -> bool:
    """Whether another target is the same rule's mesh with other members."""
    same = (other.rule, other.kind) == (target.rule, target.kind)
    return same and other != target.target_id and _has_members(target)
