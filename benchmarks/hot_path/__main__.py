"""Processor time per record of the daemon and of other consumers, by hand or as `make bench`.

    python -m benchmarks.hot_path                  the cases that have a bar, and `versioned`, in a few minutes
    python -m benchmarks.hot_path --full           every case and every consumer
    python -m benchmarks.hot_path --cases modify,modify/tls --consumers lean,aiobotocore --rounds 3
    python -m benchmarks.hot_path --full --write   and put what was measured into docs/performance.md

Every consumer reads the same records from a server that answers at once, in rounds that alternate, and writes to it and
to a Valkey. Prints the median and the spread, and how many times less than two others of the same run it costs: a
script on stock aiobotocore, and the daemon itself on the stock client. `--check` compares these ratios with the stored
ones, and only prints.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.hot_path.measuring import OURS, Certificate, Figures, Look, node, other, ours
from benchmarks.hot_path.mixes import CASES, FULL, QUICK, Case
from benchmarks.hot_path.report import BASELINES, STORED, Row, check, rows_of, shown, store, write_document
from tests.integration.harness import World, open_world

_CONSUMERS = [*OURS, "aiobotocore", "boto3", "node"]
_SEEN_ONCE = {"boto3", "node"}
_LIGHT = 5
"""What costs a hundredth as much gets so many times more records, so that all are measured for about as long."""

_MESH = 2


def records_of(consumer: str, case: Case, options: argparse.Namespace) -> int:
    """How many records a consumer is given."""
    share = (1 if consumer == "lean" else _LIGHT) * (1 if case.mode == "ordered" else _MESH)
    return int(options.records // share)


def measure(world: World, options: argparse.Namespace) -> dict[str, dict[str, list[Figures]]]:
    """Figures by case and consumer, one a round."""
    for region in ("us", "eu"):
        asyncio.run(world.create_table(region, "orders", stream=True))
    certificate = Certificate.make(world.directory)
    found: dict[str, dict[str, list[Figures]]] = {}
    try:
        for turn, (case, consumer) in enumerate(turns(options)):
            if case.tls and certificate is None:
                print(f"{case.name}: left out, because there is no openssl to make a certificate", flush=True)
                continue
            records = records_of(consumer, case, options)
            one = (
                ours(consumer, world, records, case, certificate, turn, None)
                if consumer in OURS
                else other(consumer, world, records, case, certificate)
            )
            found.setdefault(case.name, {}).setdefault(consumer, []).append(one)
            print(f"{case.name:28} {consumer:12} {one.microseconds:8.1f} us", flush=True)
    except KeyboardInterrupt:
        print("Stopped: what was measured so far is reported.", flush=True)
    return found


def turns(options: argparse.Namespace) -> Iterator[tuple[Case, str]]:
    """What is measured after what. Other scripts know mode `ordered` only, and two take part once if not in full."""
    for case in options.cases:
        for _ in range(options.rounds):
            for consumer in options.consumers:
                is_rare = consumer in _SEEN_ONCE and not options.full and case is not options.cases[0]
                if consumer in OURS or (case.mode == "ordered" and not is_rare):
                    yield case, consumer


def stages(world: World, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Microseconds a record by stage, for every case that is plain."""
    found = {}
    for turn, case in enumerate(case for case in options.cases if not case.tls):
        look = Look("benchmarks.hot_path.stages", world.directory / f"stages-{turn}.json")
        figures = ours("lean", world, records_of("lean", case, options), case, None, 10_000 + turn, look)
        found[case.name] = dict(sorted(figures.stages.items()))
        print(f"{case.name:28} by stage: {shown(found[case.name])}", flush=True)
    return found


def profiles(world: World, options: argparse.Namespace) -> None:
    """Where time goes, by function, a file for every case."""
    for turn, case in enumerate(options.cases):
        name = f"{options.profile.name}.{case.name.replace('/', '-')}.txt"
        look = Look("benchmarks.sampling", options.profile.resolve().with_name(name))
        certificate = Certificate.make(world.directory) if case.tls else None
        ours("lean", world, records_of("lean", case, options), case, certificate, 20_000 + turn, look)
        print(f"{case.name:28} in {look.file}", flush=True)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="every case, every consumer, and stages")
    parser.add_argument("--records", type=int, default=20_000, help="of the lean client in mode ordered; else fewer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", type=lambda text: [CASES[name] for name in text.split(",")], help=", ".join(CASES))
    parser.add_argument("--consumers", type=lambda text: text.split(","), help=", ".join(_CONSUMERS))
    parser.add_argument("--stages", action="store_true", help="also where the time of the lean client goes, by stage")
    parser.add_argument("--profile", type=Path, help="only see where each case's time goes by function, as files")
    parser.add_argument("--check", action="store_true", help="compare ratios with those that are stored")
    parser.add_argument(
        "--write", action="store_true", help=f"store them in {STORED.name} and in the document, with stages"
    )
    options = parser.parse_args()
    options.cases = options.cases or (FULL if options.full else QUICK)
    options.consumers = options.consumers or _CONSUMERS
    options.stages = options.stages or options.full or options.write
    return options


def main() -> int:
    """Parse, measure, report."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell started it in the background
    options = parsed()
    versions = node()
    if "node" in options.consumers and not versions:
        options.consumers = [consumer for consumer in options.consumers if consumer != "node"]
        print("node: not present, or its SDK is not on NODE_PATH", flush=True)
    with tempfile.TemporaryDirectory() as directory, open_world(Path(directory)) as world:
        if options.profile is not None:
            for region in ("us", "eu"):
                asyncio.run(world.create_table(region, "orders", stream=True))
            profiles(world, options)
            return 0
        rows: list[Row] = rows_of(measure(world, options))
        by_stage = stages(world, options) if options.stages else {}
    for row in rows:
        print(row.sentence)
    print(f"Ratios: how many times less than {' and '.join(BASELINES.values())}, in this run.")
    if options.check:
        for line in check(rows):
            print(line)
    if options.write:
        store(rows, by_stage)
        write_document(rows, by_stage, versions, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
