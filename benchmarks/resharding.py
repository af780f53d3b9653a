"""Workers on a stream whose shards split, merge and roll, by hand: real daemons, real servers, the stream laboratory.

    python -m benchmarks.resharding --shards 64 --changes 50000

One worker is killed, one stopped for 30 s, a fourth joins, one is asked to stop. Prints how long each take-over took
beside its bound, and a verdict; exits 1 when a replica differs, a record was skipped, or a bound was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.integration.harness import open_world
from tests.integration.resharding import Measures, Plan, Run

CRASH_BOUND_SECONDS = 15.0
HAND_OVER_BOUND_SECONDS = 2.0
DESCRIBES_BOUND = 10


def report(measures: Measures) -> bool:
    """Print every figure with its bound; whether all are met."""
    rows = [
        ("kill -9 to taken over, s", measures.crash_takeover, CRASH_BOUND_SECONDS),
        ("SIGSTOP to taken over, s", measures.sleep_takeover, CRASH_BOUND_SECONDS),
        ("SIGTERM to taken over, s", measures.hand_over, HAND_OVER_BOUND_SECONDS),
        ("DescribeStream calls in any second", measures.most_describes_per_second, DESCRIBES_BOUND),
        ("records skipped", measures.skipped, 0),
        ("children read before their parents' end", measures.read_early, 0),
    ]
    print(f"shards in all {measures.shards}, splits, merges and rolls {measures.reshardings}")
    print(f"first claims after {measures.first_claims:.1f} s, a newcomer's share after {measures.join_share:.1f} s")
    print(f"unfinished shards per worker at the end {measures.shares}")
    for name, value, bound in rows:
        print(f"{name:42} {value:8.2f}  bound {bound:g}{'' if value <= bound else '  MISSED'}")
    return all(value <= bound for _, value, bound in rows)


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--changes", type=int, default=50_000)
    parser.add_argument("--rate", type=float, default=150)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    plan = Plan(options.shards, options.changes, options.rate, seed=options.seed)
    with tempfile.TemporaryDirectory() as directory, open_world(Path(directory)) as world:
        measures = asyncio.run(Run(world, plan, print).run(Path(directory)))
    met = report(measures)
    print(f"replicas identical; verdict: {'all bounds met' if met else 'BOUNDS MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
