"""T27 to T34: the schedules that were found against the first version of the protocol, on the production mode.

Each ends well, and no longer does when its repair is taken out. (V9 is about mode `versioned`.)
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from replicator.domain.conflicts import LogConflict
from replicator.domain.errors import UnstampedItem
from replicator.domain.image import Image, stamped, unreserved
from replicator.domain.modes import ordered
from replicator.domain.modes.ordered import Action, Change, Effect, OrderedPolicy, Unstamped, replicate_ordered
from replicator.domain.modes.requests import Done
from replicator.domain.versions import ordered_version
from replicator.laboratory.memory import Slot, answer
from tests.simulation.ablations import TRACES, without
from tests.simulation.active_checks import logged, violation
from tests.simulation.active_places import KEY, content_number
from tests.simulation.active_scenario import LETTERS, Scenario, ops
from tests.simulation.active_search import play
from tests.simulation.active_words import shown
from tests.simulation.active_world import State, World

TOMBSTONE, AHEAD, SEED = ("tombstone", 1), ("ahead", 1), ("seed", 0)


def ended(schedule: str, scenario: Scenario, *removed: str) -> tuple[World, State]:
    """Where a schedule of the traces ends, with rules taken out."""
    with without(*removed) as variant:
        world = World(scenario, variant)
        state, _ = play(world, TRACES[schedule])
    assert world.is_quiescent(state)
    return world, state


def wrong(schedule: str, scenario: Scenario, *removed: str) -> str | None:
    """What is wrong at the end."""
    world, state = ended(schedule, scenario, *removed)
    return violation(world, state)


def held_by(world: World, state: State) -> list[str]:
    return [f"{LETTERS[region]}: {shown(world, state, region)}" for region in range(world.regions)]


# -- V1: a removal that met something newer looks again ------------------------------------------------------------

V1_MONOTONE = Scenario(ops("P1 | P2 D2"), TOMBSTONE, zombies=1)
V1_SEED = Scenario(ops("P2 P1 | D2"), SEED, zombies=1)
V1 = [("V1_monotone", V1_MONOTONE, "V4"), ("V1_seed", V1_SEED, "V2_least")]


@pytest.mark.parametrize(("schedule", "scenario", "hidden_by"), V1)
def test_v1_ends_well(schedule: str, scenario: Scenario, hidden_by: str) -> None:
    assert wrong(schedule, scenario) is None
    assert wrong(schedule, scenario, hidden_by) is None, "the repair alone is enough"


@pytest.mark.parametrize(("schedule", "scenario", "hidden_by"), V1)
def test_v1_without_its_repair_leaves_what_a_zombie_stamped_in_one_region(
    schedule: str, scenario: Scenario, hidden_by: str
) -> None:
    # A later repair keeps the versions from coming about that this one is for, so that one is taken out as well.
    found = wrong(schedule, scenario, "V1", hidden_by)
    assert found is not None
    assert found.startswith("DIVERGENCE")


# -- V2: the least version above the greatest floor ----------------------------------------------------------------

V2 = Scenario(ops("U2 | U3 P1 D3"), None, zombies=1)
V2_ORDER = Scenario(ops("P2 D2 D2 | P2"), TOMBSTONE, zombies=1)


def test_v2_ends_well() -> None:
    assert wrong("V2", V2) is None
    world, state = ended("V2_order", V2_ORDER)
    assert violation(world, state) is None
    one, two = (world.place(state, region).slot.row.deleted for region in (0, 1))
    assert one == two


@pytest.mark.parametrize("rule", ["V2_least", "V2_greatest"])
def test_v2_without_its_repair_lets_a_replay_exceed_a_later_write(rule: str) -> None:
    found = wrong("V2", V2, rule)
    assert found is not None
    assert found.startswith("CAUSAL")


def test_v2_without_its_repair_leaves_a_tombstone_above_that_of_a_later_delete() -> None:
    world, state = ended("V2_order", V2_ORDER, "V2_greatest")
    one, two = (world.place(state, region).slot.row.deleted for region in (0, 1))
    assert one is not None
    assert two is not None
    assert one > two
    assert one.sequence < two.sequence


# -- V3: the item first, then the row ------------------------------------------------------------------------------

V3 = Scenario(ops("P1 D1 | P2 D2"), AHEAD, zombies=1)


def test_v3_ends_well() -> None:
    assert wrong("V3", V3) is None


def test_v3_without_its_repair_misses_a_tombstone_between_two_looks() -> None:
    found = wrong("V3", V3, "V3")
    assert found is not None
    assert found.startswith("DIVERGENCE")


# -- V4: which delete took effect ----------------------------------------------------------------------------------

V4 = Scenario(ops("U3 P3 | D3 P3 D3"), SEED, zombies=1)


def test_v4_ends_well() -> None:
    world, state = ended("V4", V4)
    assert violation(world, state) is None
    assert held_by(world, state)[0].startswith("A: c2{P(3,1,A,5)}"), "the write that saw the delete is later than it"


def test_v4_without_its_repair_forgets_what_a_write_had_seen() -> None:
    found = wrong("V4", V4, "V4")
    assert found is not None
    assert found.startswith("DIVERGENCE")


# -- V5: a delete that lost although it was not merged -------------------------------------------------------------

V5 = Scenario(ops("P3 R2 T2 | T2 P3"), AHEAD)


def test_v5_ends_well() -> None:
    assert wrong("V5", V5) is None


def test_v5_without_its_repair_does_not_log_the_expiry_that_lost() -> None:
    found = wrong("V5", V5, "V5")
    assert found is not None
    assert found.startswith("UNLOGGED: write 3 (T)")


# -- V6: an old image put back with its stamp (limit L3) -----------------------------------------------------------

V6 = Scenario(ops("U1 I1 | D1"), SEED, checks=frozenset())


def test_v6_regions_agree_though_such_a_write_may_win_or_be_lost() -> None:
    world, state = ended("V6", V6)
    assert violation(world, state) is None
    assert [content_number(slot.item) for slot in _slots(world, state) if slot.item is not None] == [0, 0]


def test_v6_without_its_repair_regions_differ() -> None:
    found = wrong("V6", V6, "V6")
    assert found is not None
    assert found.startswith("DIVERGENCE")


def _slots(world: World, state: State) -> list[Slot]:
    slots = [world.place(state, region).slot for region in range(world.regions)]
    return [Slot(slot.item, None, slot.row) for slot in slots]


# -- V7: an update and a delete by users between mark and delete (limit L4) ----------------------------------------

V7 = Scenario(ops("D1 | U1 D1"), SEED)


def test_v7_the_updated_value_comes_back_in_every_region_and_is_logged() -> None:
    world, state = ended("V7", V7)
    assert [content_number(slot.item) for slot in _slots(world, state) if slot.item is not None] == [2, 2]
    assert 2 in logged(world, state)


def test_v7_without_its_repair_nothing_tells_of_it() -> None:
    world, state = ended("V7", V7, "V7")
    assert 2 not in logged(world, state)


# -- a delete whose version a zombie gave on a newer look ----------------------------------------------------------

GIVEN_BEFORE = Scenario(ops("P2 D1 | P1"), ("buried", 1), zombies=1)


def test_a_delete_that_was_given_its_version_before_looks_again_at_what_it_lost_to() -> None:
    assert wrong("again", GIVEN_BEFORE) is None
    found = wrong("again", GIVEN_BEFORE, "again")
    assert found is not None
    assert found.startswith("UNLOGGED: write 2 (D)")


# -- a zombie's late put behind a delete (L11) ---------------------------------------------------------------------

CAME_BACK = Scenario(ops("P1 D2 | P1"), None, zombies=1)


def test_a_write_over_what_a_zombie_brought_back_is_later_than_the_delete_that_its_region_had_seen() -> None:
    world = World(CAME_BACK)
    state, _ = play(world, "a A A A A A *A1 Z a Z Z A A A A B Z A A A A B Z b B B B B B B B B A A")
    assert violation(world, state) is None
    assert logged(world, state) == {2}, "the delete that lost is logged"
    assert [content_number(place.slot.item) for place in (world.place(state, 0), world.place(state, 1))] == [3, 3]


# -- V8: a replica of mode `ordered` becomes the writer ------------------------------------------------------------

OLD_EPOCH, NEW_EPOCH = 0, 1


def put(number: int) -> Image:
    return Image(b'{"pk":{"S":"k"},"w":{"N":"%d"}}' % number)


def arrived(slot: Slot, change: Change, policy: OrderedPolicy) -> tuple[Slot, Effect]:
    """A change, brought to a replica."""
    steps = replicate_ordered(change, policy)
    request = next(steps)
    while True:
        try:
            if isinstance(request, LogConflict):
                request = steps.send(Done())
            else:
                slot, response = answer(slot, request)
                request = steps.send(response)
        except StopIteration as end:
            return slot, end.value.effect


def promoted(images: Sequence[Image], policy: OrderedPolicy, epoch: int) -> tuple[Slot, Slot]:
    """Region A wrote one item and B has it; B is promoted, drained and fenced, writes the rest, and A follows."""
    former = Slot(images[0])
    new, _ = arrived(Slot(), Change(Action.PUT, KEY, ordered_version(OLD_EPOCH, 17, 900), None, images[0]), policy)
    assert new.item is not None
    for number, image in enumerate(images[1:], start=1):
        version = ordered_version(epoch, 17, number)
        old, new = unreserved(new.item), Slot(image)
        former, _ = arrived(former, Change(Action.PUT, KEY, version, old, image), policy)
    return former, new


IMAGES = [put(1), put(2), put(3)]


def test_v8_the_former_writer_follows_after_a_drained_and_fenced_promotion() -> None:
    former, new = promoted(IMAGES, OrderedPolicy(), NEW_EPOCH)
    assert former.item is not None
    assert (unreserved(former.item), new.item) == (put(3), put(3))


def test_v8_a_rule_that_does_not_adopt_stops_at_the_former_writers_items() -> None:
    with pytest.raises(UnstampedItem):
        promoted(IMAGES, OrderedPolicy(unstamped=Unstamped.STOP), NEW_EPOCH)


def test_v8_without_its_repair_the_former_writer_never_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered, "_is_ours", lambda item: item is not None)  # an unstamped item counted as newer
    former, new = promoted(IMAGES, OrderedPolicy(), NEW_EPOCH)
    assert (former.item, new.item) == (put(1), put(3))


def test_v8_without_a_higher_epoch_writes_of_the_new_writer_lose_to_those_of_the_old() -> None:
    stamped_before = Slot(Image(stamped(put(1), ordered_version(OLD_EPOCH, 17, 900))))
    for epoch, effect in ((OLD_EPOCH, Effect.STALE), (NEW_EPOCH, Effect.APPLIED)):
        change = Change(Action.PUT, KEY, ordered_version(epoch, 17, 5), put(1), put(2))
        assert arrived(stamped_before, change, OrderedPolicy())[1] is effect
