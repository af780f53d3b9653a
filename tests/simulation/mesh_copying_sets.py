"""Sets of scenarios about copying in the modes of a mesh, as `prove` searches them completely."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

from replicator.domain.copying.meshes import Missing
from replicator.domain.values import replace
from tests.simulation.mesh_copying_world import Scenario

STARTS = {
    "active": (("a", "a"), ("a", "b"), ("b", "a"), ("a", ""), ("", "a")),
    "versioned": (("a1", "a1"), ("a1", "b1"), ("b1", "a1"), ("a1", "a2"), ("a1", "")),
}
WRITES = {"active": ("P1", "U1", "D1"), "versioned": ("1", "2", "D", "X")}
Ops = tuple[tuple[str, ...], ...]


def _seeds(*shapes: tuple[int, ...]) -> Iterator[Scenario]:
    for mode, shape in product(STARTS, shapes):
        for starts, ops in product(STARTS[mode], _ops(mode, shape)):
            yield Scenario(mode, ops, starts)


def _ops(mode: str, shape: tuple[int, ...]) -> Iterator[Ops]:
    for words in product(WRITES[mode], repeat=sum(shape)):
        rest = iter(words)
        yield tuple(tuple(next(rest) for _ in range(count)) for count in shape)


def mesh_seeds() -> Iterator[Scenario]:
    """Two regions with old items, equal, different or only in one; at most one write; copiers may die or be two."""
    for scenario in _seeds((0, 0), (1, 0), (0, 1)):
        yield from (replace(scenario, stops=stops, doubles=two) for stops, two in ((0, 0), (1, 0), (0, 1)))


def mesh_seeds_crash() -> Iterator[Scenario]:
    """As `mesh_seeds` with one write, and a crash of a worker."""
    return (replace(scenario, crashes=1) for scenario in _seeds((1, 0), (0, 1)))


def mesh_seeds_more() -> Iterator[Scenario]:
    """As `mesh_seeds`, one write in each region: long."""
    return _seeds((1, 1))


def mesh_seeds_three() -> Iterator[Scenario]:
    """Three regions with old items, and no writes."""
    for starts in product(("a", "b", ""), repeat=3):
        yield Scenario("active", ((), (), ()), starts)
    for starts in product(("a1", "b1", "a2", ""), repeat=3):
        yield Scenario("versioned", ((), (), ()), starts)


def mesh_repairs() -> Iterator[Scenario]:
    """Two regions, up to two writes, one of the first two records of either lost; every policy that decides."""
    for mode, shape in product(WRITES, ((1, 0), (0, 1), (2, 0), (1, 1))):
        for start, ops in product(("=", ""), _ops(mode, shape)):
            for region, record, missing in product((0, 1), (0, 1), (Missing.KEEP, Missing.DELETE)):
                yield Scenario(mode, ops, (start, start), "repair", (region, record), missing)


def mesh_repairs_faulty() -> Iterator[Scenario]:
    """As `mesh_repairs` with one write, with a crash of a worker or a copier."""
    for scenario in mesh_repairs():
        if sum(map(len, scenario.ops)) == 1:
            yield from (replace(scenario, crashes=crashes, stops=stops) for crashes, stops in ((1, 0), (0, 1)))


SETS: dict[str, Callable[[], Iterator[Scenario]]] = {
    f"copying_{part.__name__}": part
    for part in (mesh_seeds, mesh_seeds_crash, mesh_seeds_three, mesh_repairs, mesh_repairs_faulty, mesh_seeds_more)
}
