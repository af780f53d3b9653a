"""Rules: which records go where, and which cache keys they touch.

Owns filters, the coalescing of several records of one key into one change, and key templates.
Invariant: coalescing never hides a cache key, and a planned change does not depend on how records fell into batches.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from replicator.domain.cache_keys import CacheRule
from replicator.domain.filters import Filter
from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.modes.active_active.mesh import ActivePolicy
from replicator.domain.modes.ordered import OrderedPolicy
from replicator.domain.modes.versioned.ranks import VersionAttribute

# -- filters -------------------------------------------------------------------------------------------------------


# -- caches --------------------------------------------------------------------------------------------------------


# -- rules ---------------------------------------------------------------------------------------------------------

MESH = "mesh"
"""Stands for all regions of a rule in the name of its progress; no region id looks like it."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a rule's changes go: a region with its table and caches. `table` is None beside the source: caches only."""

    rule: RuleName
    region: RegionId
    table: TableName | None
    caches: tuple[CacheRule, ...] = ()
    whole: bool = False
    """Whether this is all of a mesh: a record is done only when every region has answered."""

    @property
    def target_id(self) -> str:
        """Identity of this target's progress on a stream."""
        return f"{self.rule}/{MESH if self.whole else self.region}"


class Start(enum.Enum):
    """Where a target without progress begins."""

    TRIM_HORIZON = "trim_horizon"
    LATEST = "latest"


class TtlDeletes(enum.Enum):
    """What becomes of deletes that the source's TTL made."""

    REPLICATE = "replicate"
    SKIP = "skip"


class OnGap(enum.Enum):
    """What to do when records were trimmed before they were read; the gap is recorded either way."""

    STOP = "stop"
    RESYNC = "resync"  # records and stops, as long as nothing can copy what was lost
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class VersionedPlan:
    """Mode `versioned`: the other regions of the mesh, and the attribute that orders images."""

    others: tuple[RegionId, ...]
    version: VersionAttribute


@dataclass(frozen=True, slots=True)
class ActivePlan:
    """Mode `active-active`: the other regions of the mesh, and the rule's choices."""

    others: tuple[RegionId, ...]
    policy: ActivePolicy = field(default_factory=ActivePolicy)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as it reads one source, in domain values.

    Without `mesh` its mode is `ordered`. A mesh is read in each of its regions, by one `Rule` each: `source` is then
    the home region, and the only target stands for the rule as a whole.
    """

    name: RuleName
    source: RegionId
    table: TableName
    targets: tuple[Target, ...]
    policy: OrderedPolicy = OrderedPolicy()
    mesh: VersionedPlan | ActivePlan | None = None
    epoch: int = 0
    start: Start = Start.TRIM_HORIZON
    ttl_deletes: TtlDeletes = TtlDeletes.REPLICATE
    on_gap: OnGap = OnGap.STOP
    filter: Filter = field(default_factory=Filter)

    @property
    def mode(self) -> str:
        """The mode as the configuration names it."""
        if self.mesh is None:
            return "ordered"
        return "versioned" if isinstance(self.mesh, VersionedPlan) else "active-active"


# -- coalescing ----------------------------------------------------------------------------------------------------
