"""What must hold at a quiescent state of `active_world`, and what may be counted there."""

from __future__ import annotations

from tests.simulation.active_places import DAEMON, content_number
from tests.simulation.active_truth import judge_of
from tests.simulation.active_world import State, World

_MOST_WRITES = 64


def violation(world: World, state: State) -> str | None:
    """What is wrong at a quiescent state, by what its scenario asks for; None when all is well."""
    places = [world.place(state, region) for region in range(world.regions)]
    contents = [None if place.slot.item is None else content_number(place.slot.item) for place in places]
    if len(set(contents)) > 1:
        return f"DIVERGENCE: regions show {contents}"
    return _unjust(world, state, contents[0]) or _undeleted(world, state) or _unnamed(world, state)


def _unjust(world: World, state: State, final: int | None) -> str | None:
    """A lesser write won, or a lost one was not logged."""
    judge, truth, checks = judge_of(world.scenario), world.truth(state), world.scenario.checks
    found = None
    if "winner" in checks:
        found = judge.wrong_winner(truth, final)
    if found is None and "log" in checks:
        shown = {world.users.shown(state, world.place(state, region)) for region in range(world.regions)}
        over = {final} if final is not None else {delete for delete in shown if delete is not None}
        found = judge.unlogged(truth, final, over, world.log(state))
    return found


def _undeleted(world: World, state: State) -> str | None:
    """The daemon put something back that only a user had deleted, if only for a moment."""
    if "undelete" not in world.scenario.checks:
        return None
    bits = [world.place(state, region).undeleted for region in range(world.regions)]
    back = [write for write in range(_MOST_WRITES) if any(its >> write & 1 for its in bits)]
    return f"UNDELETED: writes {back} were put back although only users had deleted anything there" if back else None


def _unnamed(world: World, state: State) -> str | None:
    """A write that the scenario wants logged in any case was not."""
    missing = world.scenario.logged - logged(world, state)
    return f"UNLOGGED: writes {sorted(missing)}" if missing else None


def logged(world: World, state: State) -> frozenset[int]:
    """Writes that the conflict log names as lost."""
    return frozenset(write for write in range(_MOST_WRITES) if world.log(state) >> write & 1)


def daemon_writes(world: World, state: State) -> int:
    """Items that daemons wrote, in all regions."""
    places = [world.place(state, region) for region in range(world.regions)]
    return sum(len(place.stream) - place.users for place in places)


def regressions(world: World, state: State) -> int:
    """How often a daemon's write showed users something older than what they saw before."""
    truth, count = world.truth(state), 0
    for region in range(world.regions):
        place, last = world.place(state, region), None
        for record, origin in zip(place.stream, place.origins, strict=True):
            new = world.met.write_of(state, origin)
            old = last if record.old is None else content_number(record.old)
            if record.created_at == DAEMON and old is not None and old != new:
                back = truth[new].moment < truth[old].moment and old not in truth[new].seen
                count += back or new in truth[old].seen
            last = new if record.new is None else None
    return count
