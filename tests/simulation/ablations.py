"""Mode `active-active` with a rule taken out: each must be found out by the explorer.

Production has no switches. A rule is one named function of the mode, which is replaced here, or a property of the
world, which is answered otherwise here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from replicator.domain.modes.active_active import classify, drain, echoes, replicate, versions
from replicator.domain.values import replace
from tests.simulation import ablated
from tests.simulation.active_checks import violation
from tests.simulation.active_scenario import PRODUCTION, Answer, Scenario, Variant, ops
from tests.simulation.active_search import Found, play, shortest
from tests.simulation.active_words import narrated
from tests.simulation.active_world import World

Patch = tuple[Any, str, Any]


@dataclass(frozen=True, slots=True)
class Ablation:
    """What is taken out: functions of the mode (`patches`), or of the world around it (`variant`).

    `scenario` shows what it was for: by `schedule` where the shortest way would take millions of states to find, and
    where another rule hides it, with that one taken out too (`without`).
    """

    removed: str
    scenario: Scenario
    patches: tuple[Patch, ...] = ()
    variant: Variant = PRODUCTION
    schedule: str = ""
    without: tuple[str, ...] = ()

    @contextmanager
    def applied(self) -> Iterator[Variant]:
        """Run without the rule."""
        kept = [(owner, name, vars(owner)[name]) for owner, name, _ in self.patches]
        try:
            for owner, name, other in self.patches:
                setattr(owner, name, other)
            yield self.variant
        finally:
            for owner, name, original in kept:
                setattr(owner, name, original)


def _world(answer: Answer) -> Variant:
    return replace(PRODUCTION, answer=answer)


SEED = ("seed", 0)

TRACES = {
    "V1_monotone": "a A b b B B B B B B *A1 Z Z B A Z A B",
    "V1_seed": "a a A b B B B *A1 Z Z B A A A A Z Z Z Z Z Z A B",
    "V2": "a A A A A A b B B b B B B b B B B *B1 Z Z Z B B A B B Z Z Z Z Z B B B",
    "V2_order": "a a A A A A A b B B B B B A A A A B A B B a A A A A A A *A2 Z Z Z",
    "V3": "a a b B B B B B B A A A b A A A B B B B A B B *A2 Z Z Z Z Z A A A A A A",
    "V4": "b b b a *A1 Z Z Z Z Z Z B B B B B B B B B A B a Z Z Z Z B B B B B B A A A Z Z Z A Z Z Z B B B B B B"
    " A A A Z Z Z A A A A A",
    "V5": "a a b b B B B B B B B a a A A A B B B A A A A B B A A A A A A A A A B",
    "V6": "a A A b B B B B B B B a A A A A A A A A",
    "V7": "a A A A A A A b b B B B B B B B B B A A",
    "again": "a a A A A- A A A b A B B B B B B B *A1 Z Z Z Z Z A A A A A A",
}
"""The schedules of the traces, as `play` follows them."""


def _converging(text: str) -> Scenario:
    """Writes from a seeded start, of which only the convergence is looked at."""
    return Scenario(ops(text), SEED, checks=frozenset())


def _written(text: str, start: tuple[str, int] | None = SEED, *, zombies: int = 0) -> Scenario:
    return Scenario(ops(text), start, zombies=zombies)


ABLATIONS = {
    "stamp_back": Ablation(
        "stamp-back",
        _converging("P2 | U1"),
        ((replicate, "settle_put", ablated.never_settled),),
    ),
    "stamp_back_first": Ablation(
        "stamp-back before remote writes",
        _converging("P1 U2 | P2"),
        variant=replace(PRODUCTION, mode=ablated.settled_last),
    ),
    "tombstones": Ablation("tombstone rows", _converging("U1 | D2"), variant=_world(ablated.no_rows)),
    "mark": Ablation("delete mark", _written("D2 | P3"), variant=_world(ablated.no_marks)),
    "verification": Ablation(
        "ECHO-INSERT verification", _converging("P3 | D3"), ((echoes, "take_back", ablated.no_verification),)
    ),
    "bump": Ablation("causal bump", _converging("U3 | U3"), ((versions, "bumped", ablated.not_bumped),)),
    "sequence": Ablation(
        "sequence number in the version",
        _converging("U3 U3 | "),
        ((versions, "raw_version", ablated.without_sequence),),
    ),
    "hash": Ablation(
        "content hash in the stamp",
        _converging("U1 R1 | "),
        ((classify, "_is_echo", ablated.any_new_stamp_is_ours),),
    ),
    "nonce": Ablation(
        "nonce in the stamp",
        _written("U2 | U1 P2", zombies=1),
        schedule="a A A A A A b *A1 B b B Z Z Z Z B B B B B",
        variant=replace(PRODUCTION, nonces=False),
    ),
    "floor": Ablation("floor row", _converging("P1 D1 | U2"), ((replicate, "leave_floor", ablated.no_floor),)),
    "floor_seen": Ablation(
        "a floor is left only in the row that was looked at",
        _written("P1 P2 P1 D1 | ", None, zombies=1),
        schedule="a A A A A A a A A A A A A a a *A1 Z Z A A A A Z A A A A",
        variant=_world(ablated.blind_floors),
    ),
    "V10": Ablation(
        "without a tombstone it was a user [V10]",
        _written("P1 D1 | ", None),
        ((replicate, "user_deleted", ablated.asked_ahead_only),),
    ),
    "put_back": Ablation(
        "what the daemon removed is put back, also where its removal was not read yet",
        _written("P3 | D2"),
        ((replicate, "user_deleted", ablated.users_unless_found),),
    ),
    "removed_at": Ablation("`ls`: when a delete took effect", _written("P2 | D2"), variant=_world(ablated.no_removals)),
    "expiry": Ablation("tombstones outlive every replay", replace(_converging("U2 | D1"), crashes=1, expiry="any")),
    "side_read": Ablation(
        "side read on MODIFY",
        _converging("D1 P1 U1 | D3"),
        ((replicate, "look_home", ablated.no_row_for_a_present_item),),
    ),
    "V1": Ablation(
        "loop after remove [V1]",
        _written("P1 | P2 D2", ("tombstone", 1), zombies=1),
        ((replicate, "give_way", ablated.removed_and_done),),
        schedule=TRACES["V1_monotone"],
        without=("V4",),
    ),
    "V2_least": Ablation(
        "least version above the floors [V2]",
        _written("U2 | U3 P1 D3", None, zombies=1),
        ((versions, "bumped", ablated.always_counted_up),),
        schedule=TRACES["V2"],
    ),
    "V2_greatest": Ablation(
        "greatest floor only [V2]",
        _written("U2 | U3 P1 D3", None, zombies=1),
        ((versions, "bumped", ablated.one_floor_after_the_other),),
        schedule=TRACES["V2"],
    ),
    "V3": Ablation(
        "item first, then row [V3]",
        _written("P1 D1 | P2 D2", ("ahead", 1), zombies=1),
        ((replicate, "look_home", ablated.row_first_for_deletes),),
        schedule=TRACES["V3"],
    ),
    "V4": Ablation(
        "`lv`: which delete took effect [V4]",
        _written("U3 P3 | D3 P3 D3", zombies=1),
        schedule=TRACES["V4"],
        variant=_world(ablated.one_removal_per_tombstone),
    ),
    "V5": Ablation(
        "log of a delete that lost unmerged [V5]",
        _written("P3 R2 T2 | T2 P3", ("ahead", 1)),
        schedule=TRACES["V5"],
        variant=replace(PRODUCTION, mode=ablated.silent_where_a_delete_was_settled),
    ),
    "V6": Ablation(
        "a stamp on a restored image is no echo [V6]",
        _converging("U1 I1 | D1"),
        ((classify, "stamps_a_restored_image", lambda _old, _new: False),),
        schedule=TRACES["V6"],
    ),
    "again": Ablation(
        "another look where a delete was given its version before",
        _written("P2 D1 | P1", ("buried", 1), zombies=1),
        ((replicate, "look_again", ablated.never_looked_again),),
        schedule=TRACES["again"],
    ),
    "owed_row": Ablation(
        "a record is done for a region that does not answer only with its row",
        replace(_converging("P1 | "), away=(1,)),
        variant=replace(PRODUCTION, owing=ablated.never_owed),
    ),
    "owed_unchanged": Ablation(
        "a row is taken away only if it has not changed since it was read",
        replace(_converging("P1 U2 | "), away=(1,)),
        variant=replace(PRODUCTION, may_settle=ablated.always_settled),
    ),
    "owed_standing": Ablation(
        "what stands at home is brought, not the image of the record: tombstones may have expired since",
        replace(_converging("P1 D2 | "), away=(1,), expiry="safe"),
        variant=replace(PRODUCTION, owing=ablated.owed_with_its_image, drain=ablated.image_drained),
    ),
    "owed_delete": Ablation(
        "a delete is brought also where an item stands that it has still to take away",
        replace(_converging("P1 | D1"), away=(0, 1)),
        ((drain, "is_later", ablated.any_item_is_later),),
    ),
    "V7": Ablation(
        "log of an update between mark and delete [V7]",
        replace(_written("D1 | U1 D1"), logged=frozenset({2})),
        schedule=TRACES["V7"],
        variant=replace(PRODUCTION, mode=ablated.silent_removal),
    ),
}


@contextmanager
def without(*names: str) -> Iterator[Variant]:
    """Take several rules out at once; at most one of them may be a property of the world."""
    with ExitStack() as stack:
        worlds = [stack.enter_context(ABLATIONS[name].applied()) for name in names]
        changed = [world for world in worlds if world is not PRODUCTION]
        assert len(changed) <= 1, "worlds cannot be combined"
        yield changed[0] if changed else PRODUCTION


def found(name: str) -> Found | None:
    """How it goes wrong without a rule: by the schedule that is known to show it, else the shortest way."""
    ablation = ABLATIONS[name]
    with without(name, *ablation.without) as variant:
        if not ablation.schedule:
            return shortest(ablation.scenario, variant)
        world = World(ablation.scenario, variant)
        state, way = play(world, ablation.schedule)
        wrong = violation(world, state)
        return None if wrong is None else Found(wrong, way, len(way))


def shown(name: str) -> list[str] | None:
    """A counterexample in words, None when there is none."""
    ablation, wrong = ABLATIONS[name], found(name)
    if wrong is None:
        return None
    others = f", also without {', '.join(ablation.without)}" if ablation.without else ""
    with without(name, *ablation.without) as variant:
        lines = narrated(World(ablation.scenario, variant), wrong.way)
    return [f"{ablation.scenario}{others}", *lines, f"   => {wrong.violation}"]
