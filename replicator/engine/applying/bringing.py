"""Bringing one key that a region of a mesh is owed: what stands at home now, as a slow worker of the home region would.

Invariant: nothing is sent from what is kept of a change; what is owed is read at home, whatever was owed first.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, assert_never

from replicator.domain.conflicts import LogConflict
from replicator.domain.identifiers import RegionId
from replicator.domain.modes.active_active import drain as active_active
from replicator.domain.modes.active_active.mesh import Mesh
from replicator.domain.modes.requests import At, Done, Response
from replicator.domain.modes.versioned import drain as versioned
from replicator.domain.modes.versioned.replicate import VersionedMesh
from replicator.domain.owed_keys import OwedKey
from replicator.domain.rules import ActivePlan, VersionedPlan
from replicator.domain.values import replace
from replicator.engine.applying.context import Tally, TargetContext
from replicator.ports.targets import Region


async def bring(context: TargetContext, row: OwedKey, region: RegionId, port: Region) -> None:
    """Bring what stands at home under a row's key to another region; raises what kept it from being brought."""
    home = context.ports.region
    assert home is not None, "a mesh has a home region"
    ports = {context.rule.source: home, region: port}
    steps = _steps(context, row, region)
    answer: Response | None = None
    while True:
        try:
            request = steps.send(answer)
        except StopIteration:
            return
        match request:
            case At(where, inner):
                answer = await ports[where].execute(inner, context.fence)
            case LogConflict():
                await context.log(request, row.sequence, Tally())
                answer = Done()
            case _:
                raise AssertionError("a drain asks regions and the log only: it waits for nothing")


def _steps(context: TargetContext, row: OwedKey, region: RegionId) -> Generator[Any, Any, Any]:
    plan, home = context.rule.mesh, context.rule.source
    assert plan is not None, "regions of a mesh are owed keys"
    assert row.key is not None, "what a region missed is of a key"
    match plan:
        case VersionedPlan(others, version):
            return versioned.drain(VersionedMesh(home, others, version), region, row.key, row.replaced, row.left)
        case ActivePlan(others, policy):
            mesh = Mesh(home, others, context.place.stream.generation, replace(policy, waits=0))
            return active_active.drain(mesh, region, row.key)
        case _:
            assert_never(plan)
