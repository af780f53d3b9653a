"""How targets stand at shards, and shards with them: the values of the status board."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct, field

from replicator.domain.errors import ReplicatorError
from replicator.domain.gaps import Gap
from replicator.domain.identifiers import RegionId, ShardId
from replicator.domain.progress import Position, latest
from replicator.domain.rules import Target
from replicator.domain.shards.applied_through import lag_seconds
from replicator.domain.shards.leases import Lease, StreamRef
from replicator.domain.shards.standstill import Standstill
from replicator.domain.targets import TargetId
from replicator.ports.events import Place

_SILENCE_SECONDS = 15.0
"""A shard that was not read for so long is not taken for caught up."""

OK, UNKNOWN, BLOCKED, STALLED = "ok", "unknown", "blocked", "stalled"
"""States of a target at a shard that is read here, or was until the lease was lost; what is not read has others."""

READ_HERE = frozenset({OK, UNKNOWN, BLOCKED, STALLED})
"""States of what is read here."""


class Spot(NamedTuple):
    """One shard of one stream of one region."""

    region: RegionId
    arn: str
    shard_id: ShardId


def spot_of(stream: StreamRef, shard_id: ShardId) -> Spot:
    """The key of a shard."""
    return Spot(stream.region, stream.arn, shard_id)


class Trouble(Struct):
    """Why something does not go on."""

    error: ReplicatorError
    key: str | None
    since: float
    times: int = 1


class Stall(Struct):
    """A target that does not progress on a shard that is ours."""

    reason: str
    remedy: str
    since: float


class Waiting(Struct, frozen=True):
    """A rule that does not move on some shards of a stream, whichever worker should read them."""

    stream: StreamRef
    standstill: Standstill
    since: float


class TargetState(Struct):
    """One target on one shard. Wall-clock seconds: `pending_since`, `through`; monotonic: `progress_at`."""

    place: Place
    position: Position | None = None
    """None until it was reported; what is stored then still counts."""
    pending_since: float | None = None
    """Creation of the oldest record of the page in hand."""
    through: float | None = None
    """Everything from a second before this lies before its place: as stored, as applied, or as a poll said."""
    level: bool = False
    """Whether the last poll found nothing behind its place."""
    last_lag: float | None = None
    progress_at: float = 0.0
    seen_at: float = 0.0
    """When it came in sight (monotonic)."""
    heard: bool = False
    """Whether what was read since says more than what is stored."""
    trouble: Trouble | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def lag(self, now: float, silence: float, age: float) -> float | None:
        """At most how old the oldest record is that was not applied; 0 when caught up, None when that is not known.

        `silence`: seconds since the shard was last read. What is not read is not caught up: its lag grows. `age`:
        seconds since it came in sight. What is stored says only how old a change may be that waits; whether one waits
        shows with the first answer, which is awaited for a while.
        """
        if not self.heard and age <= _SILENCE_SECONDS:
            return None
        if self.level and silence <= _SILENCE_SECONDS:
            return 0.0
        return lag_seconds(latest(self.pending_since, self.through), now)

    def moved(self, position: Position, at: float) -> None:
        """Its place is another; what was known of the time of a place before stays true."""
        self.position, self.progress_at, self.heard = position, at, True
        self.through = latest(self.through, position.through)

    def stands(self, position: Position) -> None:
        """It goes on, or begins, at a stored place."""
        self.position, self.through, self.level = position, latest(self.through, position.through), False


class ShardState(Struct):
    """One shard that this worker holds, or held a moment ago."""

    stream: StreamRef
    shard_id: ShardId
    read_at: float
    """Monotonic seconds of the last answered poll; at first those of the first sight."""
    lease: Lease | None = None
    targets: dict[TargetId, TargetState] = field(default_factory=dict)
    stalls: dict[TargetId, Stall] = field(default_factory=dict)
    gaps: dict[TargetId, Gap] = field(default_factory=dict)
    """Losses, by target id, behind which the target did not go on yet."""

    @property
    def shown(self) -> str:
        """The shard for readers."""
        return f"shard {self.shard_id} of {self.stream.table} in {self.stream.region}"


class End(enum.Enum):
    """How reading a shard for a target ends: what another worker may go on with, what none may, and what is over."""

    GIVEN_BACK = "given back"
    LOST = "lost"
    FINISHED = "finished"


class Figure(Struct, frozen=True):
    """How a target stands at a shard, in figures; None: not known. `idle`: seconds since it moved or was level."""

    target: Target
    stream: StreamRef
    shard_id: ShardId | None
    state: str
    lag: float | None
    retention_left: float | None
    idle: float


class Choice(Struct, frozen=True):
    """The tables that a rule chooses: those that are replicated, and those left out by (reason, advice)."""

    rule: str
    region: str
    chooses: str
    tables: tuple[str, ...]
    left_out: Mapping[str, tuple[str, str]]


def word_of(shard: ShardState, state: TargetState, lag: float | None) -> str:
    """How a target stands at a shard that is read here."""
    if state.trouble is not None:
        return BLOCKED
    if state.place.target.target_id in shard.stalls:
        return STALLED
    return UNKNOWN if lag is None else OK
