"""A rolling restart of three workers with a changed configuration, under load, by the writers' own clock.

    python -m benchmarks.rolling
    python -m benchmarks.rolling --at-once      # the changed file is seen by all before the first restarts

Prints the lag of every path that was there before and after; ends with an error when anything is lost or differs, or
when an item took longer than `--longest` seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.integration.rolling import restart


def main() -> int:
    """Parse the command line and let things fail."""
    parser = argparse.ArgumentParser(prog="rolling", description=__doc__)
    parser.add_argument("--at-once", action="store_true", help="all see the changed file before the first restarts")
    parser.add_argument("--longest", type=float, default=5.0, help="most seconds that an item may take")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        done = asyncio.run(restart(Path(name), at_once=options.at_once))
    for (origin, destination), figures in done.lags.items():
        print(f"{origin} to {destination}: {figures}")
    print(f"longest {done.longest:.2f} s within {done.seconds:.0f} s of restarts; every replica is identical")
    return int(done.longest > options.longest)


if __name__ == "__main__":
    sys.exit(main())
