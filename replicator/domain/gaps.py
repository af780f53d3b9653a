"""A gap: the durable record of what a target lost on a shard."""

from __future__ import annotations

from hashlib import sha256

from msgspec import Struct

from replicator.domain.identifiers import ShardId
from replicator.domain.progress import Position
from replicator.domain.shards.leases import StreamRef
from replicator.domain.targets import TargetId

EVERY_SHARD = ShardId("every shard")
"""Where a gap lies that is behind a whole stream, or, with more words after it, behind whatever it held for a table."""


class Gap(Struct, frozen=True):
    """Records of a shard that were lost to one target before they were read: behind `after`, up to `until`.

    `until` is the first record that can still be read, END when nothing can, None when that is not known. It is no part
    of the gap's identity: while a target waits, more may leave the stream. `found_at`: seconds since 1970 by servers'
    time, not before it was found: a repair that began earlier does not close it.
    """

    stream: StreamRef
    shard_id: ShardId
    target_id: TargetId
    after: Position
    until: Position | None
    found_at: float
    why: str

    @property
    def gap_id(self) -> str:
        """12 hexadecimal digits; the same loss found again has the same id."""
        text = f"{self.stream.region}|{self.stream.arn}|{self.shard_id}|{self.target_id}|{self.after.text}"
        return sha256(text.encode()).hexdigest()[:12]


class OpenGap(Struct, frozen=True):
    """A gap that is not closed: when it was found or last grew, in seconds since 1970, and the job that repairs it."""

    gap: Gap
    at: float
    job: str | None = None
