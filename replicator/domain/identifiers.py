"""Names of tables, shards, regions, rules and workers, and sequence numbers, as types of their own."""

from __future__ import annotations

from typing import NewType

TableName = NewType("TableName", str)

ShardId = NewType("ShardId", str)

RegionId = NewType("RegionId", str)

RuleName = NewType("RuleName", str)

WorkerId = NewType("WorkerId", str)

SequenceNumber = NewType("SequenceNumber", str)
"""As the source wrote it; compare with `int()`, never as text."""
