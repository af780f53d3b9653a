"""A table's streams, one behind the other: which one each rule reads now, and what passes over to its successor.

Invariant: a rule goes on with the oldest stream that it began and is not through with, so that a restart goes on there;
the successor is remembered before a stream is let go. What one rule is through with, or waits for, binds no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from replicator.domain.errors import NewerLayout, ReplicatorError
from replicator.domain.gaps import EVERY_SHARD, Gap
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.progress import END
from replicator.domain.rules import Rule, Target
from replicator.domain.shards.leases import KnownStream, StreamRef
from replicator.domain.targets import TargetId
from replicator.engine.ownership.target_succession import TargetSuccession
from replicator.engine.shard.worker import ShardPorts

_REPLACED = "The stream was replaced; changes made while the table had no stream, or another one, were never recorded."
_MOVED = "The rule now reads another kind of stream, which does not contain earlier changes."


class Due(Struct, frozen=True):
    """Which streams are to be read now, oldest first, and for which rules; `trouble` keeps the others from theirs."""

    streams: Mapping[StreamRef, tuple[Rule, ...]]
    trouble: ReplicatorError | None = None


class StreamSuccession:
    """The streams of one table, as its rules read them."""

    def __init__(
        self,
        region: RegionId,
        table: TableName,
        rules: Sequence[Rule],
        ports: ShardPorts,
        succession: TargetSuccession,
    ) -> None:
        self._region = region
        self._table = table
        self._rules = rules
        self._ports = ports
        self._succession = succession

    @property
    def targets(self) -> frozenset[TargetId]:
        """Every target that reads this table."""
        return frozenset(target.target_id for rule in self._rules for target in rule.targets)

    async def due(self) -> Due:
        """Each rule's stream: the oldest one that it began and is not through with, else the present one."""
        trouble, ready = await self._carry_over()
        everything = await self._ports.registry.streams(self._region, self._table)
        known = [each for each in everything if self._ports.stream.reads(each.ref)]
        started = {
            each.ref: set(await self._ports.registry.starts(each.ref))
            for each in known
            if not all(each.is_drained(target.target_id) for rule in self._rules for target in rule.targets)
        }
        wanted = {rule.name: _oldest(rule, known, started) for rule in ready}
        if None in wanted.values():
            try:
                present = await self._ports.stream.current(self._table)
                elsewhere = [each.ref for each in everything if each not in known]
                for rule in (rule for rule in ready if wanted[rule.name] is None):
                    await self._move(rule, elsewhere, present)
                wanted = {name: ref or present for name, ref in wanted.items()}
            except ReplicatorError as error:
                trouble = error
        refs = sorted({ref for ref in wanted.values() if ref is not None}, key=lambda ref: ref.generation)
        for ref in refs:
            await self._ports.registry.remember_stream(ref)
        streams = {ref: tuple(rule for rule in ready if wanted[rule.name] == ref) for ref in refs}
        return Due(streams, trouble)

    async def _move(self, rule: Rule, elsewhere: Iterable[StreamRef], present: StreamRef) -> None:
        """Let a rule that read another kind of stream before go on with this one; what it had there stays as it is.

        When the table began to send its changes here is not known, so the place is a gap, which a repair follows.
        """
        begun = await self._ports.registry.starts(present)
        for ref in elsewhere:
            starts = await self._ports.registry.starts(ref)
            for target in rule.targets:
                if target.target_id in starts and target.target_id not in begun:
                    await self._record_break(ref, target, _MOVED)
                    started_at = starts[target.target_id].started_at
                    begun[target.target_id] = await self._ports.registry.start(present, target, started_at=started_at)

    async def _carry_over(self) -> tuple[ReplicatorError | None, list[Rule]]:
        """Let targets go on from what is stored of them; a rule for which that fails waits, and holds no other."""
        trouble: ReplicatorError | None = None
        ready: list[Rule] = []
        for rule in self._rules:
            try:
                await self._succession.carry_over(rule)
            except NewerLayout:
                raise
            except ReplicatorError as error:
                trouble = error
            else:
                ready.append(rule)
        return trouble, ready

    async def through(self, ref: StreamRef) -> set[RuleName]:
        """Rules for which some worker found that a stream is read to its end and has a successor."""
        return {
            rule.name
            for each in await self._known()
            for rule in self._rules
            if each.ref == ref and all(each.is_drained(target.target_id) for target in rule.targets)
        }

    async def _known(self) -> list[KnownStream]:
        known = await self._ports.registry.streams(self._region, self._table)
        return [each for each in known if self._ports.stream.reads(each.ref)]

    async def successor(self, ref: StreamRef) -> StreamRef | None:
        """The next stream that can be read, whether a worker saw it before or not; None when there is none yet.

        One whose records show too little is passed by, as is what was written while the table had no stream at all.
        """
        readable = await self._ports.stream.streams(self._table)
        newer = [each for each in readable if each.generation > ref.generation]
        for each in sorted(newer, key=lambda each: each.generation):
            if await self._ports.stream.shows_images(each):
                return each
        current = await self._ports.stream.current(self._table)
        return None if current.arn == ref.arn else current

    async def pass_on(self, ref: StreamRef, successor: StreamRef, rules: Iterable[Rule]) -> None:
        """Let rules go on with the successor as if they had started on it; twice is once.

        The successor holds changes from before its first reading, so a start at the latest must not begin anew with it.
        """
        rules = tuple(rules)
        starts = await self._ports.registry.starts(ref)
        for target in (target for rule in rules for target in rule.targets):
            if target.target_id in starts:
                started_at = starts[target.target_id].started_at
                await self._ports.registry.start(successor, target, started_at=started_at)
                await self._record_break(ref, target)
        await self._ports.registry.remember_stream(successor)
        await self._ports.registry.remember_stream(ref, {target.target_id for rule in rules for target in rule.targets})

    async def _record_break(self, ref: StreamRef, target: Target, why: str = _REPLACED) -> None:
        """No stream shows what was written between two streams of a table, so the place is recorded as a gap."""
        gap = Gap(
            stream=ref,
            shard_id=EVERY_SHARD,
            target_id=target.target_id,
            after=END,
            until=None,
            found_at=self._ports.servers.latest(),
            why=why,
        )
        await self._ports.registry.record_gap(gap)
        self._ports.observer.gap_found(gap)


def _oldest(rule: Rule, known: Sequence[KnownStream], started: Mapping[StreamRef, set[TargetId]]) -> StreamRef | None:
    """The stream that a rule goes on with; the first one that all rules still read, when it never began."""
    targets = {target.target_id for target in rule.targets}
    begun: set[TargetId] = set()
    for each in known:
        through = {target_id for target_id in targets if each.is_drained(target_id)}
        begun |= targets & started.get(each.ref, set())
        begun |= set() if each.closed else through
        if not begun <= through:
            return each.ref
    if begun:
        return None
    # A stream that any target has read to its end has a successor, and a rule that begins now begins with that.
    return next((each.ref for each in known if not (each.closed or each.drained or each.rules)), None)
