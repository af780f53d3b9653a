"""Searches through `versioned_world`: all states, or random walks."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tests.simulation.uncollected import uncollected
from tests.simulation.versioned_machine import Machine
from tests.simulation.versioned_states import Result, Scenario, State, Violation
from tests.simulation.versioned_world import Move, World

# -- searches ------------------------------------------------------------------------------------------------------


@uncollected()
def explore(scenario: Scenario, machine: Machine) -> Result:
    """Depth-first search over all states of one scenario, each visited once."""
    world = World(scenario, machine)
    start = world.start()
    seen, quiescent = {start}, 0
    path: list[tuple[Move | None, State, Iterator[Move]]] = [(None, start, iter(world.moves(start)))]
    try:
        while path:
            _, here, moves = path[-1]
            for move in moves:
                state = world.after(here, move)
                before = len(seen)
                seen.add(state)
                if len(seen) == before:
                    continue
                path.append((move, state, iter(world.moves(state))))
                if world.quiescent(state):
                    quiescent += 1
                    world.check(state)
                break
            else:
                path.pop()
    except Violation as violation:
        return Result(len(seen), quiescent, str(violation), tuple(f"{move}" for move, _, _ in path[1:]))
    return Result(len(seen), quiescent)


def walk(scenario: Scenario, machine: Machine, dice: Random) -> Result:
    """One random run to the end; faults are rarer than the rest."""
    world = World(scenario, machine)
    state, trace = world.start(), []
    try:
        while True:
            moves = world.moves(state)
            plain = [move for move in moves if move[0] in {"user", "step"}]
            faults = [move for move in moves if move[0] not in {"user", "step"}]
            if not plain:
                faults = [move for move in faults if move[0] == "dies"]
            if not plain and not faults:
                break
            move = dice.choice(plain if plain and (not faults or dice.random() < 0.93) else faults)
            trace.append(f"{move}")
            state = world.after(state, move)
        assert world.quiescent(state)
        world.check(state)
    except Violation as violation:
        return Result(len(trace), 0, str(violation), tuple(trace))
    return Result(len(trace), 1)
