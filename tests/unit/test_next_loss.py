"""When what still waits begins to be lost."""

from __future__ import annotations

import pytest

from replicator.domain.verdict.figures import TargetFigure
from replicator.domain.verdict.next_loss import next_loss

HOUR = 3600.0


def at(place: str, left: float | None, lag: float | None = 3.0) -> TargetFigure:
    return TargetFigure("orders", place, "s1", lag, left)


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        ([], "No target reads a stream, so nothing waits in one."),
        (
            [at("eu", 21 * HOUR, 3 * HOUR), at("ap", 23 * HOUR)],
            "If reading stopped now, the first records would be lost in 21 h: orders/eu, 3 h behind.",
        ),
        ([at("eu", 21 * HOUR, None)], "If reading stopped now, the first records would be lost in 21 h: orders/eu."),
        ([at("eu", 0.0)], "orders/eu loses records now."),
        ([at("eu", None, None)], "The time until a loss is unknown for orders/eu."),
        (
            [at("ap", 20 * HOUR, None), at("eu", None)],
            (
                "If reading stopped now, the first records would be lost in 20 h: orders/ap."
                " The time until a loss is unknown for orders/eu."
            ),
        ),
    ],
)
def test_the_target_that_comes_first_is_named_and_what_is_not_known(targets: list[TargetFigure], sentence: str) -> None:
    assert next_loss(targets) == sentence
