"""A source without order: a worker takes the records of its region in any order, and once more after a crash.

What Kinesis may do to a stream. Positions mean nothing then, so a walk keeps by itself which records were applied.
"""

from __future__ import annotations

from random import Random

from tests.simulation.active_checks import violation
from tests.simulation.active_regions import Violation
from tests.simulation.active_scenario import PRODUCTION, Scenario, Variant
from tests.simulation.active_world import State, World

_NODES = 1 << 32
_CRASH = 0.03
_REPEAT = 0.1
"""How often a record that was applied already is delivered again."""


class Delivery:
    """One walk: the state of the world, and what of each stream was applied."""

    def __init__(self, world: World, dice: Random) -> None:
        self._world = world
        self._dice = dice
        self._applied: list[set[int]] = [set() for _ in range(world.regions)]
        self._crashes = world.scenario.crashes
        self.state = world.start

    def walk(self, longest: int = 4000) -> str | None:
        """Go on until everything is applied; None, or what is wrong then."""
        try:
            for _ in range(longest):
                if not self._move():
                    return violation(self._world, self._ended())
        except Violation as broken:
            return str(broken)
        return "NO END"

    def _move(self) -> bool:
        """One write of a user, or one request of a worker, or a crash; False when nothing is left to do."""
        world, dice = self._world, self._dice
        users = [after for (kind, _, _), after in world.moves(self.state) if kind == "user"]
        workers = [region for region in range(world.regions) if self._busy(region) or self._open(region)]
        if not users and not workers:
            return False
        if workers and self._crashes and dice.random() < _CRASH:
            self._crash(dice.choice(workers))
        elif users and (not workers or dice.random() < 1 / 4):
            self.state = dice.choice(users)
        else:
            self._step(dice.choice(workers))
        return True

    def _length(self, region: int) -> int:
        return len(self._world.place(self.state, region).stream)

    def _busy(self, region: int) -> bool:
        """Whether a worker is in the middle of a record."""
        return self._world.at(self.state, self._world.worker + region)[2] != 0

    def _open(self, region: int) -> list[int]:
        return [number for number in range(self._length(region)) if number not in self._applied[region]]

    def _crash(self, region: int) -> None:
        """All records are delivered again."""
        self._crashes -= 1
        self._applied[region].clear()
        self._stand(region, 0)

    def _stand(self, region: int, number: int) -> None:
        index = self._world.worker + region
        self.state = (*self.state[:index], number * _NODES, *self.state[index + 1 :])

    def _step(self, region: int) -> None:
        index = self._world.worker + region
        if not self._busy(region):
            again = self._dice.random() < _REPEAT
            self._stand(region, self._dice.choice(range(self._length(region)) if again else self._open(region)))
        _, before, _ = self._world.at(self.state, index)
        self.state = self._world.steps(self.state, index)[0]
        _, after, _ = self._world.at(self.state, index)
        self._applied[region] |= set(range(before, after))

    def _ended(self) -> State:
        """The state as `check` expects it: every worker behind the last record."""
        for region in range(self._world.regions):
            self._stand(region, self._length(region))
        return self.state


def deliver(scenario: Scenario, dice: Random, variant: Variant = PRODUCTION) -> str | None:
    """A random walk with an unordered source to its end; None, or what is wrong there."""
    return Delivery(World(scenario, variant), dice).walk()
