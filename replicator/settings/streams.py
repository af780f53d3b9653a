"""Where changes are read, as rules write it: a Kinesis stream in place of the table's own stream."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, field_validator

from replicator.settings.values import Duration, Frozen, RegionName

_KINESIS = r"^(arn:[a-z-]+:kinesis:[a-z0-9-]+:[0-9]{12}:stream/)?[a-zA-Z0-9_.-]{1,128}$"
_LONGEST_REORDER = timedelta(seconds=60)


class StreamSettings(Frozen):
    """A Kinesis stream that the table sends its changes to, read in place of the table's own stream."""

    kinesis: str = Field(pattern=_KINESIS, description="name or ARN of the Kinesis stream")
    precision: Literal["microsecond", "millisecond"] = Field(
        default="microsecond",
        description="millisecond accepts that two writes of one item within a millisecond may end in the wrong one",
    )
    reorder: Duration = Field(
        default=timedelta(seconds=2), description="how much later than others made after it a change may come"
    )
    fan_out: bool = Field(
        default=False, description="enhanced fan-out: shards are pushed to a consumer that `init` registers"
    )

    @field_validator("reorder")
    @classmethod
    def _is_bounded(cls, value: timedelta) -> timedelta:
        if value > _LONGEST_REORDER:
            raise ValueError("must be at most 60s, because changes of a mesh wait for so long")
        return value


class Source(Frozen):
    """The region whose table is read."""

    region: RegionName
    stream: StreamSettings | None = Field(default=None, description="default: the table's own")


def region_of_source(value: object) -> object:
    """The region of a source that is written with its stream, which the rule takes (`stream_of_source`)."""
    if not isinstance(value, dict):
        return value
    unknown = sorted(str(name) for name in value.keys() - {"region", "stream"})
    if unknown or "region" not in value:
        raise ValueError(f"has {unknown[0]!r}, which is no key here" if unknown else "names no region")
    return value["region"]


def stream_of_source(value: Any) -> Any:
    """A rule whose source names its stream, as one that names it itself."""
    source = value.get("source") if isinstance(value, dict) else None
    if not isinstance(source, dict) or source.get("stream") is None:
        return value
    if value.get("stream") is not None:
        raise ValueError("names a stream at the rule and at its source; leave one out")
    return {**value, "stream": source["stream"]}
