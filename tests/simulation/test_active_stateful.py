"""Mode `active-active` as a hypothesis state machine: what goes wrong is shrunk to the shortest way to it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.simulation.ablations import ABLATIONS, without
from tests.simulation.active_checks import violation
from tests.simulation.active_scenario import PRODUCTION, Op, Scenario, Variant
from tests.simulation.active_world import Move, State, World

OPS = st.builds(Op, st.sampled_from("PUDRT"), st.integers(1, 3))
STARTS = st.sampled_from([None, ("seed", 0), ("ahead", 1), ("tombstone", 1)])


class Mesh(RuleBasedStateMachine):
    """Users, workers and faults of a small mesh, one request at a time."""

    variant: Variant = PRODUCTION
    fixed: Scenario | None = None

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None
        self.state: State = ()

    @initialize(
        writes=st.lists(st.lists(OPS, max_size=2), min_size=2, max_size=3).filter(any),
        start=STARTS,
        crashes=st.integers(0, 1),
        zombies=st.integers(0, 1),
    )
    def begin(self, writes: list[list[Op]], start: tuple[str, int] | None, crashes: int, zombies: int) -> None:
        self.world = World(
            self.fixed or Scenario(tuple(map(tuple, writes)), start, crashes=crashes, zombies=zombies), self.variant
        )
        self.state = self.world.start

    def moves(self, *kinds: str) -> list[tuple[Move, State]]:
        assert self.world is not None
        return [(move, after) for move, after in self.world.moves(self.state) if move[0] in kinds]

    def go(self, choice: int, *kinds: str) -> None:
        moves = self.moves(*kinds)
        self.state = moves[choice % len(moves)][1]

    @precondition(lambda self: self.moves("user"))
    @rule(choice=st.integers(0, 2))
    def user_writes(self, choice: int) -> None:
        self.go(choice, "user")

    @precondition(lambda self: self.moves("step"))
    @rule(choice=st.integers(0, 5), times=st.integers(1, 6))
    def worker_steps(self, choice: int, times: int) -> None:
        for _ in range(times):
            if self.moves("step"):
                self.go(choice, "step")

    @precondition(lambda self: self.moves("crash"))
    @rule(choice=st.integers(0, 20))
    def worker_crashes(self, choice: int) -> None:
        self.go(choice, "crash")

    @precondition(lambda self: self.moves("zombie"))
    @rule(choice=st.integers(0, 20))
    def zombie_wakes(self, choice: int) -> None:
        self.go(choice, "zombie")

    @precondition(lambda self: self.moves("die"))
    @rule(choice=st.integers(0, 1))
    def zombie_dies(self, choice: int) -> None:
        self.go(choice, "die")

    @precondition(lambda self: self.world is not None and not self.moves("user", "step", "crash", "zombie", "die"))
    @rule()
    def nothing_is_left(self) -> None:
        """A machine always has something to choose."""

    def teardown(self) -> None:
        """Let everything come to rest: there all regions agree, the greatest write won, every lost one was logged."""
        if self.world is None:
            return
        while not self.world.is_quiescent(self.state):
            self.go(0, "user", "step", "die")
        assert violation(self.world, self.state) is None


BOUNDS = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def test_a_mesh_comes_to_rest_well_whatever_happens() -> None:
    run_state_machine_as_test(Mesh, settings=BOUNDS)


@pytest.mark.parametrize("name", ["bump", "tombstones"])
def test_a_rule_that_is_taken_out_is_found(name: str) -> None:
    ablation = ABLATIONS[name]
    with without(name, *ablation.without) as taken:

        class Ablated(Mesh):
            variant = taken
            fixed = ablation.scenario

        first = settings(BOUNDS, max_examples=2000, phases=[Phase.generate], report_multiple_bugs=False)
        with pytest.raises(AssertionError):
            run_state_machine_as_test(Ablated, settings=first)
