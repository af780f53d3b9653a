"""What was measured, as sentences, as a stored file, and as the tables of docs/performance.md."""

from __future__ import annotations

import json
import platform
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.hot_path.measuring import Figures

BASELINES = {"aiobotocore": "a script on stock aiobotocore", "stock": "the daemon on the stock client"}
NAMES = {
    "lean": "**replicator**",
    "stock": "replicator, `client: stock`",
    "aiobotocore": "script on aiobotocore",
    "boto3": "script on botocore, 32 threads",
    "node": "script on the AWS SDK for JavaScript",
}
STORED = Path(__file__).resolve().parent.parent / "hot_path.json"
_DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
_FIRST, _LAST = "<!-- measured: from here on written by `make bench` -->\n", "<!-- measured: to here -->\n"
_WORSE = 0.9
STAGES = {
    "GetRecords": "GetRecords",
    "decide": "decide, and the engine",
    "write": "write",
    "transport": "answers of all calls",
    "Redis": "Redis",
    "checkpoint": "checkpoint",
    "other": "loop and rest",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One consumer in one case."""

    case: str
    consumer: str
    microseconds: float
    least: float
    most: float
    mebibytes: int | None
    ratios: dict[str, float]
    """How many times less than each baseline."""

    @property
    def per_second(self) -> int:
        """Records a second on one core."""
        return round(1e6 / self.microseconds)

    @property
    def sentence(self) -> str:
        """A line for a terminal."""
        ratios = ", ".join(f"{ratio:.1f}x {name}" for name, ratio in self.ratios.items() if name != self.consumer)
        return (
            f"{self.case:28} {self.consumer:12} {self.microseconds:8.1f} us a record ({self.least:.1f} to"
            f" {self.most:.1f}), {self.per_second:6} records/s/core, {self.mebibytes or '-'} MiB; {ratios or '-'}"
        )


def rows_of(found: Mapping[str, Mapping[str, Sequence[Figures]]]) -> list[Row]:
    """A row for each case and consumer."""
    rows = []
    for case, by_consumer in found.items():
        medians = {
            name: statistics.median(one.microseconds for one in figures) for name, figures in by_consumer.items()
        }
        for consumer, figures in by_consumer.items():
            times = sorted(one.microseconds for one in figures)
            resident = [one.mebibytes for one in figures if one.mebibytes is not None]
            ratios = {name: round(medians[name] / medians[consumer], 2) for name in BASELINES if name in medians}
            rows.append(
                Row(
                    case,
                    consumer,
                    round(medians[consumer], 1),
                    round(times[0], 1),
                    round(times[-1], 1),
                    round(max(resident)) if resident else None,
                    ratios,
                )
            )
    return rows


def shown(stages: Mapping[str, float]) -> str:
    """Stages of one case on one line."""
    return ", ".join(f"{name} {stages[name]:.1f} us" for name in STAGES if name in stages)


def store(rows: Sequence[Row], stages: Mapping[str, Mapping[str, float]]) -> None:
    """Keep what was measured beside the code, where `--check` finds it."""
    kept = {"rows": [asdict(row) for row in rows], "stages": {case: dict(found) for case, found in stages.items()}}
    STORED.write_text(json.dumps(kept, indent=1) + "\n")


def check(rows: Sequence[Row]) -> Iterator[str]:
    """What became worse since what is stored."""
    if not STORED.is_file():
        yield f"There is no {STORED} to compare with."
        return
    stored = {(row["case"], row["consumer"]): row["ratios"] for row in json.loads(STORED.read_text())["rows"]}
    worse = 0
    for row in rows:
        for name, ratio in row.ratios.items():
            before = stored.get((row.case, row.consumer), {}).get(name)
            if before and ratio < _WORSE * before:
                worse += 1
                yield f"{row.case} {row.consumer}: {ratio} times less than {name}, it was {before}"
    yield f"{worse} of {sum(len(row.ratios) for row in rows)} ratios are more than a tenth below those that are stored."


def write_document(rows: Sequence[Row], stages: Mapping[str, Mapping[str, float]], node: str, rounds: int) -> None:
    """Put the tables and the plot into the document."""
    from benchmarks.hot_path.plot import draw

    text = _DOCUMENT.read_text()
    before, _, rest = text.partition(_FIRST)
    _, _, after = rest.partition(_LAST)
    lines = "\n".join(_document(rows, stages, node, rounds))
    _DOCUMENT.write_text(f"{before}{_FIRST}\n{lines}\n\n{_LAST}{after}")
    draw(rows, _DOCUMENT.with_name("performance.svg"))


def _document(rows: Sequence[Row], stages: Mapping[str, Mapping[str, float]], node: str, rounds: int) -> Iterator[str]:
    libraries = ", ".join(
        f"{name} {version(name)}" for name in ("aiobotocore", "botocore", "aiohttp", "redis", "uvloop")
    )
    yield f"CPython {platform.python_version()}, {libraries}; {node or 'Node or its SDK was not present'};"
    yield f"{sys.platform} {platform.machine()}. Medians of {rounds} rounds; in brackets the least and the most."
    yield ""
    yield "| case | consumer | CPU per record | records/s per core | memory | script / this | stock / this |"
    yield "|---|---|---|---|---|---|---|"
    case = None
    for row in rows:
        cells = [
            f"`{row.case}`" if row.case != case else "",
            NAMES[row.consumer],
            f"{row.microseconds:.0f} µs ({row.least:.0f} to {row.most:.0f})",
            f"{row.per_second:,}".replace(",", " "),
            f"{row.mebibytes} MiB" if row.mebibytes else "",
            *(f"{row.ratios[name]:.1f}" if name in row.ratios and name != row.consumer else "" for name in BASELINES),
        ]
        case = row.case
        yield f"| {' | '.join(cells)} |"
    if stages:
        yield ""
        yield "Where the time of `client: lean` goes, in microseconds a record (sampled, in a run of its own):"
        yield ""
        yield f"| case | {' | '.join(STAGES.values())} |"
        yield f"|---|{'---|' * len(STAGES)}"
        for name, found in stages.items():
            yield f"| `{name}` | {' | '.join(f'{found.get(stage, 0):.1f}' for stage in STAGES)} |"
