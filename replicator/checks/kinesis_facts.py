"""Facts about Kinesis streams that are read in place of tables' own streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from replicator.adapters.kinesis.consumers import consumer_problem
from replicator.adapters.kinesis.destinations import problem
from replicator.checks.facts import Fact, failed, ok, warning, wrong
from replicator.domain.errors import ReplicatorError
from replicator.domain.identifiers import TableName

if TYPE_CHECKING:
    from replicator.checks.world import RegionWorld

_STREAM = "stream"
_HOUR_SECONDS = 3600


def kinesis_facts(region: RegionWorld, table: str, subject: str) -> Iterator[Fact]:
    """Whether a table's changes come to the stream that a rule names, and how."""
    seen = region.kinesis[table]
    if isinstance(seen, ReplicatorError):
        yield failed(subject, _STREAM, seen)
        return
    trouble = problem(seen.destinations, TableName(table), region.region, seen.source)
    if trouble is not None:
        yield wrong(subject, _STREAM, trouble.message, trouble.advice)
        return
    precision = "microseconds" if seen.source.in_microseconds else "milliseconds"
    kept = seen.stream.retention_seconds / _HOUR_SECONDS
    yield ok(
        subject,
        _STREAM,
        f"Kinesis stream {seen.source.name}, {seen.stream.open_shards} open shards, times in {precision}, kept for"
        f" {kept:g} h.",
    )
    if name := seen.source.consumer_of(table):
        lacks = consumer_problem(seen.consumer, name, seen.source.name, region.region)
        if lacks is None:
            yield ok(subject, "fan-out", f"Shards are pushed to consumer {name}.")
        else:
            yield wrong(subject, "fan-out", lacks.message, lacks.advice)
    if not seen.source.in_microseconds:
        yield warning(
            subject,
            "order",
            f"Changes of table {table} in {region.region} come with times in milliseconds: of two writes of one item"
            " within one, the wrong one may win until the next.",
            "Set the destination's ApproximateCreationDateTimePrecision to MICROSECOND.",
        )
