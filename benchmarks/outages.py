"""Outages that last, by hand: real daemons, real servers, endpoints that hang, and the true lag measured outside.

    python -m benchmarks.outages replica --seconds 60
    python -m benchmarks.outages mesh --mode versioned --seconds 60
    python -m benchmarks.outages targets --targets 50 --seconds 600
    python -m benchmarks.outages refusals --known 9000
    python -m benchmarks.outages attack --mode active-active --seconds 60 --seed 2

Prints the lag of what is not away, how soon what was away is level, memory, and what stops a target that refuses
everything; `attack` kills and suspends workers beside that. Ends with an error when something is lost, differs, or is
not logged. The tests do the same, shorter.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.integration.faulty_endpoint import Fault
from tests.integration.test_many_targets import hang_one
from tests.integration.test_mesh_attacked import attack
from tests.integration.test_refusals_without_end import refuse_everything
from tests.integration.test_region_away import conclude, open_mesh, outage
from tests.integration.test_replica_away import open_replicas


def main() -> int:
    """Parse the command line and let things fail."""
    parser = argparse.ArgumentParser(prog="outages", description=__doc__)
    parser.add_argument("what", choices=["replica", "mesh", "targets", "refusals", "attack"])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it is away")
    parser.add_argument("--fault", type=Fault, choices=Fault, default=Fault.HANG, help="how it does not answer")
    parser.add_argument("--mode", choices=["active-active", "versioned"], default="versioned")
    parser.add_argument("--targets", type=int, default=50)
    parser.add_argument("--known", type=int, default=0, help="so many of 10000 refused keys are there before")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        match options.what:
            case "replica":
                with open_replicas(directory) as running:
                    running.outage(options.fault, options.seconds)
                    running.converge()
            case "mesh":
                with open_mesh(directory, options.mode, every=0.5) as mesh:
                    outage(mesh, options.fault, options.seconds)
                    conclude(mesh, options.fault)
            case "targets":
                hang_one(directory, options.targets, options.seconds)
            case "attack":
                asyncio.run(attack(directory, options.mode, options.seconds, options.seed))
            case _:
                refuse_everything(directory, None, options.known)
    return 0


if __name__ == "__main__":
    sys.exit(main())
