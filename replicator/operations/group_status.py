"""The values that `status` returns: a group, its rules, their shards and targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from replicator.adapters.dynamodb.coordination import Pause
from replicator.domain.targets import TargetId
from replicator.domain.values import replace
from replicator.domain.verdict.kinds import Problem, Verdict
from replicator.operations.away_status import RegionStatus
from replicator.operations.canaries import CanaryStatus
from replicator.operations.gaps import ListedGap
from replicator.operations.jobs import ListedJob
from replicator.operations.lag_status import RuleTarget
from replicator.operations.pacing_status import PacingStatus
from replicator.operations.parked_status import ParkedStatus

if TYPE_CHECKING:
    from replicator.domain.identifiers import WorkerId

FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """Where a target stands on a shard: as stored, and as the worker says that reads it. `blocked`: what stops it."""

    target: TargetId
    region: str | None
    checkpoint: str | None
    position: str | None
    lag_seconds: float | None
    seconds_since_progress: float | None
    counts: Mapping[str, int]
    blocked: Mapping[str, Any] | None
    retention_left_seconds: float | None = None
    applied_through: datetime | None = None
    """Every change of the shard from a second before this is applied, as rows and heartbeats say; None: not known."""
    stalled: Mapping[str, Any] | None = None
    """Why it does not progress although a worker reads it."""
    state: str | None = None
    """How it stands there, as a worker says that does not read it."""


@dataclass(frozen=True, slots=True)
class WaitStatus:
    """Why a shard is not read for a rule."""

    why: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """A shard of a rule; `over`: why it is not read any more, None when it is read or to be read.

    `waits`: why it is not read for the rule now, as the stored rows show. What is None beside that is not known: the
    shard is seen by a worker only.
    """

    shard: str
    region: str | None
    table: str | None
    stream: str | None
    owner: str | None
    epoch: int | None
    over: str | None
    waits: WaitStatus | None
    targets: Sequence[TargetStatus]


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A table that a rule reads."""

    region: str
    table: str


@dataclass(frozen=True, slots=True)
class RuleStatus:
    """A rule and every shard that it reads or read."""

    name: str
    mode: str
    sources: Sequence[SourceTable]
    shards: Sequence[ShardStatus]
    paused: bool
    targets: Sequence[RuleTarget]
    held: Sequence[Mapping[str, Any]]
    """What of it is held, and why, as living workers say."""
    paused_seconds: float | None = None
    pause_note: str = ""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker that has a heartbeat; `daemon`: what its admin server says but for its rules, None without an answer."""

    worker: WorkerId
    heartbeat: int
    admin: str
    daemon: Mapping[str, Any] | None
    rules: Sequence[str] = ()
    """The rules that it runs, or chooses tables for."""


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """A whole group. `unconfigured`: rules that have progress and are not configured; `unreadable`: rows left out."""

    group: str
    daemon: Mapping[str, Any] | None
    coordination_error: str | None
    workers: Sequence[WorkerStatus]
    rules: Sequence[RuleStatus]
    gaps: Sequence[ListedGap]
    parked: Sequence[ParkedStatus]
    regions: Sequence[RegionStatus]
    """Regions that rest, are away, or are owed keys that they missed."""
    pacing: PacingStatus
    jobs: Sequence[ListedJob]
    """Work over whole tables that is not over."""
    unconfigured: Sequence[str]
    unreadable: Sequence[str]
    unanswered: Sequence[str]
    """Regions whose tables did not answer, so that what they hold is not known."""
    resting: Sequence[Pause]
    """Regions in which rules rest."""
    canaries: Sequence[CanaryStatus]
    """How canaries arrive, as living workers say."""
    alive: int | None
    """How many workers answer, or move their heartbeats; None when that is not known."""
    verdict: Verdict | None = None
    problems: Sequence[Problem] = ()

    def of(self, rule: str) -> GroupStatus:
        """What of it is of one rule, beside what is of the group."""
        return replace(
            self,
            rules=[each for each in self.rules if each.name == rule],
            gaps=[each for each in self.gaps if each.rule == rule],
            parked=[each for each in self.parked if each.target.rule == rule],
            regions=[each for each in self.regions if each.rule == rule],
            jobs=[each for each in self.jobs if each.rule == rule],
            resting=[each for each in self.resting if each.rule == rule],
            canaries=[each for each in self.canaries if each.rule == rule],
            unconfigured=(),
        )
