"""The demo's verdict about consumers of events sees what is missing, foreign, repeated or out of order."""

from __future__ import annotations

from typing import Any

import pytest

from replicator.demo.events import EventConsumers, _compared
from replicator.demo.layout import ORDERED

TRUTH = {
    str(number): {"SequenceNumber": str(number), "Keys": {"pk": {"S": key}}, "NewImage": {"n": {"N": str(number)}}}
    for number, key in ((1, "a"), (2, "b"), (3, "a"), (4, "b"))
}


def event(number: int, value: int | None = None) -> dict[str, Any]:
    return {"id": f"orders/label/{number}", "data": {"new": {"n": {"N": str(number if value is None else value)}}}}


@pytest.mark.parametrize(
    ("events", "wrong"),
    [
        ([event(2), event(1), event(4), event(3)], {}),
        ([event(1), event(2), event(1), event(3), event(4)], {"repeated": 1}),
        ([event(1), event(3), event(2)], {"missing": 1}),
        ([event(3), event(1), event(2), event(4)], {"out_of_order": 1}),
        ([event(1), event(2), event(3), event(4), event(4, 5)], {"foreign": 1}),
        ([event(1), event(2), event(3), event(4), event(9)], {"foreign": 1}),
        ([event(1), event(2), event(3), event(4), event(9, 4)], {"foreign": 1}),
    ],
)
def test_each_kind_of_trouble_is_seen(events: list[dict[str, Any]], wrong: dict[str, int]) -> None:
    found = _compared("sqs", events, TRUTH)
    kinds = {name: getattr(found, name) for name in ("missing", "foreign", "out_of_order", "repeated")}
    assert {name: number for name, number in kinds.items() if number} == wrong
    assert found.is_well is (set(wrong) <= {"repeated"})
    assert ("in order" in found.line) is found.is_well


def test_nothing_compared_is_nothing_shown() -> None:
    everything = [_compared("sqs", [event(number) for number in (1, 2, 3, 4)], TRUTH)]
    nothing = [_compared("sqs", [], {})]
    looks = [([], 0), (nothing, 0), (everything, 0), (everything, 1)]
    found = [EventConsumers(ORDERED, found=seen, unsigned=unsigned).is_well for seen, unsigned in looks]
    assert found == [False, False, True, False]
