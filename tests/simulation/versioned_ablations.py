"""Mode `versioned` with a rule about owed keys taken out: each must be found out by the explorer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from replicator.domain.identifiers import RegionId
from replicator.domain.modes.versioned import replicate as versioned
from replicator.domain.modes.versioned.drain import drain
from replicator.domain.modes.versioned.ranks import rank_of
from replicator.domain.modes.versioned.replicate import Joined, Known, VersionedMesh, Write
from replicator.domain.records import ChangeRecord, ItemKey
from tests.simulation.active_owed import NoAnswer, Settle
from tests.simulation.versioned_machine import Machine
from tests.simulation.versioned_owed import Kept, Owe, Owing, Steps, kept_of, owing, owing_with
from tests.simulation.versioned_search import explore
from tests.simulation.versioned_states import Result, Scenario


def never_owed(record: ChangeRecord, mesh: VersionedMesh, known: Known) -> Steps:
    """A record counts as done for a region that does not answer, although no row says so."""
    steps = owing(record, mesh, known)
    answer: Any = None
    while True:
        try:
            request = steps.send(answer) if not isinstance(answer, NoAnswer) else steps.throw(answer)
            while isinstance(request, Owe):
                request = steps.send(None)
        except StopIteration as end:
            return end.value
        try:
            answer = yield request
        except NoAnswer as silent:
            answer = silent


def claiming(record: ChangeRecord, mesh: VersionedMesh, known: Known) -> Steps:
    """A region that is owed an image is remembered as holding it."""
    owed: list[Write] = []

    def kept(write: Write) -> Kept:
        owed.append(write)
        return kept_of(mesh, write)

    joined = yield from owing_with(record, mesh, known, lambda write, _: kept(write))
    return Joined(joined.rank, joined.effects, (mesh.home, *mesh.others)) if owed else joined


def owing_its_image(record: ChangeRecord, mesh: VersionedMesh, known: Known) -> Steps:
    """A row keeps the write itself."""
    return (yield from owing_with(record, mesh, known, lambda write, _: write))


def image_drained(mesh: VersionedMesh, region: RegionId, _key: ItemKey, kept: Any) -> Steps:
    """Bring the image that a row keeps, whatever stands at home by now."""
    yield from versioned.deliver(mesh, region, kept, ())
    yield Settle(region)


def item_alone(mesh: VersionedMesh, region: RegionId, key: ItemKey, kept: Any) -> Steps:
    """Bring the item that stands at home, also where a delete has still to take it away."""
    item = yield from versioned.item_in(mesh.home, key)
    if item is None:
        yield from drain(mesh, region, key, *kept)
    else:
        party = versioned.Party(rank_of(mesh.version, item), item, mesh.home, None)
        yield from versioned.join(mesh, key, party, region, kept.replaced, ())
    yield Settle(region)


def always_settled(_read: str, _standing: str) -> bool:
    """A row is taken away, whatever became of it since it was read."""
    return True


def rank_alone(_position: int, decided: str) -> str:
    """A row's version is the rank alone: the same again when a user's lower write was taken back."""
    return decided


@dataclass(frozen=True, slots=True)
class Ablation:
    """What is taken out, and the scenario that shows what it was for."""

    removed: str
    scenario: Scenario
    owing: Owing


ABLATIONS = {
    "versioned_row": Ablation(
        "a record is done for a region that does not answer only with its row",
        Scenario((("1",), ("1",)), away=(0, 1)),
        Owing(record=never_owed),
    ),
    "versioned_unchanged": Ablation(
        "a row is taken away only if it has not changed since it was read",
        Scenario((("1", "1"), ()), away=(1,)),
        Owing(may_settle=always_settled),
    ),
    "versioned_place": Ablation(
        "a row's version has the place of its record: a rank may be owed twice",
        Scenario((("1", "X"), ()), away=(1,)),
        Owing(version=rank_alone),
    ),
    "versioned_standing": Ablation(
        "what stands at home is brought, not the image of the record",
        Scenario((("D", "X"), ()), "seeded", away=(1,)),
        Owing(record=owing_its_image, drain=image_drained),
    ),
    "versioned_delete": Ablation(
        "a delete is brought also where an item stands that it has still to take away",
        Scenario((("D", "X"), ()), "seeded", away=(1,)),
        Owing(drain=item_alone),
    ),
    "versioned_known": Ablation(
        "a region that is owed an image is not remembered as holding it",
        Scenario((("2", "1"), ()), away=(1,), remembers=True),
        Owing(record=claiming),
    ),
}


def found(name: str) -> Result:
    """How it goes wrong without a rule."""
    ablation = ABLATIONS[name]
    return explore(ablation.scenario, Machine(len(ablation.scenario.ops), owing=ablation.owing))


def shown(name: str) -> list[str] | None:
    """A counterexample, None when there is none."""
    result = found(name)
    return [*result.trace, f"   => {result.violation}"] if result.violation else None
