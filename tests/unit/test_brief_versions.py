"""Versions where there is little room: what tells them apart, and when they are from."""

from __future__ import annotations

import pytest

from replicator.domain.stamps import Version
from replicator.operations.item_copies import brief


@pytest.mark.parametrize(
    ("version", "shown"),
    [
        (None, ""),
        ("7", "7"),
        (f"002{1:013d}{17959657763450000000043:040d}", "2 …450000000043"),
        (f"000{1:013d}{1_780_000_000_123_456:040d}", "0 2026-05-28 20:26:40.123"),
        (f"001{1_780_000_000_123:013d}{0:040d}", "1 copied"),
        (Version(1_780_000_000_123_456, 2, "eu", 5).text, "2026-05-28 20:26:40.123 eu"),
    ],
)
def test_a_version_is_short_and_shows_its_time(version: str | None, shown: str) -> None:
    assert brief(version) == shown
