"""Searches through `active_world`: all states, or random walks; a violation comes with the way to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from tests.simulation.active_checks import daemon_writes, violation
from tests.simulation.active_regions import Violation
from tests.simulation.active_scenario import LETTERS, PRODUCTION, Scenario, Variant
from tests.simulation.active_world import Move, State, World

_WORKS = frozenset({"user", "step", "drain"})
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


def explore(
    scenario: Scenario, variant: Variant = PRODUCTION, limit: int | None = None, *, every_move: bool = False
) -> Result:
    """Depth first through every state; states are remembered by a hash of 64 bits. Stops at the first violation.

    `every_move`: also those that make no difference (see `World.nexts`); a test holds both searches against each other.
    """
    world = World(scenario, variant)
    follow = world.nexts if not every_move else lambda state: [after for _, after in world.moves(state)]
    seen = {hash(world.start)}
    path: list[tuple[State, Iterator[State]]] = []
    state: State | None = world.start
    quiescent = most = 0

    def result(found: str | None = None, *, complete: bool = True) -> Result:
        way = _way_along(world, [state for state, _ in path]) if found else ()
        return Result(len(seen), quiescent, most, found, way, complete)

    try:
        while True:
            if state is None:
                path.pop()
                if not path:
                    return result()
            else:
                path.append((state, iter(())))
                path[-1] = state, iter(follow(state))
                if world.is_quiescent(state):
                    quiescent += 1
                    most = max(most, daemon_writes(world, state))
                    found = violation(world, state)
                    if found is not None:
                        return result(found)
                if limit is not None and len(seen) >= limit:
                    return result(complete=False)
            state = _unseen(path[-1][1], seen)
    except Violation as broken:
        return result(str(broken))


def _unseen(states: Iterator[State], seen: set[int]) -> State | None:
    """The next state that was not seen before."""
    for state in states:
        mark = hash(state)
        if mark not in seen:
            seen.add(mark)
            return state
    return None


def _way_along(world: World, states: Sequence[State]) -> tuple[Move, ...]:
    return tuple(move for before, after in pairwise(states) for move in world.named(before, after))


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
    came: dict[State, State | None] = {world.start: None}
    queue = deque([world.start])
    while queue and len(came) < limit:
        state = queue.popleft()
        for after in world.nexts(state):
            if after in came:
                continue
            came[after] = state
            queue.append(after)
            found = violation(world, after) if world.is_quiescent(after) else None
            if found is not None:
                return Found(found, _way_along(world, _states_to(came, after)), len(came))
    return None


def _states_to(came: dict[State, State | None], end: State) -> list[State]:
    states: list[State] = []
    state: State | None = end
    while state is not None:
        states.append(state)
        state = came[state]
    return states[::-1]


def walk(scenario: Scenario, dice: Random, variant: Variant = PRODUCTION) -> Found | None:
    """A random walk to the end; None when all is well there."""
    world = World(scenario, variant)
    way: list[Move] = []
    try:
        state = wander(world, dice, way)
    except Violation as broken:
        return Found(str(broken), tuple(way), len(way))
    found = violation(world, state) if world.is_quiescent(state) else "NO END"
    return None if found is None else Found(found, tuple(way), len(way))


def wander(world: World, dice: Random, way: list[Move], longest: int = 4000) -> State:
    """Where a random walk ends; its moves are added to `way`. Faults are rarer than work."""
    state = world.start
    for _ in range(longest):
        choices = list(world.moves(state))
        work = [choice for choice in choices if choice[0][0] in _WORKS]
        faults = [choice for choice in choices if choice[0][0] not in _WORKS]
        deaths = [choice for choice in faults if choice[0][0] in {"die", "join"}]
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
    one step of the zombie, `!A1` a crash of A's worker that replays from record 1, `+A` the end of A's old worker. `A-`
    and `Z-` are steps for which the worker has not read far enough to find what it looks for ahead; `A~`, `Z~` get no
    answer. `@AB` begins with what A owes B, `@` is one step of that drainer, `@!` its end. What cannot happen is passed
    over.
    """
    state, way = world.start, []
    for token in schedule.split():
        move, moves = move_of(world, token), dict(world.moves(state))
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


_ENDING = ("die", "join", "user", "step", "drain")


def move_of(world: World, token: str) -> Move:
    """The move that a token of a schedule names."""
    blind, kind = int(token.endswith("-")), "away" if token.endswith("~") else "step"
    if token[0] == "Z":
        return kind, world.zombie, blind
    if token[0] == "@":
        if len(token) == len("@AB"):
            return "drain", world.drainer, LETTERS.index(token[1]) * world.regions + LETTERS.index(token[2])
        return "drop" if token == "@!" else "step", world.drainer, 0
    if token[0] == "+":
        return "join", LETTERS.index(token[1]), 0
    if token[0] in "*!":
        kind = "zombie" if token[0] == "*" else "crash"
        return kind, LETTERS.index(token[1]), int(token[2:]) - 1
    region = LETTERS.index(token[0].upper())
    return ("user", region, 0) if token.islower() else (kind, world.worker + region, blind)


def schedule_of(world: World, way: tuple[Move, ...]) -> str:
    """A way as a schedule that `play` follows."""
    tokens: list[str] = []
    for kind, whom, position in way:
        match kind:
            case "user":
                tokens.append(LETTERS[whom].lower())
            case "step" | "away":
                worker = "Z" if whom >= world.zombie else "@" if whom >= world.drainer else LETTERS[whom - world.worker]
                tokens.append(f"{worker}{'~' if kind == 'away' else '-' * position}")
            case "drain":
                tokens.append("@" + "".join(LETTERS[region] for region in divmod(position, world.regions)))
            case "drop":
                tokens.append("@!")
            case "zombie" | "crash":
                tokens.append(f"{'*' if kind == 'zombie' else '!'}{LETTERS[whom]}{position + 1}")
            case "join":
                tokens.append(f"+{LETTERS[whom]}")
            case _:
                tokens.append("")
    return " ".join(filter(None, tokens))
