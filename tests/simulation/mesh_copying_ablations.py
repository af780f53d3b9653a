"""Copying in a mesh with a rule taken out: each must be found out by the explorer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from replicator.domain.copying import active_active, versioned
from replicator.domain.copying.meshes import Missing
from replicator.domain.identifiers import RegionId
from replicator.domain.modes.active_active.apply import apply_put
from replicator.domain.modes.active_active.drain import as_write
from replicator.domain.modes.active_active.mesh import Mesh
from replicator.domain.modes.requests import At, RaiseTombstone, RegionSteps, Steps
from replicator.domain.modes.versioned.replicate import Party, VersionedMesh, item_in, remove
from replicator.domain.records import ItemKey
from replicator.domain.stamps import NO_PARENT, Held, Stamp, StampKind, seed_version
from tests.simulation.mesh_copying_world import MeshExplorer, Result, Scenario


def never_stamped_at_home(mesh: Mesh, region: RegionId, key: ItemKey, item: Held) -> Steps[Held | None]:
    """An item counts as seeded, although its region does not hold the version."""
    if item.seen is not None:
        return item
    yield from ()
    return replace(item, stamp=Stamp(seed_version(region), StampKind.VALUE, item.content, NO_PARENT))


def put_at_once(mesh: Mesh, region: RegionId, key: ItemKey, item: Held, stamp: Stamp) -> Steps[None]:
    """A seed is put over what stands in another region, without giving that its own version first."""
    yield from apply_put(mesh, region, as_write(mesh, key, item, stamp), stamp)


def only_where_seen(
    mesh: VersionedMesh, region: RegionId, key: ItemKey, delete: Party, replaced: str | None
) -> RegionSteps[None]:
    """A delete is remembered everywhere, and carried out where an item stood when it was looked at."""
    yield At(region, RaiseTombstone(key, delete.rank.version))
    if region == delete.region:
        standing = yield from item_in(region, key)
        if standing is not None:
            yield from remove(mesh, key, delete, region, standing)


@dataclass(frozen=True, slots=True)
class Ablation:
    """What is taken out: a function of the copier; `scenario` shows what it was for."""

    removed: str
    scenario: Scenario
    patch: tuple[Any, str, Callable[..., Any]]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Run without the rule."""
        owner, name, other = self.patch
        original = vars(owner)[name]
        setattr(owner, name, other)
        try:
            yield
        finally:
            setattr(owner, name, original)


ABLATIONS = {
    "seed_durable": Ablation(
        "a seed is durable at home before another region sees it",
        Scenario("active", ((), ()), ("a", "b")),
        (active_active, "_seeded", never_stamped_at_home),
    ),
    "seed_own_first": Ablation(
        "what stands in another region gets its own version before a seed takes its place",
        Scenario("active", ((), ()), ("a", "b")),
        (active_active, "_bring_seed", put_at_once),
    ),
    "repair_delete_everywhere": Ablation(
        "a delete is carried out also where nothing stood at the look",
        Scenario("versioned", (("X",), ("D",)), ("=", "="), "repair", (1, 0), Missing.DELETE),
        (versioned, "delete_again", only_where_seen),
    ),
}


def found(name: str) -> Result:
    """How it goes wrong without a rule."""
    ablation = ABLATIONS[name]
    with ablation.applied():
        return MeshExplorer(ablation.scenario).run(400_000)


def shown(name: str) -> list[str] | None:
    """A counterexample, None when there is none."""
    result = found(name)
    return [*result.trace, f"   => {result.violation}"] if result.violation else None
