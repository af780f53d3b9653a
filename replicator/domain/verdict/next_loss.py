"""When what still waits in a stream begins to leave it."""

from __future__ import annotations

from collections.abc import Iterable

from replicator.domain.verdict.figures import TargetFigure
from replicator.domain.verdict.kinds import span


def next_loss(targets: Iterable[TargetFigure]) -> str:
    """In a sentence, of all targets together; what is not known is said, since it may come first."""
    figures = list(targets)
    unknown = sorted({each.name for each in figures if each.left is None})
    first = min((each for each in figures if each.left is not None), key=lambda each: each.left or 0.0, default=None)
    said = []
    if first is not None and first.left is not None:
        behind = "" if first.lag is None else f", {span(first.lag)} behind"
        said.append(
            f"If reading stopped now, the first records would be lost in {span(first.left)}: {first.name}{behind}."
            if first.left > 0
            else f"{first.name} loses records now."
        )
    if unknown:
        said.append(f"The time until a loss is unknown for {', '.join(unknown)}.")
    return " ".join(said) or "No target reads a stream, so nothing waits in one."
