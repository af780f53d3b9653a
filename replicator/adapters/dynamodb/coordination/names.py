"""Keys of the coordination table's rows, and names of attributes that are made of other names.

Invariant: a group's rows are its own, and so are a stream's: the region id is part of every key of a stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from replicator.domain.identifiers import ShardId
from replicator.domain.shards.leases import StreamRef
from replicator.domain.targets import TargetId

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef

SCHEMA = 1
"""Version of the layout of these rows."""

CHECKPOINT = "at:"
"""Prefix of the attributes that hold a target's position."""

REWIND = "rewind:"
"""Prefix of the attributes that hold what a rewound target skips."""

THROUGH = "through:"
"""Prefix of the attributes that hold up to when a target's position is known to reach, with that position."""

KEEPS = "keeps:"
"""Prefix of the attributes that hold which cache entries were kept in step up to a target's position."""

STATEMENTS = "through"
"""The attribute of a heartbeat that says up to when targets have everything on what its worker reads."""

MEMBERS = "members"
"""The attribute of a target's start that names the members of its mesh."""

FORMERLY = "formerly"
"""The attribute of a rule's row that names the names that it had before."""

DRAINED_FOR = "drained_for"
"""The attribute of a stream's row that names the targets that are through with it."""

DRIVEN_BY = "driven_by"
"""The attribute of a rule's row that says what drives it: `lambda` or `pods`; without it pods do."""

DRIVEN_SINCE = "driven_since"
"""The attribute of a rule's row that says since when, by the server's clock."""

REPAIRED_BY = "job"
"""The attribute of a gap that names the job which repairs it, or has."""

SHARD, TARGET, SEAT = "shard|", "target|", "seat"
"""What the sort keys of a stream's rows begin with, or are."""

JOB, ON, FILLED = "job|", "on|", "filled|"
"""What sort keys begin with: of jobs, of which job is on a target, and of targets that a bootstrap has filled."""

SEGMENT, NOTE = "segment|", "note|"
"""What the sort keys of a job's rows begin with."""


class Names(Struct, frozen=True):
    """Keys of one group's rows."""

    group: str

    def stream_key(self, stream: StreamRef) -> dict[str, AttributeValueTypeDef]:
        """Key of what is known about a stream as a whole."""
        return key(self.streams, f"{stream.region}|{stream.table}|{stream.generation:013d}")

    @property
    def workers(self) -> str:
        """Partition of the heartbeats."""
        return f"{self.group}|workers"

    @property
    def regions(self) -> str:
        """Partition of the regions of rules that operators have paused."""
        return f"{self.group}|regions"

    @property
    def rules(self) -> str:
        """Partition of what operators want of rules."""
        return f"{self.group}|rules"

    @property
    def audit(self) -> str:
        """Partition of what was done through the admin API."""
        return f"{self.group}|audit"

    @property
    def functions(self) -> str:
        """Partition of what functions noted of streams, per rule."""
        return f"{self.group}|functions"

    @property
    def tables(self) -> str:
        """Partition of the tables that rules have written."""
        return f"{self.group}|tables"

    @property
    def streams(self) -> str:
        """Partition of the streams that were read."""
        return f"{self.group}|streams"

    @property
    def gaps(self) -> str:
        """Partition of the loss intervals."""
        return f"{self.group}|gaps"

    @property
    def jobs(self) -> str:
        """Partition of the jobs, and of which job is on a target."""
        return f"{self.group}|jobs"

    def job(self, job_id: str) -> str:
        """Partition of a job's segments, and of what it has said."""
        return f"{self.group}|job|{job_id}"

    def stream(self, stream: StreamRef) -> str:
        """Partition of one stream; the region id is part of it, because ARNs alone may collide."""
        return f"{self.group}|{stream.region}|{stream.arn}"

    def shard_key(self, stream: StreamRef, shard_id: ShardId) -> dict[str, AttributeValueTypeDef]:
        """Key of a shard's row."""
        return key(self.stream(stream), f"{SHARD}{shard_id}")

    def target_key(self, stream: StreamRef, target_id: TargetId) -> dict[str, AttributeValueTypeDef]:
        """Key of the row of a target's start."""
        return key(self.stream(stream), f"{TARGET}{target_id.text}")


def checkpoint(target_id: TargetId) -> str:
    """The attribute that holds a target's position."""
    return f"{CHECKPOINT}{target_id.text}"


def through(target_id: TargetId) -> str:
    """The attribute that holds up to when a target's position is known to reach."""
    return f"{THROUGH}{target_id.text}"


def rewind(target_id: TargetId) -> str:
    """The attribute that holds what a rewound target skips."""
    return f"{REWIND}{target_id.text}"


def key(partition: str, sort: str) -> dict[str, AttributeValueTypeDef]:
    """The key of a row."""
    return {"pk": {"S": partition}, "sk": {"S": sort}}


def keeps(target_id: TargetId) -> str:
    """The attribute that holds which cache entries a target kept in step."""
    return f"{KEEPS}{target_id.text}"
