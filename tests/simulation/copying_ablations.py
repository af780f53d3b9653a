"""Copying with a rule taken out: each must be found out by the explorer."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from replicator.domain.copying.looks import Difference, On, Seen, Side
from replicator.domain.copying.ordered import Extra, Mended, repair_ordered
from replicator.domain.image import Image, stamped
from replicator.domain.modes.ordered import OrderedPolicy
from replicator.domain.modes.requests import (
    Absent,
    Delete,
    Done,
    Found,
    GetItem,
    GetTombstone,
    GuardedPut,
    Put,
    Request,
    Response,
    StampIs,
    TombstoneIs,
)
from replicator.domain.records import ItemKey
from replicator.domain.values import replace
from replicator.domain.versions import ordered_version
from replicator.laboratory.memory import Slot, answer
from tests.simulation.copying_world import PRODUCTION, Explorer, Result, Scenario, Variant
from tests.simulation.ordered_world import GENERATION

Steps = Generator[Any, Response, Any]


def unguarded(slot: Slot, request: Request) -> tuple[Slot, Response]:
    """No put looks at the tombstone."""
    return answer(slot, request.put if isinstance(request, GuardedPut) else request)


def stamps_uncompared(slot: Slot, request: Request) -> tuple[Slot, Response]:
    """A repair writes over whatever item stands there."""
    match request:
        case Put(_, image, version, StampIs()):
            return replace(slot, item=Image(stamped(image, version))), Done()
        case GuardedPut(Put(when=StampIs()) as put, guard):
            after, response = answer(replace(slot, item=None), GuardedPut(structs.replace(put, when=Absent()), guard))
            return (after, response) if response == Done() else (slot, response)
        case Delete(_, StampIs()):
            return replace(slot, item=None), Done()
        case _:
            return answer(slot, request)


def source_first(key: ItemKey) -> Steps:
    """The second look in the other order."""
    source = yield On(Side.SOURCE, GetItem(key))
    target = yield On(Side.TARGET, GetItem(key))
    row = yield On(Side.TARGET, GetTombstone(key))
    assert isinstance(target, Found)
    assert isinstance(row, Found)
    assert isinstance(source, Found)
    return Seen(key, target.item, row.tombstone, source.item)


def counted_up(difference: Difference, base: str, policy: OrderedPolicy, extra: Extra) -> Steps:
    """What differs gets the next version instead of the same one."""
    steps = repair_ordered(difference, base, policy, extra)
    response: Response | None = None
    while True:
        try:
            request = next(steps) if response is None else steps.send(response)
        except StopIteration as end:
            return end.value
        if isinstance(request, On) and isinstance(request.request, Put):
            put = request.request
            request = On(request.side, structs.replace(put, version=f"{int(put.version) + 1:0{len(put.version)}d}"))
        response = yield request


def base_over_a_delete(difference: Difference, base: str, policy: OrderedPolicy, extra: Extra) -> Steps:
    """What a lost record had created again behind a delete is put below that delete."""
    seen = difference.seen
    if difference.wanted is None or seen.target is not None or seen.tombstone is None or seen.tombstone < base:
        return (yield from repair_ordered(difference, base, policy, extra))

    put = Put(difference.key, difference.wanted, base, Absent())
    answered = yield On(Side.TARGET, GuardedPut(put, TombstoneIs(seen.tombstone)))
    return Mended.PUT if isinstance(answered, Done) else Mended.CHANGED


@dataclass(frozen=True, slots=True)
class Ablation:
    """What is taken out, and the scenario that shows what it was for."""

    removed: str
    scenario: Scenario
    variant: Variant


ABLATIONS = {
    "copy_tombstone": Ablation(
        "a put onto a missing key is atomic with the check of the tombstone",
        Scenario("PD"),
        replace(PRODUCTION, world=unguarded),
    ),
    "copy_stamp": Ablation(
        "a repair is conditional on the stamp that was seen",
        Scenario("P", replica="older"),
        replace(PRODUCTION, world=stamps_uncompared),
    ),
    "copy_second_look": Ablation(
        "a repair needs a second look",
        Scenario("PP"),
        replace(PRODUCTION, looks_twice=False),
    ),
    "copy_order": Ablation(
        "the second look reads the target before the source",
        Scenario("D", imported=True, replica="absent"),
        replace(PRODUCTION, second_look=source_first),
    ),
    "copy_same_version": Ablation(
        "what differs keeps its version",
        Scenario("PP", damage="changed"),
        replace(PRODUCTION, repair=counted_up),
    ),
    "copy_fence": Ablation(
        "neither a look nor a write counts while a forgotten worker may write",
        Scenario("PP", damage="gone", zombies=1),
        replace(PRODUCTION, fenced=False),
    ),
    "copy_base": Ablation(
        "what stood there before the stream lies below every record",
        Scenario("P", "seed", imported=True, replica="absent"),
        replace(PRODUCTION, base=ordered_version(0, GENERATION, 2)),
    ),
    "copy_buried": Ablation(
        "a lost item behind a delete gets the delete's version: else what is replayed shows older",
        Scenario("UDP", imported=True, damage="gone", crashes=1, waits=True, monotone=True),
        replace(PRODUCTION, repair=base_over_a_delete),
    ),
    "copy_fence_same": Ablation(
        "nor does a look that finds no difference",
        Scenario("PD", damage="gone", lost=1, zombies=1),
        replace(PRODUCTION, fences_first=False),
    ),
    "copy_waits": Ablation(
        "no reader sees older behind newer while the copier waits",
        Scenario("PP", "seed", imported=True, replica="absent", monotone=True),
        PRODUCTION,
    ),
}


def found(name: str) -> Result:
    """How it goes wrong without a rule."""
    ablation = ABLATIONS[name]
    return Explorer(ablation.scenario, ablation.variant).run()


def shown(name: str) -> list[str] | None:
    """A counterexample, None when there is none."""
    result = found(name)
    return [*result.trace, f"   => {result.violation}"] if result.violation else None
