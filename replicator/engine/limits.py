"""The bounds of one worker: pages, memory, keys in flight, retries and waits."""

from __future__ import annotations

from msgspec import Struct


class Limits(Struct, frozen=True):
    """The engine's bounds, in seconds and pieces; from the settings."""

    poll_seconds: float = 0.25
    idle_seconds: float = 1.0
    page_records: int = 1000
    concurrency: int = 256
    """Requests in flight per table that is written, at most; as many workers a page has."""
    backoff_seconds: float = 20.0
    checkpoint_seconds: float = 1.0
    discovery_seconds: float = 10.0
    heartbeat_seconds: float = 3.0
    lease_seconds: float = 10.0
    watch_seconds: float = 0.5
    """Time between two looks at the other workers' pulses."""
    claims_per_cycle: int = 64
    moves_per_cycle: int = 8
    describes_per_second: float = 8.0
    """DescribeStream calls of all workers together, per region; each takes its part."""
    in_flight_bytes: int = 256 * 1024 * 1024
    """Records read and not yet applied, over all shards of a process."""
    drained_seconds: float = 60.0
    """A replaced stream is left when so long nothing more was found in it: a shard may be listed late."""
    owed_seconds: float = 30.0
    """Time between two looks at the rows of what targets are owed, while there are any."""
    away_seconds: float = 5.0
    """A region of a mesh that does not answer for so long is away."""
    overdue_seconds: float = 6 * 86_400.0
    """A region that is owed a key for longer must be rebuilt: deletes of that time may be forgotten."""
    stall_seconds: float = 60.0
    """A shard that is ours and does not progress for so long is reported."""
    jobs_seconds: float = 1.0
    """Time between two looks at jobs while there are any; without any a heartbeat's time passes."""
    job_segments: int = 8
    """Segments of all jobs together that one worker has at once."""
    job_pages: int = 32
    """Pages of jobs that one worker holds at once: read and not yet done."""
