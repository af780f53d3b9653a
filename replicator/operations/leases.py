"""The owner of every shard and what it waits for; and taking shards from their owners.

Invariant: a release raises the shard's epoch, so its owner is fenced and can store nothing more there.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from replicator.adapters.dynamodb.coordination import StoredStream
from replicator.operations.errors import RequestRefused
from replicator.operations.group import SILENT, UNKNOWN, Group, Move, is_finished, rule_named
from replicator.operations.left_streams import is_left
from replicator.operations.times import moment

if TYPE_CHECKING:
    from replicator.domain.identifiers import ShardId, WorkerId
    from replicator.domain.progress import Position
    from replicator.domain.shards.leases import LeaseRow, Pulse, StreamRef
    from replicator.domain.targets import TargetId
    from replicator.settings import Settings

FREE = "free"
FINISHED = "finished"
_WAITING = "waiting"
_RELEASES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class LeaseFilter:
    """Which shards to list. `owner`: the beginning of a worker's id, or `free`. `fast`: skip the look at heartbeats."""

    rule: str | None = None
    owner: str | None = None
    everything: bool = False
    fast: bool = False

    def has_stream(self, stream: StoredStream, settings: Settings) -> bool:
        """Whether a stream is meant."""
        if not self.everything and (stream.drained or is_left(settings, stream)):
            return False
        return self.rule is None or bool(stream.targets_of({self.rule}))

    def has_shard(self, shard: ListedShard) -> bool:
        """Whether a shard is meant."""
        if shard.state == FINISHED and not self.everything:
            return False
        if self.owner == FREE:
            return shard.owner is None
        return self.owner is None or (shard.owner or "").startswith(self.owner)


@dataclass(frozen=True, slots=True)
class ListedWorker:
    """A worker that has a heartbeat or owns something, and whether it is alive."""

    worker: WorkerId
    is_: str
    heartbeat: int | None
    admin: str
    shards: int


@dataclass(frozen=True, slots=True)
class PausedRule:
    """A rule that rests, since when and why."""

    rule: str
    since: datetime | None
    note: str


@dataclass(frozen=True, slots=True)
class ListedStream:
    """A stream, and the worker that discovers its shards. `left`: rules read its table another way now."""

    stream: StreamRef
    drained: bool
    left: bool
    discoverer: WorkerId | None
    discoverer_is: str
    shards: int
    finished: int
    rules: Sequence[str]


@dataclass(frozen=True, slots=True)
class Skipped:
    """What a target that was rewound skips: records older than `before`, up to `until`."""

    before: datetime | None
    until: Position


@dataclass(frozen=True, slots=True)
class ListedShard:
    """A shard: its owner, what it waits for, and the positions of targets (None: they have not read it)."""

    stream: StreamRef
    shard: ShardId
    owner: WorkerId | None
    owner_is: str
    epoch: int
    state: str
    waits_for: Sequence[ShardId]
    parents: Sequence[ShardId]
    closed: bool
    vanished: bool
    found_at: datetime | None
    positions: Mapping[TargetId, Position | None]
    rewinds: Mapping[TargetId, Skipped]


@dataclass(frozen=True, slots=True)
class Leases:
    """Workers, streams and shards. `unreadable`: what is wrong with rows that are left out."""

    group: str
    workers: Sequence[ListedWorker]
    paused: Sequence[PausedRule]
    streams: Sequence[ListedStream]
    shards: Sequence[ListedShard]
    hidden_finished: int
    unreadable: Sequence[str]


async def list_leases(group: Group, chosen: LeaseFilter) -> Leases:
    """Everything of a group that is meant."""
    if chosen.rule is not None:
        rule_named(group.settings, chosen.rule)
    pulses, streams, pauses = await asyncio.gather(
        group.membership.members(), group.streams(), group.operations.pauses()
    )
    workers = set(pulses) | set(_owners(streams))
    life = dict.fromkeys(workers, UNKNOWN) if chosen.fast else await group.living(workers, pulses)
    configured = {rule.name for rule in group.settings.rules}
    read = [stream for stream in streams if chosen.has_stream(stream, group.settings)]
    shards = [shard for stream in read for shard in _shards(stream, configured, life)]
    return Leases(
        group=group.settings.group,
        workers=list(_workers(life, pulses, streams)),
        paused=[PausedRule(pause.rule, moment(pause.paused_at), pause.note) for pause in pauses],
        streams=[_stream(stream, configured, life, left=is_left(group.settings, stream)) for stream in read],
        shards=[shard for shard in shards if chosen.has_shard(shard)],
        hidden_finished=0 if chosen.everything else sum(shard.state == FINISHED for shard in shards),
        unreadable=[problem.sentence for stream in read for problem in stream.problems],
    )


def _owners(streams: Iterable[StoredStream]) -> Iterator[WorkerId]:
    for stream in streams:
        owners = [row.owner for row in stream.rows.values()] + [stream.seat.owner if stream.seat else None]
        yield from (owner for owner in owners if owner is not None)


def _needing(stream: StoredStream, configured: Collection[str]) -> set[TargetId]:
    """The targets that hold a shard up: what only rules without a configuration need holds up nothing."""
    return stream.targets_of(configured) or stream.targets


def _shards(stream: StoredStream, configured: set[str], life: Mapping[WorkerId, str]) -> Iterator[ListedShard]:
    rows = stream.rows
    finished = {shard_id for shard_id, row in rows.items() if is_finished(row, _needing(stream, configured))}
    for shard_id, row in sorted(rows.items()):
        awaited = [parent for parent in row.shard.parents if parent in rows and parent not in finished]
        is_done = shard_id in finished
        yield ListedShard(
            stream=stream.stream,
            shard=shard_id,
            owner=row.owner,
            owner_is=_life(row.owner, life),
            epoch=row.epoch,
            state=FINISHED if is_done else _state(row, awaited),
            waits_for=[] if is_done else awaited,
            parents=row.shard.parents,
            closed=row.shard.closed,
            vanished=row.vanished,
            found_at=moment(row.found_at),
            positions={target: row.checkpoints.get(target) for target in sorted(stream.targets)},
            rewinds={
                target: Skipped(moment(rewind.before), rewind.until) for target, rewind in sorted(row.rewinds.items())
            },
        )


def _state(row: LeaseRow, awaited: Sequence[ShardId]) -> str:
    if row.vanished:
        return "vanished"
    if awaited:
        return _WAITING
    return "closed" if row.shard.closed else "open"


def _life(owner: WorkerId | None, life: Mapping[WorkerId, str]) -> str:
    return FREE if owner is None else life.get(owner, SILENT)


def _workers(
    life: Mapping[WorkerId, str], pulses: Mapping[WorkerId, Pulse], streams: Sequence[StoredStream]
) -> Iterator[ListedWorker]:
    shards = Counter(row.owner for stream in streams for row in stream.rows.values())
    for worker in sorted(life):
        pulse = pulses.get(worker)
        yield ListedWorker(
            worker=worker,
            is_=life[worker],
            heartbeat=None if pulse is None else pulse.beat,
            admin=pulse.admin if pulse else "",
            shards=shards[worker],
        )


def _stream(stream: StoredStream, configured: set[str], life: Mapping[WorkerId, str], *, left: bool) -> ListedStream:
    discoverer = None if stream.seat is None else stream.seat.owner
    targets = _needing(stream, configured)
    return ListedStream(
        stream=stream.stream,
        drained=stream.drained,
        left=left,
        discoverer=discoverer,
        discoverer_is=_life(discoverer, life),
        shards=len(stream.rows),
        finished=sum(is_finished(row, targets) for row in stream.rows.values()),
        rules=sorted(stream.rules),
    )


# -- releasing -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """Which shards to take from their owners: one, all of a worker, or all."""

    shard: str | None = None
    stream: str | None = None
    worker: str | None = None
    everything: bool = False

    def check(self) -> None:
        """Refuse what is not exactly one choice."""
        if sum((self.shard is not None, self.worker is not None, self.everything)) != 1:
            raise RequestRefused(
                "leases release needs one of --shard, --worker and --all.", advice="Name what to release."
            )
        if self.stream is not None and self.shard is None:
            raise RequestRefused("--stream goes with --shard.", advice="Name the shard too, or leave --stream out.")

    def fits(self, stream: StoredStream, row: LeaseRow) -> bool:
        """Whether a row is meant."""
        if self.shard is not None:
            return row.shard_id == self.shard and self.stream in {None, stream.stream.arn, stream.stream.where}
        return row.owner is not None and self.worker in {None, row.owner}


@dataclass(frozen=True, slots=True)
class Released:
    """A shard that was taken from its owner, and its epoch since then."""

    stream: StreamRef
    shard: ShardId
    owner: WorkerId
    epoch: int


async def release(group: Group, request: ReleaseRequest) -> list[Released]:
    """Take shards from their owners; one that its owner lost meanwhile is left out."""
    request.check()
    streams = [each for each in await group.streams() if not (each.drained or is_left(group.settings, each))]
    meant = [(stream, row) for stream in streams for row in stream.rows.values() if request.fits(stream, row)]
    if request.shard is not None:
        check_one_stream(request.shard, [stream for stream, _ in meant])
    turn = asyncio.Semaphore(_RELEASES_AT_ONCE)

    async def one(stream: StoredStream, row: LeaseRow) -> Released | None:
        async with turn:
            return await _take(group, stream, row)

    outcomes = await asyncio.gather(*(one(stream, row) for stream, row in meant))
    return [outcome for outcome in outcomes if outcome is not None]


def check_one_stream(shard: str, streams: Sequence[StoredStream]) -> None:
    """Refuse a shard that no stream has, or several."""
    if not streams:
        raise RequestRefused(
            f"No stream of this group has a shard {shard}.", advice="`replicator leases list --all` lists them."
        )
    if len(streams) > 1:
        names = ", ".join(f"{stream.stream.where} ({stream.stream.arn})" for stream in streams)
        raise RequestRefused(
            f"{len(streams)} streams have a shard {shard}: {names}.",
            advice="Add --stream with the ARN, or with region:table.",
        )


async def _take(group: Group, stream: StoredStream, row: LeaseRow) -> Released | None:
    owner = row.owner
    if owner is None:
        return None
    moved = await group.move(stream.stream, row, lambda seen: Move() if seen.owner == owner else None)
    if moved is None:
        return None
    seen, _ = moved
    return Released(stream.stream, row.shard_id, owner, seen.epoch + 1)
