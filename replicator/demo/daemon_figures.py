"""What the daemon says about itself, for the live view only; the verdict never rests on it."""

from __future__ import annotations

from dataclasses import dataclass, field

from replicator.demo.world import World


@dataclass(slots=True)
class DaemonFigures:
    """Counters of the daemon."""

    applied: dict[str, int] = field(default_factory=dict)
    """Records that are durable, by replica region."""

    cache_changes: dict[str, int] = field(default_factory=dict)
    """Cache entries changed, by cache."""

    async def refresh(self, world: World) -> None:
        """Ask the daemon's metrics."""
