"""Rules that wait for a shard because its owner does not read it for them: it runs another configuration.

Invariant: told once it lasts, and told as mended when it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from replicator.domain.errors import WorldMismatch
from replicator.domain.identifiers import ShardId
from replicator.domain.rules import Rule
from replicator.domain.shards.leases import LeaseRow, StreamRef
from replicator.ports.clock import Clock
from replicator.ports.events import Observer

_PATIENCE_SECONDS = 30.0
"""A new owner has stored where it begins long before."""


class Unread:
    """What of one stream is owned and left unread."""

    def __init__(self, ref: StreamRef, clock: Clock, observer: Observer) -> None:
        self._ref = ref
        self._clock = clock
        self._observer = observer
        self._since: dict[str, float] = {}

    def look(self, rows: Mapping[ShardId, LeaseRow], wanted: Mapping[ShardId, list[Rule]]) -> None:
        """Tell of rules that were left out for long. `wanted`: shards of others that rules could read now."""
        now = self._clock.monotonic()
        unread = {
            f"rule {rule.name} on shard {shard_id} of {self._ref.table} in {self._ref.region}": rows[shard_id].owner
            for shard_id, rules in wanted.items()
            for rule in rules
            if any(target.target_id not in rows[shard_id].checkpoints for target in rule.targets)
        }
        for what in sorted(self._since.keys() - unread.keys()):
            del self._since[what]
            self._observer.service_recovered(what)
        for what, owner in unread.items():
            if now - self._since.setdefault(what, now) > _PATIENCE_SECONDS:
                error = WorldMismatch(
                    f"Worker {owner} owns the shard and does not read it for this rule.",
                    advice="Give every worker of the group the same configuration; restart those with an older one.",
                )
                self._observer.service_failed(what, error)
