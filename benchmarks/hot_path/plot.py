"""The plot of docs/performance.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.hot_path.report import NAMES, Row

_COLOURS = {"lean": "#1a7f37", "stock": "#8ccf9e", "aiobotocore": "#57606a", "boto3": "#8c959f", "node": "#d0d7de"}


def draw(rows: Sequence[Row], file: Path) -> None:
    """Bars of processor time per record by case and consumer, on a scale of powers of ten, with their spread."""
    mpl.rcParams.update({"svg.hashsalt": "replicator", "svg.fonttype": "none", "font.size": 9})
    cases = list(dict.fromkeys(row.case for row in rows))
    consumers = [name for name in NAMES if any(row.consumer == name for row in rows)]
    height = 0.8 / len(consumers)
    figure = Figure(figsize=(8.5, 0.4 + 0.75 * len(cases)), layout="constrained")
    axes = figure.subplots()
    for number, consumer in enumerate(consumers):
        of = [row for row in rows if row.consumer == consumer]
        places = [cases.index(row.case) + (number - (len(consumers) - 1) / 2) * height for row in of]
        spread = [[row.microseconds - row.least for row in of], [row.most - row.microseconds for row in of]]
        axes.barh(
            places,
            [row.microseconds for row in of],
            height,
            xerr=spread,
            error_kw={"elinewidth": 0.8},
            label=NAMES[consumer].replace("*", "").replace("`", ""),
            color=_COLOURS[consumer],
        )
        for row, place in zip(of, places, strict=True):
            axes.text(row.most * 1.06, place, f"{row.microseconds:.0f}", va="center", fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("microseconds of processor time a record")
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, fontsize=8)
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
