"""`python -m tests.simulation.prove`: search the modes of a mesh, and copying, for violations; `make prove` calls it.

A set is searched completely, scenario by scenario over all cores; finished scenarios are kept in a file, so a search
that was interrupted goes on where it stopped, unless the code has changed since.
"""

from __future__ import annotations

import argparse
import ast
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from itertools import chain, islice, product
from pathlib import Path
from random import Random
from typing import Protocol

from replicator.domain.modes.active_active.mesh import ActivePolicy, Guard
from replicator.domain.values import replace
from tests.simulation import (
    ablations,
    copying_ablations,
    copying_sets,
    mesh_copying_ablations,
    mesh_copying_sets,
    versioned_ablations,
)
from tests.simulation.active_checks import regressions as shown_again
from tests.simulation.active_scenario import Op, Scenario
from tests.simulation.active_search import explore, walk, wander
from tests.simulation.active_words import narrated
from tests.simulation.active_world import World
from tests.simulation.copying_world import Explorer
from tests.simulation.copying_world import Scenario as Copying
from tests.simulation.mesh_copying_world import MeshExplorer
from tests.simulation.mesh_copying_world import Scenario as MeshCopying
from tests.simulation.versioned_machine import Machine
from tests.simulation.versioned_search import explore as explore_ranks
from tests.simulation.versioned_states import Scenario as Ranked

ROOT = Path(__file__).parents[2]

STARTS: dict[str, tuple[str, int] | None] = {
    "seeded": ("seed", 0),
    "tombstone in effect": ("tombstone", 1),
    "stamped ahead": ("ahead", 1),
    "absent": None,
}


# -- sets ----------------------------------------------------------------------------------------------------------


def scenarios(
    shape: tuple[int, ...], kinds: str, starts: Iterable[tuple[str, int] | None], *, crashes: int = 0, zombies: int = 0
) -> Iterator[Scenario]:
    """Every choice of writes and of seconds 1 and 2, in every region as many writes as `shape` says."""
    total = sum(shape)
    for start in starts:
        for letters, seconds in product(product(kinds, repeat=total), product((1, 2), repeat=total)):
            writes = iter([Op(kind, second) for kind, second in zip(letters, seconds, strict=True)])
            yield Scenario(
                tuple(tuple(next(writes) for _ in range(count)) for count in shape),
                start,
                crashes=crashes,
                zombies=zombies,
            )


def e1c() -> Iterator[Scenario]:
    """Two regions, one write each, one crash."""
    return scenarios((1, 1), "PUDR", (None, ("seed", 0), ("seed", 1)), crashes=1)


def one_zombie() -> Iterator[Scenario]:
    """Two regions, one write each, expiries included, one zombie, all starts."""
    return scenarios((1, 1), "PUDRT", STARTS.values(), zombies=1)


def crash_and_zombie() -> Iterator[Scenario]:
    """Two regions, one write each, expiries included, a crash and a zombie, all starts."""
    return scenarios((1, 1), "PUDRT", STARTS.values(), crashes=1, zombies=1)


def zombie() -> Iterator[Scenario]:
    """Two regions, two writes and one, one zombie, all starts."""
    for start in STARTS.values():
        for shape in ((2, 1), (1, 2)):
            yield from scenarios(shape, "PUD", (start,), zombies=1)


def crash() -> Iterator[Scenario]:
    """Two regions, two writes and one, one crash, all starts."""
    for shape in ((2, 1), (1, 2)):
        yield from scenarios(shape, "PUDRT", STARTS.values(), crashes=1)


def three_regions() -> Iterator[Scenario]:
    """Three regions, one write each, no faults."""
    return scenarios((1, 1, 1), "PUD", (None, ("seed", 0)))


def reused_keys() -> Iterator[Scenario]:
    """Two regions, keys that were deleted before everything, created and deleted again, one zombie.

    A tombstone stands there already, so only what a worker has read ahead decides who deleted an item.
    """
    for shape in ((2, 1), (1, 2)):
        yield from scenarios(shape, "PUD", (("buried", 1),), zombies=1)


def reused_often() -> Iterator[Scenario]:
    """As `reused_keys`, three writes beside one, and a crash."""
    return scenarios((3, 1), "PD", (("buried", 0), ("buried", 1)), crashes=1)


def joining() -> Iterator[Scenario]:
    """A third region joins a mesh of two; new workers take over from old ones at any moment; one crash."""
    for shape in ((1, 1, 0), (1, 0, 1), (2, 0, 0)):
        base = scenarios(shape, "PUD", STARTS.values(), crashes=1)
        yield from (replace(scenario, joins=True) for scenario in base)


def joining_with_zombie() -> Iterator[Scenario]:
    """As `joining`, and an old or new worker that should be dead is not."""
    return (replace(scenario, crashes=0, zombies=1) for scenario in joining())


def owed_two() -> Iterator[Scenario]:
    """Two regions, one write each, all starts; none may answer the other, and the drainer may stop at any step."""
    return _owing((1, 1), (0, 1), stops=True)


def owed_three() -> Iterator[Scenario]:
    """Three regions, two that write once each and one that may not answer, all starts; the drainer may stop."""
    return _owing((1, 1, 0), (2,), stops=True)


def owed_unheard() -> Iterator[Scenario]:
    """As `owed_two`, where what is not answered may be done all the same."""
    return (replace(scenario, unheard=True) for scenario in owed_two())


def owed_twice() -> Iterator[Scenario]:
    """Two regions, two writes in one of them, all starts, one crash of a worker or of the drainer."""
    return _owing((2, 0), (1,), crashes=1)


def owed_crash() -> Iterator[Scenario]:
    """As `owed_two`, one crash of a worker or of the drainer."""
    return _owing((1, 1), (0, 1), crashes=1)


def owed_zombie() -> Iterator[Scenario]:
    """Two regions, one write each, all starts; the second may not answer; one zombie."""
    return _owing((1, 1), (1,), zombies=1)


def owed_three_crash() -> Iterator[Scenario]:
    """As `owed_three`, one crash of a worker or of the drainer."""
    return _owing((1, 1, 0), (2,), crashes=1)


def owed_both_zombie() -> Iterator[Scenario]:
    """As `owed_zombie`, where none may answer the other."""
    return _owing((1, 1), (0, 1), zombies=1)


def owed_more() -> Iterator[Scenario]:
    """Two regions, two writes beside one, all starts; none may answer the other."""
    return _owing((2, 1), (0, 1))


def owed_three_zombie() -> Iterator[Scenario]:
    """As `owed_three`, one zombie: long."""
    return _owing((1, 1, 0), (2,), zombies=1)


def owed_three_more() -> Iterator[Scenario]:
    """Three regions, two writes beside one, and one write each; one region may not answer: longest."""
    for shape in ((2, 1, 0), (1, 1, 1)):
        yield from _owing(shape, (2,))


def _owing(shape: tuple[int, ...], away: tuple[int, ...], *, stops: bool = False, **faults: int) -> Iterator[Scenario]:
    base = scenarios(shape, "PUD", STARTS.values(), **faults)
    return (replace(scenario, away=away, stops=stops) for scenario in base)


OWED = (
    owed_two,
    owed_unheard,
    owed_twice,
    owed_three,
    owed_crash,
    owed_zombie,
    owed_three_crash,
    owed_both_zombie,
    owed_more,
    owed_three_zombie,
    owed_three_more,
)


VERSIONS = ("1", "2", "D", "X")
"""What users of mode `versioned` write: low and high versions, deletes, and images without a version."""


def _ranked(shape: tuple[int, ...], away: tuple[int, ...], *, crashes: int = 0, zombies: int = 0) -> Iterator[Ranked]:
    for start in ("absent", "seeded", "buried"):
        for writes in product(VERSIONS, repeat=sum(shape)):
            rest = iter(writes)
            yield Ranked(tuple(tuple(islice(rest, count)) for count in shape), start, crashes, zombies, away=away)


def versioned_two() -> Iterator[Ranked]:
    """Mode `versioned`: two regions, one write each, all starts; none may answer the other."""
    return _ranked((1, 1), (0, 1))


def versioned_twice() -> Iterator[Ranked]:
    """Mode `versioned`: two regions, two writes in one of them, all starts, one crash."""
    return _ranked((2, 0), (1,), crashes=1)


def versioned_crash() -> Iterator[Ranked]:
    """As `versioned_two` with one crash; the second region may not answer."""
    return _ranked((1, 1), (1,), crashes=1)


def versioned_zombie() -> Iterator[Ranked]:
    """As `versioned_crash`, with one zombie instead."""
    return _ranked((1, 1), (1,), zombies=1)


def versioned_three() -> Iterator[Ranked]:
    """Mode `versioned`: three regions, two that write once each and one that may not answer, all starts."""
    return _ranked((1, 1, 0), (2,))


OWED_RANKS = (versioned_two, versioned_twice, versioned_crash, versioned_zombie, versioned_three)


def owed() -> Iterator[Scenario | Ranked]:
    """All sets about regions that do not answer, in both modes of a mesh; the smallest first."""
    return chain.from_iterable(part() for part in (*OWED[:6], *OWED_RANKS, *OWED[6:]))


def optimistic() -> Iterator[Scenario]:
    """As `crash_and_zombie` without stale puts, putting without looking first."""
    policy = ActivePolicy(guard=Guard.OPTIMISTIC, waits=0)
    base = scenarios((1, 1), "PUDT", STARTS.values(), zombies=1)
    return (replace(scenario, policy=policy) for scenario in base)


def waiting() -> Iterator[Scenario]:
    """Two regions, one write each, a crash, and a daemon that waits twice for a local write to be stamped."""
    base = scenarios((1, 1), "PUDT", STARTS.values(), crashes=1)
    return (replace(scenario, policy=ActivePolicy(waits=2)) for scenario in base)


def no_look_ahead() -> Iterator[Scenario]:
    """Two regions, one write each, a crash, and a daemon that never looks ahead, as behind an unordered source."""
    base = scenarios((1, 1), "PUDT", STARTS.values(), crashes=1)
    return (replace(scenario, policy=ActivePolicy(waits=0, look_ahead=False)) for scenario in base)


SETS: dict[str, Callable[[], Iterator[Scenario]]] = {
    "e1c": e1c,
    "one_zombie": one_zombie,
    "crash_and_zombie": crash_and_zombie,
    "zombie": zombie,
    "crash": crash,
    "three_regions": three_regions,
    "reused_keys": reused_keys,
    "reused_often": reused_often,
    "joining": joining,
    "joining_with_zombie": joining_with_zombie,
    **{part.__name__: part for part in OWED},
    "optimistic": optimistic,
    "waiting": waiting,
    "no_look_ahead": no_look_ahead,
}
"""Of mode `active-active`."""


def copying() -> Iterator[Copying | MeshCopying]:
    """All sets about copying, in every mode."""
    yield from chain.from_iterable(part() for part in copying_sets.SETS.values())
    yield from chain.from_iterable(part() for part in mesh_copying_sets.SETS.values())


AnyScenario = Scenario | Ranked | Copying | MeshCopying

EVERY: dict[str, Callable[[], Iterator[AnyScenario]]] = {
    **SETS,
    **{part.__name__: part for part in OWED_RANKS},
    "owed": owed,
    **copying_sets.SETS,
    **mesh_copying_sets.SETS,
    "copying": copying,
}
"""Of all modes."""


class Searched(Protocol):
    """What every explorer tells."""

    @property
    def states(self) -> int: ...
    @property
    def quiescent(self) -> int: ...
    @property
    def violation(self) -> str | None: ...
    @property
    def trace(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Line:
    """What is kept of one scenario."""

    scenario: str
    code: str
    states: int
    quiescent: int
    most_writes: int
    seconds: float
    violation: str | None


SEARCHED = (
    *sorted((ROOT / "replicator/domain/modes/active_active").glob("*.py")),
    *(ROOT / f"replicator/domain/{name}.py" for name in ("stamps", "image", "owed_keys")),
    ROOT / "replicator/laboratory/memory/stamped.py",
    *sorted(set((ROOT / "tests/simulation").glob("active_*.py")) - {ROOT / "tests/simulation/active_words.py"}),
)


SEARCHED_RANKS = (
    *sorted((ROOT / "replicator/domain/modes/versioned").glob("*.py")),
    *(ROOT / f"replicator/domain/{name}.py" for name in ("image", "owed_keys")),
    ROOT / "replicator/laboratory/memory/versioned.py",
    *sorted(set((ROOT / "tests/simulation").glob("versioned_*.py"))),
)


SEARCHED_COPIES = (
    *sorted((ROOT / "replicator/domain/copying").glob("*.py")),
    *(ROOT / f"replicator/domain/{name}.py" for name in ("modes/ordered", "coalescing", "image", "versions")),
    ROOT / "replicator/laboratory/memory/region.py",
    *(ROOT / f"tests/simulation/{name}.py" for name in ("copying_world", "ordered_world")),
)


SEARCHED_MESH_COPIES = (
    *SEARCHED,
    *SEARCHED_RANKS,
    *sorted((ROOT / "replicator/domain/copying").glob("*.py")),
    ROOT / "tests/simulation/mesh_copying_world.py",
)


@cache
def fingerprint(files: tuple[Path, ...] = SEARCHED) -> str:
    """Changes when the mode or the explorer does; not when only comments and docstrings do."""
    return sha256("".join(_code(file) for file in files).encode()).hexdigest()[:16]


def _code(file: Path) -> str:
    tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [part for part in node.body if not _is_prose(part)]
    return ast.dump(tree)


def _is_prose(part: ast.stmt) -> bool:
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) and isinstance(part.value.value, str)


def search(scenario: AnyScenario) -> Line:
    """One scenario to its end."""
    began = time.monotonic()
    if not isinstance(scenario, Scenario):
        other = _searched(scenario)
        violation = "\n".join([other.violation, *other.trace]) if other.violation else None
        took = round(time.monotonic() - began, 2)
        return Line(str(scenario), code_of(scenario), other.states, other.quiescent, 0, took, violation)
    result = explore(scenario)
    violation = result.violation
    if violation is not None:
        violation += "\n" + "\n".join(narrated(World(scenario), result.way))
    took = round(time.monotonic() - began, 2)
    return Line(str(scenario), code_of(scenario), result.states, result.quiescent, result.most_writes, took, violation)


def _searched(scenario: Ranked | Copying | MeshCopying) -> Searched:
    match scenario:
        case Ranked():
            return explore_ranks(scenario, Machine(len(scenario.ops)))
        case Copying():
            return Explorer(scenario).run()
        case _:
            return MeshExplorer(scenario).run()


def code_of(scenario: AnyScenario) -> str:
    """The fingerprint of what a scenario is searched with."""
    match scenario:
        case Ranked():
            return fingerprint(SEARCHED_RANKS)
        case Copying():
            return fingerprint(SEARCHED_COPIES)
        case MeshCopying():
            return fingerprint(SEARCHED_MESH_COPIES)
        case _:
            return fingerprint(SEARCHED)


def prove_set(name: str, results: Path, workers: int) -> bool:
    """Search a set; True when every scenario is complete and none violates."""
    wanted = list(EVERY[name]())
    codes = {str(scenario): code_of(scenario) for scenario in wanted}
    lines = [line for line in _kept(results) if codes.get(line.scenario) == line.code]
    known = {line.scenario for line in lines}
    missing = [scenario for scenario in wanted if str(scenario) not in known]
    print(f"{name}: {len(wanted)} scenarios, {len(known)} already searched, {workers} processes", flush=True)
    with multiprocessing.Pool(workers, maxtasksperchild=8) as pool, results.open("a") as file:
        for number, line in enumerate(pool.imap_unordered(search, missing), start=1):
            file.write(json.dumps(asdict(line)) + "\n")
            file.flush()
            lines.append(line)
            if line.violation:
                print(f"VIOLATION {line.scenario}\n{line.violation}", flush=True)
            if number % 50 == 0:
                print(f"  {len(lines)}/{len(wanted)}, {sum(done.states for done in lines):,} states", flush=True)
    violations = [line for line in lines if line.violation]
    print(
        f"{name}: {len(lines)}/{len(wanted)} scenarios complete, {sum(line.states for line in lines):,} states "
        f"(largest {max(line.states for line in lines):,}), {sum(line.quiescent for line in lines):,} quiescent, "
        f"most daemon item writes {max(line.most_writes for line in lines)}, "
        f"{sum(line.seconds for line in lines):.0f} s of work, violations {len(violations)}",
        flush=True,
    )
    return len(lines) == len(wanted) and not violations


def _kept(results: Path) -> list[Line]:
    if not results.exists():
        return []
    return [Line(**json.loads(line)) for line in results.read_text().splitlines()]


# -- random runs ---------------------------------------------------------------------------------------------------


def random_scenario(dice: Random) -> Scenario:
    """Two or three regions, up to five writes, crashes, zombies, expiries, stale puts, any clocks."""
    regions = dice.choice((2, 2, 3))
    writes: list[list[Op]] = [[] for _ in range(regions)]
    for _ in range(dice.randint(1, 5)):
        dice.choice(writes).append(Op(dice.choice("PPUUDDRT"), dice.randint(1, 3)))
    start = dice.choice(list(STARTS.values()))
    return Scenario(
        tuple(map(tuple, writes)),
        None if start is None else (start[0], dice.randrange(regions)),
        crashes=dice.randint(0, 2),
        zombies=dice.randint(0, 2),
        policy=ActivePolicy(guard=dice.choice(list(Guard)), waits=dice.choice((0, 0, 2))),
    )


def random_run(seed: int) -> str | None:
    """One random walk through one random scenario; None, or the violation and the way to it."""
    dice = Random(seed)
    scenario = random_scenario(dice)
    found = walk(scenario, dice)
    if found is None:
        return None
    return "\n".join([f"seed {seed}: {scenario}: {found.violation}", *narrated(World(scenario), found.way)])


def prove_seeds(count: int, first: int, workers: int) -> bool:
    """Random runs with the seeds from `first` on."""
    began, violations = time.monotonic(), 0
    with multiprocessing.Pool(workers, maxtasksperchild=200) as pool:
        for wrong in pool.imap_unordered(random_run, range(first, first + count), chunksize=50):
            if wrong is not None:
                violations += 1
                print(f"VIOLATION {wrong}", flush=True)
    print(f"{count:,} random runs, violations {violations}, {time.monotonic() - began:.0f} s", flush=True)
    return violations == 0


# -- what users may see for a moment -------------------------------------------------------------------------------

POLICIES = {
    "look before the put": ActivePolicy(waits=0),
    "look, wait up to 10 looks": ActivePolicy(waits=10),
    "look, wait up to 40 looks": ActivePolicy(waits=40),
    "put at once": ActivePolicy(guard=Guard.OPTIMISTIC, waits=0),
    "no look ahead": ActivePolicy(waits=0, look_ahead=False),
}


def regressions(policy: ActivePolicy, runs: int) -> float:
    """How often per run a daemon showed users something older: 2 to 6 writes in flight, no faults."""
    dice, count = Random(5), 0
    for _ in range(runs):
        writes = [
            tuple(Op(dice.choice("PUD"), second) for second in sorted(dice.choices((1, 2, 3), k=dice.randint(1, 3))))
            for _ in range(2)
        ]
        world = World(Scenario(tuple(writes), STARTS["seeded"], policy=policy))
        count += shown_again(world, wander(world, dice, []))
    return count / runs


def measure(runs: int) -> None:
    """Print how visible each policy's repairs are."""
    for name, policy in POLICIES.items():
        print(f"{name:28} {regressions(policy, runs):.3f} visible regressions per run of {runs}", flush=True)


# -- ablations -----------------------------------------------------------------------------------------------------


SHOWN: dict[str, Callable[[str], list[str] | None]] = {
    **dict.fromkeys(ablations.ABLATIONS, ablations.shown),
    **dict.fromkeys(versioned_ablations.ABLATIONS, versioned_ablations.shown),
    **dict.fromkeys(copying_ablations.ABLATIONS, copying_ablations.shown),
    **dict.fromkeys(mesh_copying_ablations.ABLATIONS, mesh_copying_ablations.shown),
}
REMOVALS = {
    **{name: ablation.removed for name, ablation in ablations.ABLATIONS.items()},
    **{name: ablation.removed for name, ablation in versioned_ablations.ABLATIONS.items()},
    **{name: ablation.removed for name, ablation in copying_ablations.ABLATIONS.items()},
    **{name: ablation.removed for name, ablation in mesh_copying_ablations.ABLATIONS.items()},
}


def prove_ablations(names: Iterable[str]) -> bool:
    """Take each rule out and print how that goes wrong; True when every removal is found."""
    unfound = []
    for name in names:
        shown = SHOWN[name](name)
        print(f"\n== without: {REMOVALS[name]} ({name})", flush=True)
        if shown is None:
            unfound.append(name)
            print("   NOTHING FOUND")
        else:
            print("\n".join(shown), flush=True)
    total = len(REMOVALS)
    print(f"\n{total - len(unfound)} of {total} removals found{': not ' + ', '.join(unfound) if unfound else ''}")
    return not unfound


def main() -> int:
    """Parse the command line and search."""
    parser = argparse.ArgumentParser(prog="prove", description=__doc__)
    parser.add_argument("--set", choices=EVERY, action="append", default=[], help="search a set completely")
    parser.add_argument("--seeds", type=int, default=0, help="so many random runs")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--regress", type=int, default=0, help="measure visible regressions in so many runs")
    parser.add_argument("--ablate", help="take rules out: `all`, or names separated by commas")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--results", type=Path, default=Path(".prove.jsonl"), help="finished scenarios")
    options = parser.parse_args()
    fine = True
    for name in options.set:
        fine &= prove_set(name, options.results, options.workers)
    if options.seeds:
        fine &= prove_seeds(options.seeds, options.first, options.workers)
    if options.regress:
        measure(options.regress)
    if options.ablate:
        fine &= prove_ablations(REMOVALS if options.ablate == "all" else options.ablate.split(","))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
