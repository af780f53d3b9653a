"""Streams that rules read once and read no more, because their changes come another way now.

Invariant: what is stored of one stays, so that a rule that moves back goes on there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.settings.compiled_rules import kinesis_source

if TYPE_CHECKING:
    from replicator.adapters.dynamodb.coordination import StoredStream
    from replicator.domain.shards.leases import StreamRef
    from replicator.settings import RuleSettings, Settings


def leaves(rule: RuleSettings, stream: StreamRef) -> bool:
    """Whether a rule reads the stream's table in a stream of another kind or name now."""
    kinesis = kinesis_source(rule, stream.region, group="")
    return stream.kinesis != ("" if kinesis is None else kinesis.name)


def is_left(settings: Settings, stored: StoredStream) -> bool:
    """Whether rules of the configuration read a stream once, and none of them does now."""
    readers = [rule for rule in settings.rules if rule.name in stored.rules]
    return bool(readers) and all(leaves(rule, stored.stream) for rule in readers)
