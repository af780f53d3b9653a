"""The choices of an event source mapping, by AWS's names and within its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

Event = Mapping[str, Any]

PAYLOAD_BYTES: Final = 6 * 1024 * 1024
"""Of one invocation, at most."""

_MOST_LANES = 10
_MOST_RECORDS = 10_000
_LONGEST_WINDOW_SECONDS = 300


@dataclass(frozen=True, slots=True)
class MappingOptions:
    """The options of a mapping. None: without an end."""

    batch_size: int = 100
    window_seconds: float = 0.0
    """So long after its first record a batch that is not full is sent."""
    factor: int = 1
    """Invocations per shard at once (ParallelizationFactor)."""
    reports_failures: bool = True
    bisects: bool = False
    most_retries: int | None = None
    oldest_seconds: float | None = None
    payload_bytes: int = PAYLOAD_BYTES
    poll_seconds: float = 0.2

    def __post_init__(self) -> None:
        """Refuse what AWS refuses."""
        within = {
            "batch_size": 1 <= self.batch_size <= _MOST_RECORDS,
            "window_seconds": 0 <= self.window_seconds <= _LONGEST_WINDOW_SECONDS,
            "factor": 1 <= self.factor <= _MOST_LANES,
            "payload_bytes": 0 < self.payload_bytes <= PAYLOAD_BYTES,
            "most_retries": self.most_retries is None or 0 <= self.most_retries <= _MOST_RECORDS,
        }
        wrong = [name for name, is_allowed in within.items() if not is_allowed]
        if wrong:
            raise ValueError(f"No mapping has this {wrong[0]}: {getattr(self, wrong[0])}.")
