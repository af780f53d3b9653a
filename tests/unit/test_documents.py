"""What operations return, as JSON; and times as operators write them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from replicator.domain.identifiers import RegionId, RuleName, TableName
from replicator.domain.progress import END, Position
from replicator.domain.shards.leases import StreamRef
from replicator.domain.targets import TargetId, replica_id
from replicator.operations.documents import document
from replicator.operations.times import moment, parse_moment

EU = replica_id(RuleName("orders"), RegionId("eu"), TableName("orders"))
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Inner:
    is_: str
    stream: StreamRef
    at: datetime | None


@dataclass(frozen=True)
class Outer:
    name: str
    found: tuple[Inner, ...]
    positions: dict[TargetId, Position | None]


def test_a_value_is_a_document_of_its_fields_in_their_order() -> None:
    stream = StreamRef(RegionId("us"), TableName("orders"), "arn", 7)
    value = Outer("x", (Inner("alive", stream, moment(1_780_000_000.9)), Inner("free", stream, moment(0))), {EU: END})
    shown = document(value)
    assert json.loads(json.dumps(shown)) == {
        "name": "x",
        "found": [
            {"is": "alive", "region": "us", "table": "orders", "stream": "arn", "at": "2026-05-28T20:26:40+00:00"},
            {"is": "free", "region": "us", "table": "orders", "stream": "arn", "at": None},
        ],
        "positions": {"orders/replica/eu:orders": "SHARD_END"},
    }
    assert list(shown["found"][0]) == ["is", "region", "table", "stream", "at"]


@pytest.mark.parametrize(
    ("text", "hour"),
    [("2026-07-01T09:00:00Z", 9), ("2026-07-01T09:00", 9), ("2026-07-01T11:00+02:00", 9), ("3h", 9), ("90m", 10.5)],
)
def test_a_moment_is_a_time_or_a_span_back_from_now(text: str, hour: float) -> None:
    assert (parse_moment(text, NOW) - NOW).total_seconds() == (hour - 12) * 3600


@pytest.mark.parametrize("text", ["", "yesterday", "-5m", "9999999999999999999d"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        parse_moment(text, NOW)
