"""Two tables made one and one made two, under load and kill -9, by hand: real daemons, real servers.

    python -m benchmarks.merging --changes 6000 --rate 100

Compares the tables by itself, then by `verify`, damages both parts of the merged one and repairs one; exits 1 by an
assertion when anything is not as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.integration.harness import open_world
from tests.integration.merging import Plan, Run


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=6000, help="of each source")
    parser.add_argument("--rate", type=float, default=100, help="changes per second of each source")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, open_world(Path(directory)) as world:
        measures = asyncio.run(Run(world, Plan(options.changes, options.rate, seed=options.seed)).run())
    print(f"{measures.changes} changes, {measures.kills} times kill -9")
    print(f"items {measures.items}, compared by verify {measures.compared}, mended {measures.mended}")
    print("verdict: tables identical; a repair mends its own part alone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
