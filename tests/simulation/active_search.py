"""Searches through `active_world`: all states, or random walks; a violation comes with the way to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from tests.simulation.active_scenario import LETTERS, PRODUCTION, Scenario, Variant
from tests.simulation.active_world import Move, State, Violation, World

_WORK = 0.93
"""How often a random walk goes on instead of letting something go wrong."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a search saw; without a violation, and if `complete`, it saw everything."""

    states: int
    quiescent: int
    most_writes: int
    violation: str | None = None
    way: tuple[Move, ...] = ()
    complete: bool = True


def explore(scenario: Scenario, variant: Variant = PRODUCTION, limit: int | None = None) -> Result:
    """Depth first through every state; states are remembered by a hash of 64 bits. Stops at the first violation."""
    world = World(scenario, variant)
    seen = {hash(world.start)}
    path: list[tuple[Move, Iterator[tuple[Move, State]]]] = [(("start", 0, 0), world.moves(world.start))]
    quiescent = most = 0

    def result(violation: str | None = None, *, complete: bool = True) -> Result:
        way = tuple(move for move, _ in path[1:]) if violation else ()
        return Result(len(seen), quiescent, most, violation, way, complete)

    try:
        while path:
            for move, state in path[-1][1]:
                mark = hash(state)
                if mark in seen:
                    continue
                seen.add(mark)
                path.append((move, world.moves(state)))
                if world.is_quiescent(state):
                    quiescent += 1
                    most = max(most, world.daemon_writes(state))
                    wrong = world.check(state)
                    if wrong is not None:
                        return result(wrong)
                break
            else:
                path.pop()
            if limit is not None and len(seen) >= limit:
                return result(complete=False)
    except Violation as violation:
        return result(str(violation))
    return result()


# -- ways ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """A violation, and the shortest way to it."""

    violation: str
    way: tuple[Move, ...]
    states: int


def shortest(scenario: Scenario, variant: Variant = PRODUCTION, limit: int = 2_000_000) -> Found | None:
    """Breadth first: the shortest way to a violation, None if there is none (or none within `limit` states)."""
    world = World(scenario, variant)
    came: dict[State, tuple[State, Move] | None] = {world.start: None}
    queue = deque([world.start])
    while queue and len(came) < limit:
        state = queue.popleft()
        for move, after in world.moves(state):
            if after in came:
                continue
            came[after] = (state, move)
            queue.append(after)
            wrong = world.check(after) if world.is_quiescent(after) else None
            if wrong is not None:
                return Found(wrong, _way(came, after), len(came))
    return None


def _way(came: dict[State, tuple[State, Move] | None], state: State) -> tuple[Move, ...]:
    moves: list[Move] = []
    step = came[state]
    while step is not None:
        state, move = step
        moves.append(move)
        step = came[state]
    return tuple(reversed(moves))


def walk(scenario: Scenario, dice: Random, variant: Variant = PRODUCTION) -> Found | None:
    """A random walk to the end; None when all is well there."""
    world = World(scenario, variant)
    way: list[Move] = []
    try:
        state = wander(world, dice, way)
    except Violation as violation:
        return Found(str(violation), tuple(way), len(way))
    wrong = world.check(state) if world.is_quiescent(state) else "NO END"
    return None if wrong is None else Found(wrong, tuple(way), len(way))


def wander(world: World, dice: Random, way: list[Move], longest: int = 4000) -> State:
    """Where a random walk ends; its moves are added to `way`. Faults are rarer than work."""
    state = world.start
    for _ in range(longest):
        choices = list(world.moves(state))
        work = [choice for choice in choices if choice[0][0] in {"user", "step"}]
        faults = [choice for choice in choices if choice[0][0] not in {"user", "step"}]
        deaths = [choice for choice in faults if choice[0][0] == "die"]
        if work and (not faults or dice.random() < _WORK):
            move, after = dice.choice(work)
        elif work or deaths:
            move, after = dice.choice(faults if work else deaths)
        else:
            break
        way.append(move)
        state = after
    return state


# -- schedules -----------------------------------------------------------------------------------------------------


def play(world: World, schedule: str) -> tuple[State, tuple[Move, ...]]:
    """Follow a schedule, then let everything come to rest: zombies die, users and workers finish.

    `a` is a write of region A's user, `A` one step of its worker, `*A2` wakes a zombie of A's shard at record 2, `Z` is
    one step of the zombie, `!A1` a crash of A's worker that replays from record 1. Whoever has nothing to do is passed.
    """
    state, way = world.start, []
    for token in schedule.split():
        move, moves = _move(world, token), dict(world.moves(state))
        if move in moves:
            state = moves[move]
            way.append(move)
    while True:
        moves = dict(world.moves(state))
        kinds = {move[0] for move in moves}
        kind = next((kind for kind in _ENDING if kind in kinds), None)
        if kind is None:
            return state, tuple(way)
        move = next(move for move in moves if move[0] == kind)
        state = moves[move]
        way.append(move)


_ENDING = ("die", "user", "step")


def _move(world: World, token: str) -> Move:
    if token == "Z":
        return "step", world.zombie, 0
    if token[0] in "*!":
        kind = "zombie" if token[0] == "*" else "crash"
        return kind, LETTERS.index(token[1]), int(token[2:]) - 1
    region = LETTERS.index(token.upper())
    return ("user", region, 0) if token.islower() else ("step", world.worker + region, 0)


def schedule_of(world: World, way: tuple[Move, ...]) -> str:
    """A way as a schedule that `play` follows."""
    tokens: list[str] = []
    for kind, whom, position in way:
        match kind:
            case "user":
                tokens.append(LETTERS[whom].lower())
            case "step":
                tokens.append("Z" if whom >= world.zombie else LETTERS[whom - world.worker])
            case "zombie" | "crash":
                tokens.append(f"{'*' if kind == 'zombie' else '!'}{LETTERS[whom]}{position + 1}")
            case _:
                tokens.append("")
    return " ".join(filter(None, tokens))
