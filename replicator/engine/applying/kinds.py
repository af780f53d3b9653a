"""Kinds of targets: one entry each. Begin here to see what a target does, or to add a kind.

A new kind takes a member of `TargetKind` (`domain/targets.py`, which also makes its identity), an entry below with a
driver in a module of its own, and what the driver asks in `TargetPorts` (made in `app/wiring.py`). Everything else,
which is reading, order, retries, positions, losses, leases and status, knows targets and no kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from replicator.domain.rules import OnRefusal, Rule
from replicator.domain.shards.inheritance import Begins
from replicator.domain.targets import TargetKind
from replicator.engine.applying.canary_driver import CanaryDriver, for_canaries
from replicator.engine.applying.context import Driver, TargetContext
from replicator.engine.applying.events_driver import EventsDriver
from replicator.engine.applying.mesh_driver import MeshDriver
from replicator.engine.applying.ordered_driver import OrderedDriver
from replicator.engine.applying.source_caches_driver import SourceCachesDriver


class Kind(Struct, frozen=True):
    """One kind of target."""

    driver: Callable[[TargetContext], Driver]
    """What brings records to it: runs of one key in pieces, repeated until each is done."""
    begins: Begins
    """Whose progress it goes on with when there is none of its own; else it begins by the rule's `start`."""
    asks: str
    """What has to answer before a record is done, for the remedy when it does not."""
    holds_back: str
    """What waits while a record is not done."""
    parks: bool
    """Whether what it refuses, or what cannot be read, may be set aside, so that everything behind it goes on."""
    of_many_places: bool = False
    """Whether one of its places may answer while another does not: then each record is tried once, and what comes is
    read ahead, though they wait for the one that is away."""
    carries_refusals: bool = False
    """Whether later pages are begun, too, while a key waits that is refused and cannot be set aside."""


def _mesh(context: TargetContext) -> MeshDriver:
    assert context.rule.mesh is not None, "a mesh has a plan"
    return MeshDriver(context, context.rule.mesh)


_NEXT_PAGE = "the target's next page of the shard, and no other target"

KINDS: Mapping[TargetKind, Kind] = {
    TargetKind.REPLICA: Kind(
        driver=OrderedDriver,
        begins=Begins.WITH_ITS_TABLE,
        asks="the replica's endpoint and its caches",
        holds_back=_NEXT_PAGE,
        parks=True,
    ),
    TargetKind.SOURCE_CACHES: Kind(
        driver=SourceCachesDriver,
        begins=Begins.WITH_ITS_REGION,
        asks="the caches beside the source",
        holds_back=_NEXT_PAGE,
        parks=True,
    ),
    TargetKind.EVENTS: Kind(
        driver=EventsDriver,
        begins=Begins.WITH_NOTHING,
        asks="the sink of its events",
        holds_back=_NEXT_PAGE,
        parks=True,
    ),
    TargetKind.MESH: Kind(
        driver=_mesh,
        begins=Begins.WITH_ITS_MEMBERS,
        asks="the endpoints of all regions of the mesh, and the caches of the one that is read",
        holds_back="the next page of the shard, for every region of the mesh",
        # That is records that cannot be read. What one region refuses or misses is a key that is owed to that region
        # (`owing.py`); what the home region refuses has no version yet, and is waited for.
        parks=True,
        of_many_places=True,
        carries_refusals=True,
    ),
}


def parks_refusals(rule: Rule, kind: TargetKind) -> bool:
    """Whether what a rule's target of this kind refuses is set aside."""
    return rule.refused is OnRefusal.PARK and KINDS[kind].parks


def driver_of(context: TargetContext) -> Driver:
    """What brings records to a target, its rule's canary among them."""
    kind = KINDS[context.place.target.kind]
    canaries = for_canaries(context)
    return CanaryDriver(context.rule.name, kind.driver(context), None if canaries is None else kind.driver(canaries))
