"""The status board: where every target stands, as /status shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from replicator.domain.errors import Disposition, ReplicatorError
from replicator.domain.progress import HORIZON, Position
from replicator.domain.records import WorkerId
from replicator.domain.rules import Rule
from replicator.ports import Clock, Lease, Place, StreamRef

_HEALTHY_SECONDS = 90.0
"""The coordinator attempts something at least this often, whatever the world does."""


_SILENCE_SECONDS = 15.0
"""A shard that was not read for so long is not taken for caught up."""


@dataclass(slots=True)
class Trouble:
    """Why something does not go on."""

    error: ReplicatorError
    key: str | None
    since: float
    times: int = 1

    def shown(self, now: float) -> dict[str, Any]:
        """As /status shows it."""
        return {
            "reason": self.error.message,
            "advice": self.error.advice,
            "kind": type(self.error).__name__,
            "key": self.key,
            "seconds": round(now - self.since, 1),
            "times": self.times,
        }


@dataclass(slots=True)
class TargetState:
    """One target on one shard."""

    place: Place
    position: Position = HORIZON
    pending_since: float | None = None
    last_lag: float | None = None
    progress_at: float = 0.0
    trouble: Trouble | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def lag(self, now: float, silence: float) -> float | None:
        """Age of the oldest record in hand; else 0 when caught up, None before anything was seen.

        `silence`: seconds since the shard was last read. What nobody reads is not caught up: its lag grows.
        """
        if self.pending_since is not None:
            return max(0.0, now - self.pending_since)
        if silence > _SILENCE_SECONDS:
            return silence
        return None if self.last_lag is None else 0.0


class Board:
    """Everything /status, /readyz and /healthz know."""

    def __init__(self, group: str, rules: Iterable[Rule], clock: Clock) -> None:
        self.worker: WorkerId | None = None
        self.targets: dict[tuple[str, str, str], TargetState] = {}
        self.leases: dict[tuple[str, str], Lease] = {}
        self.services: dict[str, Trouble] = {}
        self.cycled: dict[tuple[str, str], int] = {}
        self.totals: dict[str, Counter[str]] = {}
        self.draining = False
        self._read_at: dict[tuple[str, str], float] = {}
        self._group = group
        self._rules = tuple(rules)
        self._clock = clock
        self._attempt_at = clock.monotonic()

    def state(self, place: Place) -> TargetState:
        """The state of a target on a shard; made at first sight."""
        key = (place.stream.arn, place.shard_id, place.target.target_id)
        if key not in self.targets:
            self.targets[key] = TargetState(place, progress_at=self._clock.monotonic())
        return self.targets[key]

    def forget(self, lease: Lease, rule: str) -> None:
        """A rule no longer reads a shard here."""
        for key, state in list(self.targets.items()):
            if key[:2] == (lease.stream.arn, lease.shard_id) and state.place.target.rule == rule:
                del self.targets[key]
        self._read_at.pop((lease.stream.arn, lease.shard_id), None)

    def attempted(self, stream: StreamRef | None, shards: int) -> None:
        """The coordinator did something."""
        self._attempt_at = self._clock.monotonic()
        if stream is not None:
            self.cycled[stream.region, stream.table] = shards

    def read(self, stream: StreamRef, shard_id: str) -> None:
        """A shard was read."""
        self._read_at[stream.arn, shard_id] = self._clock.monotonic()

    def lag(self, state: TargetState) -> float | None:
        """How far a target is behind, in seconds."""
        place = state.place
        read_at = self._read_at.setdefault((place.stream.arn, place.shard_id), self._clock.monotonic())
        return state.lag(self._clock.now(), self._clock.monotonic() - read_at)

    def caught_up(self, stream: StreamRef, shard_id: str, position: Position) -> None:
        """Nothing stands behind a position: targets there are up to date."""
        for key, state in self.targets.items():
            if key[:2] == (stream.arn, shard_id) and state.position == position and state.pending_since is None:
                state.last_lag = 0.0 if state.last_lag is None else state.last_lag
                state.progress_at = self._clock.monotonic()

    # -- views -----------------------------------------------------------------------------------------------------

    def health(self) -> str | None:
        """None while the coordinator attempts things; else the reason to restart."""
        silent = self._clock.monotonic() - self._attempt_at
        return f"the coordinator attempted nothing for {silent:.0f} s" if silent > _HEALTHY_SECONDS else None

    def unready(self) -> list[str]:
        """Reasons why this worker does not do its work now; empty when it does."""
        reasons = ["draining"] if self.draining else []
        reasons += [
            f"rule {rule.name}: the stream of {rule.table} in {rule.source} was not listed yet"
            for rule in self._rules
            if (rule.source, rule.table) not in self.cycled
        ]
        reasons += [f"{what}: {trouble.error.sentence}" for what, trouble in self.services.items()]
        for state in self.targets.values():
            if state.trouble is not None and state.trouble.error.disposition is not Disposition.PARK:
                reasons.append(f"{state.place.target.target_id}: {state.trouble.error.sentence}")
        return list(dict.fromkeys(reasons))

    def status(self) -> dict[str, Any]:
        """The whole board as JSON."""
        return {
            "group": self._group,
            "worker": self.worker,
            "draining": self.draining,
            "ready": not self.unready(),
            "unready": self.unready(),
            "owned_shards": len(self.leases),
            "services": {what: trouble.shown(self._clock.monotonic()) for what, trouble in self.services.items()},
            "rules": [self._rule(rule) for rule in self._rules],
        }

    def _rule(self, rule: Rule) -> dict[str, Any]:
        shards: dict[tuple[str, str], list[TargetState]] = {}
        for (arn, shard_id, _), state in self.targets.items():
            if (state.place.target.rule, state.place.stream.region) == (rule.name, rule.source):
                shards.setdefault((arn, shard_id), []).append(state)
        return {
            "name": rule.name,
            "mode": rule.mode,
            "source": rule.source,
            "table": rule.table,
            "totals": {target.target_id: dict(self.totals.get(target.target_id, {})) for target in rule.targets},
            "shards": [
                {
                    "shard": shard_id,
                    "stream": arn,
                    "epoch": self._epoch(arn, shard_id),
                    "targets": [self._target(state) for state in states],
                }
                for (arn, shard_id), states in sorted(shards.items())
            ],
        }

    def _epoch(self, arn: str, shard_id: str) -> int | None:
        lease = self.leases.get((arn, shard_id))
        return None if lease is None else lease.epoch

    def _target(self, state: TargetState) -> Mapping[str, Any]:
        lag = self.lag(state)
        return {
            "target": state.place.target.target_id,
            "region": state.place.target.region,
            "table": state.place.target.table,
            "position": state.position.text,
            "lag_seconds": None if lag is None else round(lag, 1),
            "last_lag_seconds": None if state.last_lag is None else round(state.last_lag, 1),
            "seconds_since_progress": round(self._clock.monotonic() - state.progress_at, 1),
            "counts": dict(state.counts),
            "blocked": None if state.trouble is None else state.trouble.shown(self._clock.monotonic()),
        }
