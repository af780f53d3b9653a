"""Let each situation happen, and write what is seen of it into docs/operations.md: `make incidents`.

Each situation is a world of its own with real processes. What `status` says of a replica that gets nothing is compared
with the clock of a writer outside the program; the exit code is 1 when a figure contradicts it, or when what is wrong
is not seen. `ARGS="--only blocked"`: some of them, printed only.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.incidents.evidence import Evidence, collected, section
from tests.incidents.scenes import REPLICAS, Scene, open_scene, until
from tests.incidents.situations import SITUATIONS, Situation

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
_BEGIN, _END = "<!-- made by `make incidents` -->\n", "<!-- end of what `make incidents` makes -->\n"
_REPLICATED = 12
_HALTED_SECONDS = 8.0


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Write what the program shows in each situation into docs/operations.md."
    )
    parser.add_argument("--only", choices=[each.name for each in SITUATIONS], action="append")
    options = parser.parse_args()
    found: list[Evidence] = []
    for situation in SITUATIONS:
        if options.only is None or situation.name in options.only:
            found.append(happens(situation))
            sys.stdout.write(section(found[-1]) + "\n")
            sys.stdout.flush()
    if options.only is None:
        before, rest = PAGE.read_text().split(_BEGIN)
        after = rest.split(_END)[1]
        PAGE.write_text(before + _BEGIN + "\n" + "\n".join(map(section, found)) + "\n" + _END + after)
    wrong = [f"{each.situation.name}: {sentence}" for each in found for sentence in each.contradictions]
    sys.stderr.write("".join(f"{sentence}\n" for sentence in wrong))
    return 1 if wrong else 0


def happens(situation: Situation) -> Evidence:
    """One situation in a world of its own, and what was seen of it."""
    with tempfile.TemporaryDirectory() as directory, open_scene(Path(directory), **situation.changes) as scene:
        asyncio.run(scene.world.create_tables())
        situation.before(scene)
        scene.world.initialise(scene.config)
        scene.run()
        scene.writer.start()
        until(lambda: _replicates(scene))
        situation.breaks(scene)
        if situation.kind is not None:
            kind = situation.kind
            until(lambda: kind in scene.kinds())
        if situation.halted:
            until(lambda: _lacks(scene, situation))
        return collected(scene, situation)


def _replicates(scene: Scene) -> bool:
    return len(scene.writer.written) >= _REPLICATED and all(
        len(scene.writer.there_in(region)) >= _REPLICATED for region in REPLICAS
    )


def _lacks(scene: Scene, situation: Situation) -> bool:
    ages = [scene.writer.lag_in(region) for region in situation.halted if scene.has_table(region)]
    return all(age >= _HALTED_SECONDS for age in ages)


if __name__ == "__main__":
    sys.exit(main())
