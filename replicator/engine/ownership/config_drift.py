"""Rules that wait for a shard because its owner does not read it for them: it runs another configuration.

The owner may not have the rule, or have it with another table or with other members of its mesh. Invariant: reported
once it lasts, and reported as mended when it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from replicator.domain.errors import WorldMismatch
from replicator.domain.identifiers import ShardId, WorkerId
from replicator.domain.progress import Position
from replicator.domain.rules import Rule, Target
from replicator.domain.shards.leases import LeaseRow, StreamRef
from replicator.domain.targets import TargetId, TargetKind
from replicator.ports.clock import Clock
from replicator.ports.events import Observer
from replicator.ports.services import ServiceId, ServiceKind, shard_service

_PATIENCE_SECONDS = 30.0
"""A new owner has stored where it begins long before."""

_ADVICE = "Give every worker of the group the same configuration; restart those with an older one."


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """A rule that its shard's owner leaves out: where its targets stand, and what the owner reads instead."""

    owner: WorkerId | None
    places: tuple[Position | None, ...]
    instead: tuple[TargetId, ...]

    @property
    def sentence(self) -> str:
        """What is wrong, for people."""
        if not self.instead:
            return f"Worker {self.owner} owns the shard and does not read it for this rule."
        others = " and ".join(target_id.text for target_id in self.instead)
        return f"Worker {self.owner} owns the shard and reads it for {others}: nothing there counts for other members."


class Unread:
    """What of one stream is owned and left unread."""

    def __init__(self, ref: StreamRef, clock: Clock, observer: Observer) -> None:
        self._ref = ref
        self._clock = clock
        self._observer = observer
        self._since: dict[ServiceId, tuple[_LeftOut, float]] = {}

    def look(self, rows: Mapping[ShardId, LeaseRow], wanted: Mapping[ShardId, list[Rule]]) -> None:
        """Report rules that were left out for long. `wanted`: shards of others that rules could read now."""
        now = self._clock.monotonic()
        unread = dict(self._unread(rows, wanted))
        for service in [service for service in self._since if service not in unread]:
            del self._since[service]
            self._observer.service_recovered(service)
        for service, left_out in unread.items():
            before, since = self._since.get(service, (left_out, now))
            since = since if before.places == left_out.places else now  # what moves is read after all
            self._since[service] = left_out, since
            if now - since > _PATIENCE_SECONDS:
                self._observer.service_failed(service, WorldMismatch(left_out.sentence, advice=_ADVICE))

    def _unread(
        self, rows: Mapping[ShardId, LeaseRow], wanted: Mapping[ShardId, list[Rule]]
    ) -> Iterator[tuple[ServiceId, _LeftOut]]:
        for shard_id, rules in wanted.items():
            row = rows[shard_id]
            for rule in rules:
                places = tuple(row.checkpoints.get(target.target_id) for target in rule.targets)
                instead = tuple(sorted(other for target in rule.targets for other in _ahead(target, row)))
                if instead or None in places:
                    service = shard_service(ServiceKind.UNREAD, self._ref, shard_id, rule.name)
                    yield service, _LeftOut(row.owner, places, instead)


def _ahead(target: Target, row: LeaseRow) -> Iterator[TargetId]:
    """What the rule of a mesh is on a shard's row with other members, where that has read more."""
    own = row.checkpoints.get(target.target_id)
    for other, place in row.checkpoints.items():
        is_mesh = other.kind is target.kind is TargetKind.MESH and other.rule == target.rule
        if is_mesh and other != target.target_id and own is not None and place.order > own.order:
            yield other
